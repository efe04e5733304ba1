"""Checkerboard context model on joint autoregressive and hierarchical priors.

D. He, Y. Zheng, B. Sun, Y. Wang, H. Qin: "Checkerboard Context Model for Efficient Learned
Image Compression", CVPR 2021 (arXiv 2103.15306).

    x --> g_a --> y ------------> Q --+--> y_hat --> g_s --> x_hat
                  |               |   |
                  |       N(mu, sigma**2): bits of y_hat
                  |               |   |
                  |    entropy_parameters <-- context_prediction (checkerboard: anchors)
                  |               |
                 h_a --> z       h_s <-- z_hat
                         |                |
                         Q ---------------+
                         |
                    factorized prior: bits of z_hat

What is new to the joint model: anchors (row + column even) see the hyperprior only, their
context features are zero; non-anchors see all anchors around them. Two steps code it all.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
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
from models.coding.orders import REACH, checkerboard
from models.coding.priors import ScaleIndex, code_factorized, to_grid
from models.entropy.density import NonParametricDensity
from models.entropy.gaussian import gaussian_likelihood
from models.entropy.tables import density_tables, gaussian_tables
from models.layers import (
    MaskedConv2d,
    analysis_transform,
    checkerboard_mask,
    conv,
    deconv,
    quantise,
    round_ste,
    synthesis_transform,
)
from models.layers.tiles import analyse


class CheckerboardAutogressive(Codec):
    """x (B, 3, H, W) in [0, 1], H and W multiples of 64.

    y (B, M, H/16, W/16); z (B, N, H/64, W/64).
    """

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
        self.context_prediction = MaskedConv2d(M, 2 * M, checkerboard_mask())
        self.entropy_bottleneck = NonParametricDensity(N)

    def forward(self, x: Tensor, quantization: str | None = None) -> dict:
        """Estimate of training: {"x_hat": like x, "likelihoods": {"y", "z": like y, z}}.

        Two passes, as in coding: the anchors' means come from the hyperprior alone, the
        anchors rounded around them are what the non-anchors see. Noise needs no means, so
        in training one pass gives the same numbers as two.
        """
        mode = self.quantization(quantization)
        latents = self.analysis(x)
        y = latents["y"]
        z_hat, z_likelihoods = self.entropy_bottleneck(latents["z"], mode)
        psi = self.h_s(z_hat)
        y_hat, y_measured = quantise(y, mode)
        if mode != "noise":
            _, means = self.entropy_parameters(F.pad(psi, (0, 0, 0, 0, 0, 2 * self.M))).chunk(2, 1)
            y_hat, _ = quantise(y, mode, means)
        ctx = self.context_prediction(y_hat) * ~anchors(y)  # non-anchors of y_hat are unseen
        scales, means = self.entropy_parameters(torch.cat([psi, ctx], 1)).chunk(2, 1)
        if mode == "round":
            y_hat, y_measured = quantise(y, mode, means)
        if mode == "ste":
            y_hat = round_ste(y, means)
        y_likelihoods = gaussian_likelihood(y_measured, scales, means)
        return {
            "x_hat": self.g_s(y_hat),
            "likelihoods": {"y": y_likelihoods, "z": z_likelihoods},
        }

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
            seen = None if step == 0 else y_hat  # anchors have no context
            params = context.at(prepared, seen, positions, centres, width + 2 * REACH)
            scales, means = params.chunk(2, 2)
            return means, scale_index(scales)

        order = checkerboard(height, width)
        return code_latents(
            coders["y"], latents.get("y"), shapes["y"], order, params_at, prepared.device
        )


def anchors(y: Tensor) -> Tensor:
    """True where row + column is even; (H, W) for y (B, M, H, W)."""
    height, width = y.shape[-2:]
    rows = torch.arange(height, device=y.device)[:, None]
    return (rows + torch.arange(width, device=y.device)) % 2 == 0
