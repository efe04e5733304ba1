"""Mean-scale hyperprior: the example of custom_model.md, registered from outside the study.

D. Minnen, J. Balle, G. Toderici, NeurIPS 2018 (arXiv 1809.02736), without the context model.

What is new to the scale hyperprior: h_s gives a mean beside each scale, as CompressAI's
`mbt2018_mean` does.
"""

from __future__ import annotations

from torch import Tensor, nn

import models
from models.coding.integer import GRID_BITS, IntegerNetwork, mean_scale_bits
from models.coding.loop import Coder
from models.coding.priors import code_gaussian
from models.entropy.density import NonParametricDensity
from models.entropy.gaussian import gaussian_likelihood
from models.hierarchical import HierarchicalCodec
from models.layers import (
    Mode,
    Quantised,
    analysis_transform,
    feature_synthesis,
    hyper_analysis,
    synthesis_transform,
)


@models.register
class MeanScaleHyperprior(HierarchicalCodec):
    """x (B, 3, H, W) in [0, 1], H and W multiples of 64.

    y (B, M, H/16, W/16); z (B, N, H/64, W/64).
    """

    def __init__(self, N: int = 128, M: int = 192):
        super().__init__(N, M)
        self.g_a = analysis_transform(N, M)
        self.g_s = synthesis_transform(N, M)
        self.h_a = hyper_analysis(N, M, nn.LeakyReLU)
        self.h_s = feature_synthesis(N, M)  # 2M channels: the scales, then the means
        self.entropy_bottleneck = NonParametricDensity(N)

    def estimate_y(self, y: Tensor, z_hat: Tensor, mode: Mode) -> tuple[Tensor, Tensor]:
        scales, means = self.h_s(z_hat).chunk(2, 1)
        quantised = Quantised(y, mode)
        measured = quantised.measured(means)
        likelihoods = gaussian_likelihood(measured, scales, means, quantised.gain)
        return quantised.hat(means), likelihoods

    def frozen_networks(self) -> dict:
        return {"h_s": IntegerNetwork(self.h_s, GRID_BITS, mean_scale_bits(self.M))}

    def code_y(self, coder: Coder, y: Tensor | None, shape: tuple, z_hat: Tensor) -> Tensor:
        scales, means = self.frozen.networks["h_s"](z_hat).chunk(2, 1)
        return code_gaussian(coder, y, shape, scales, means)
