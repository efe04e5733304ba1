"""Joint autoregressive and hierarchical priors.

D. Minnen, J. Balle, G. Toderici: "Joint Autoregressive and Hierarchical Priors for Learned
Image Compression", NeurIPS 2018 (arXiv 1809.02736).

    x --> g_a --> y ------------> Q --+--> y_hat --> g_s --> x_hat
                  |               |   |
                  |       N(mu, sigma**2): bits of y_hat
                  |               |   |
                  |    entropy_parameters <-- context_prediction (causal: y_hat coded so far)
                  |               |
                 h_a --> z       h_s <-- z_hat
                         |                |
                         Q ---------------+
                         |
                    factorized prior: bits of z_hat

What is new to the hyperprior: a mean beside the scale, and a context model that sees the
already coded part of y_hat. Coding is in wavefront order.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.base import Codec
from models.coding.integer import (
    FRACTION_BITS,
    GRID_BITS,
    IntegerContext,
    IntegerNetwork,
    mean_scale_bits,
)
from models.coding.loop import cells, code_latents
from models.coding.orders import REACH, wavefront
from models.coding.priors import ScaleIndex, code_factorized, to_grid
from models.entropy.density import NonParametricDensity
from models.entropy.gaussian import gaussian_likelihood
from models.entropy.tables import density_tables, gaussian_tables
from models.layers import (
    MaskedConv2d,
    analysis_transform,
    causal_mask,
    conv,
    deconv,
    quantise,
    round_ste,
    synthesis_transform,
)
from models.layers.tiles import analyse


class JointAutoregressiveHierarchicalPriors(Codec):
    """x (B, 3, H, W) in [0, 1], H and W multiples of 64.

    y (B, M, H/16, W/16); z (B, N, H/64, W/64).
    """

    order = staticmethod(wavefront)

    def __init__(self, N: int = 192, M: int = 192):
        super().__init__(N, M)
        self.g_a = analysis_transform(N, M)
        self.g_s = synthesis_transform(N, M)
        self.h_a = nn.Sequential(
            conv(M, N, kernel=3, stride=1), nn.LeakyReLU(), conv(N, N), nn.LeakyReLU(), conv(N, N)
        )
        self.h_s = nn.Sequential(
            deconv(N, M),
            nn.LeakyReLU(),
            deconv(M, M * 3 // 2),
            nn.LeakyReLU(),
            conv(M * 3 // 2, M * 2, kernel=3, stride=1),
        )
        self.entropy_parameters = nn.Sequential(
            conv(M * 4, M * 10 // 3, kernel=1, stride=1),
            nn.LeakyReLU(),
            conv(M * 10 // 3, M * 8 // 3, kernel=1, stride=1),
            nn.LeakyReLU(),
            conv(M * 8 // 3, M * 2, kernel=1, stride=1),
        )
        self.context_prediction = MaskedConv2d(M, 2 * M, causal_mask())
        self.entropy_bottleneck = NonParametricDensity(N)

    def forward(self, x: Tensor, quantization: str | None = None) -> dict:
        """Estimate of training: {"x_hat": like x, "likelihoods": {"y", "z": like y, z}}.

        With rounding, the context sees round(y): one pass over the whole latent cannot
        know the means that the coding path rounds around. CompressAI does the same.
        """
        mode = self.quantization(quantization)
        latents = self.analysis(x)
        y = latents["y"]
        z_hat, z_likelihoods = self.entropy_bottleneck(latents["z"], mode)
        y_hat, y_measured = quantise(y, mode)
        psi = self.h_s(z_hat)
        scales, means = self.parameters_given(psi, y_hat)
        if mode == "ste":  # as in coding: the context sees latents rounded around their means
            scales, means = self.parameters_given(psi, round_ste(y, means))
            y_hat = round_ste(y, means)
        if mode == "round":
            y_measured = torch.round(y - means) + means
        y_likelihoods = gaussian_likelihood(y_measured, scales, means)
        return {
            "x_hat": self.g_s(y_hat),
            "likelihoods": {"y": y_likelihoods, "z": z_likelihoods},
        }

    def parameters_given(self, psi: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Scales and means, each (B, M, H/16, W/16), from h_s's features and the latents."""
        features = torch.cat([psi, self.context_prediction(y_hat)], 1)
        scales, means = self.entropy_parameters(features).chunk(2, 1)
        return scales, means

    def analysis(self, x: Tensor) -> dict[str, Tensor]:
        y = analyse(self.g_a, x, self.progress)
        return {"y": y, "z": self.h_a(y)}

    def frozen_tables(self) -> dict:
        return {"z": density_tables(self.entropy_bottleneck), "y": gaussian_tables()}

    def frozen_networks(self) -> dict:
        bits = mean_scale_bits(self.M)
        return {
            "h_s": IntegerNetwork(self.h_s, GRID_BITS, FRACTION_BITS),
            "context": IntegerContext(self.context_prediction, self.entropy_parameters, bits),
        }

    def code(self, coders: Mapping, latents: dict, shapes: dict) -> Tensor:
        frozen = self.frozen
        z_hat = code_factorized(coders["z"], latents.get("z"), shapes["z"], frozen.offsets["z"])
        context = frozen.networks["context"]
        height, width = shapes["y"][2:]
        prepared = context.prepare(frozen.networks["h_s"](to_grid(z_hat)))
        scale_index = ScaleIndex(prepared.device)

        def params_at(y_hat, positions, step):
            centres = cells(positions, width)
            params = context.at(prepared, y_hat, positions, centres, width + 2 * REACH)
            scales, means = params.chunk(2, 2)
            return means, scale_index(scales)

        order = self.order(height, width)
        return code_latents(
            coders["y"], latents.get("y"), shapes["y"], order, params_at, prepared.device
        )
