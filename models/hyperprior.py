"""Scale hyperprior.

J. Balle, D. Minnen, S. Singh, S. J. Hwang, N. Johnston: "Variational image compression with
a scale hyperprior", ICLR 2018 (arXiv 1802.01436).

    x --> g_a --> y ------------> Q --> y_hat --> g_s --> x_hat
                  |               |
                 |.|         N(0, sigma**2): bits of y_hat
                  |               |
                 h_a --> z       h_s <-- z_hat
                         |                |
                         Q ---------------+
                         |
                    factorized prior: bits of z_hat

What is new to the factorized prior: z, side information that tells where y is large.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.base import Codec
from models.coding.integer import FRACTION_BITS, GRID_BITS, IntegerNetwork
from models.coding.loop import code_latents
from models.coding.orders import everywhere
from models.coding.priors import ScaleIndex, code_factorized, to_grid
from models.entropy.density import NonParametricDensity
from models.entropy.gaussian import gaussian_likelihood
from models.entropy.tables import density_tables, gaussian_tables
from models.layers import (
    analysis_transform,
    conv,
    deconv,
    quantise,
    synthesis_transform,
)
from models.layers.tiles import analyse


class Hyperprior(Codec):
    """x (B, 3, H, W) in [0, 1], H and W multiples of 64.

    y (B, M, H/16, W/16); z (B, N, H/64, W/64).
    """

    def __init__(self, N: int = 128, M: int = 192):
        super().__init__(N, M)
        self.g_a = analysis_transform(N, M)
        self.g_s = synthesis_transform(N, M)
        self.h_a = nn.Sequential(
            conv(M, N, kernel=3, stride=1), nn.ReLU(), conv(N, N), nn.ReLU(), conv(N, N)
        )
        self.h_s = nn.Sequential(
            deconv(N, N),
            nn.ReLU(),
            deconv(N, N),
            nn.ReLU(),
            conv(N, M, kernel=3, stride=1),
            nn.ReLU(),
        )
        self.entropy_bottleneck = NonParametricDensity(N)

    def forward(self, x: Tensor, quantization: str | None = None) -> dict:
        """Estimate of training: {"x_hat": like x, "likelihoods": {"y", "z": like y, z}}."""
        mode = self.quantization(quantization)
        latents = self.analysis(x)
        z_hat, z_likelihoods = self.entropy_bottleneck(latents["z"], mode)
        scales = self.h_s(z_hat)
        y_hat, y_measured = quantise(latents["y"], mode)
        y_likelihoods = gaussian_likelihood(y_measured, scales)
        return {
            "x_hat": self.g_s(y_hat),
            "likelihoods": {"y": y_likelihoods, "z": z_likelihoods},
        }

    def analysis(self, x: Tensor) -> dict[str, Tensor]:
        y = analyse(self.g_a, x, self.progress)
        return {"y": y, "z": self.h_a(y.abs())}

    def frozen_tables(self) -> dict:
        return {"z": density_tables(self.entropy_bottleneck), "y": gaussian_tables()}

    def frozen_networks(self) -> dict:
        return {"h_s": IntegerNetwork(self.h_s, GRID_BITS, FRACTION_BITS)}

    def code(self, coders: Mapping, latents: dict, shapes: dict) -> Tensor:
        frozen = self.frozen
        z_hat = code_factorized(coders["z"], latents.get("z"), shapes["z"], frozen.offsets["z"])
        scales = frozen.networks["h_s"](to_grid(z_hat))
        indexes = ScaleIndex(scales.device)(scales).flatten(2).transpose(1, 2)  # (B, P, M)
        zero_mean = torch.zeros((), dtype=torch.float64, device=scales.device)

        def params_at(y_hat, positions, step):
            return zero_mean, indexes[:, positions]

        order = everywhere(*shapes["y"][2:])
        return code_latents(
            coders["y"], latents.get("y"), shapes["y"], order, params_at, scales.device
        )
