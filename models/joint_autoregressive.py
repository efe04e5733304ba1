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

import torch
from torch import Tensor, nn

from models.coding.integer import IntegerContext
from models.coding.loop import Coder
from models.coding.orders import wavefront
from models.coding.priors import code_with_context
from models.entropy.density import NonParametricDensity
from models.entropy.gaussian import gaussian_likelihood
from models.hierarchical import HierarchicalCodec
from models.layers import (
    CausalConv2d,
    Mode,
    Quantised,
    analysis_transform,
    feature_synthesis,
    hyper_analysis,
    parameter_network,
    synthesis_transform,
)


class JointAutoregressiveHierarchicalPriors(HierarchicalCodec):
    """x (B, 3, H, W) in [0, 1], H and W multiples of 64.

    y (B, M, H/16, W/16); z (B, N, H/64, W/64).
    """

    order = staticmethod(wavefront)

    def __init__(self, N: int = 192, M: int = 192):
        super().__init__(N, M)
        self.g_a = analysis_transform(N, M)
        self.g_s = synthesis_transform(N, M)
        self.h_a = hyper_analysis(N, M, nn.LeakyReLU)
        self.h_s = feature_synthesis(N, M)
        self.entropy_parameters = parameter_network(M)
        self.context_prediction = CausalConv2d(M, 2 * M)
        self.entropy_bottleneck = NonParametricDensity(N)

    def estimate_y(self, y: Tensor, z_hat: Tensor, mode: Mode) -> tuple[Tensor, Tensor]:
        """With rounding, the context sees round(y): one pass over the whole latent cannot know
        the means that the coding path rounds around. CompressAI does the same.
        """
        psi = self.h_s(z_hat)
        quantised = Quantised(y, mode)
        y_hat = quantised.hat()
        scales, means = self.parameters_given(psi, y_hat)
        if quantised.mode not in ("noise", "round"):
            # As in coding: the context sees latents rounded around their means.
            scales, means = self.parameters_given(psi, quantised.hat(means))
            y_hat = quantised.hat(means)
        measured = quantised.measured(means)
        return y_hat, gaussian_likelihood(measured, scales, means, quantised.gain)

    def parameters_given(self, psi: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Scales and means, each like y_hat, from psi (B, 2M, H/16, W/16) and y_hat before."""
        context = self.context_prediction(y_hat)
        scales, means = self.entropy_parameters(torch.cat([psi, context], 1)).chunk(2, 1)
        return scales, means

    def code_y(self, coder: Coder, y: Tensor | None, shape: tuple, z_hat: Tensor) -> Tensor:
        networks = self.frozen.networks
        psi = networks["h_s"](z_hat)
        return code_with_context(coder, y, shape, networks["context"], psi, self.order)

    def frozen_networks(self) -> dict:
        context = IntegerContext(self.context_prediction, self.entropy_parameters)
        return super().frozen_networks() | {"context": context}
