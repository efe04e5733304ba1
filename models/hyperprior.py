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

from torch import Tensor, nn

from models.coding.loop import Coder
from models.coding.priors import code_gaussian
from models.entropy.density import NonParametricDensity
from models.entropy.gaussian import gaussian_likelihood
from models.hierarchical import HierarchicalCodec
from models.layers import (
    Mode,
    Quantised,
    analysis_transform,
    hyper_analysis,
    scale_synthesis,
    synthesis_transform,
)


class Hyperprior(HierarchicalCodec):
    """x (B, 3, H, W) in [0, 1], H and W multiples of 64.

    y (B, M, H/16, W/16); z (B, N, H/64, W/64).
    """

    def __init__(self, N: int = 128, M: int = 192):
        super().__init__(N, M)
        self.g_a = analysis_transform(N, M)
        self.g_s = synthesis_transform(N, M)
        self.h_a = hyper_analysis(N, M, nn.ReLU)
        self.h_s = scale_synthesis(N, M)
        self.entropy_bottleneck = NonParametricDensity(N)

    def latents(self, y: Tensor) -> dict[str, Tensor]:
        return {"y": y, "z": self.h_a(y.abs())}

    def estimate_y(self, y: Tensor, z_hat: Tensor, mode: Mode) -> tuple[Tensor, Tensor]:
        scales = self.h_s(z_hat)
        quantised = Quantised(y, mode)
        measured = quantised.measured()
        return quantised.hat(), gaussian_likelihood(measured, scales, gain=quantised.gain)

    def code_y(self, coder: Coder, y: Tensor | None, shape: tuple, z_hat: Tensor) -> Tensor:
        scales = self.frozen.networks["h_s"](z_hat)
        return code_gaussian(coder, y, shape, scales)
