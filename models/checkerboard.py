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

import torch
from torch import Tensor, nn

from models.coding.integer import IntegerContext
from models.coding.loop import Coder
from models.coding.orders import checkerboard
from models.coding.priors import code_with_context
from models.entropy.density import NonParametricDensity
from models.entropy.gaussian import gaussian_likelihood
from models.hierarchical import HierarchicalCodec
from models.layers import (
    MaskedConv2d,
    Mode,
    Quantised,
    analysis_transform,
    checkerboard_mask,
    feature_synthesis,
    hyper_analysis,
    parameter_network,
    parity,
    synthesis_transform,
)


class CheckerboardAutogressive(HierarchicalCodec):
    """x (B, 3, H, W) in [0, 1], H and W multiples of 64.

    y (B, M, H/16, W/16); z (B, N, H/64, W/64).
    """

    order = staticmethod(checkerboard)

    def __init__(self, N: int = 192, M: int = 192):
        super().__init__(N, M)
        self.g_a = analysis_transform(N, M)
        self.g_s = synthesis_transform(N, M)
        self.h_a = hyper_analysis(N, M, nn.LeakyReLU)
        self.h_s = feature_synthesis(N, M)
        self.entropy_parameters = parameter_network(M)
        self.context_prediction = MaskedConv2d(M, 2 * M, checkerboard_mask())
        self.entropy_bottleneck = NonParametricDensity(N)

    def estimate_y(self, y: Tensor, z_hat: Tensor, mode: Mode) -> tuple[Tensor, Tensor]:
        """Two passes, as in coding: the anchors' means come from the hyperprior alone, the
        anchors rounded around them are what the non-anchors see. Noise needs no means, so
        in training one pass gives the same numbers as two.
        """
        psi = self.h_s(z_hat)
        quantised = Quantised(y, mode)
        means = 0.0 if quantised.mode == "noise" else self.parameters_given(psi, None)[1]
        scales, means = self.parameters_given(psi, quantised.hat(means))
        likelihoods = gaussian_likelihood(quantised.measured(means), scales, means, quantised.gain)
        return quantised.hat(means), likelihoods

    def parameters_given(self, psi: Tensor, y_hat: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scales and means, each like y, from psi (B, 2M, H/16, W/16) and the anchors of y_hat;
        None: as if all were anchors, which see psi alone.
        """
        context = torch.zeros_like(psi)
        if y_hat is not None:  # parity is 0 for anchors
            context = self.context_prediction(y_hat) * parity(*y_hat.shape[2:]).to(
                psi.device, non_blocking=True
            )
        scales, means = self.entropy_parameters(torch.cat([psi, context], 1)).chunk(2, 1)
        return scales, means

    def code_y(self, coder: Coder, y: Tensor | None, shape: tuple, z_hat: Tensor) -> Tensor:
        networks = self.frozen.networks
        psi = networks["h_s"](z_hat)
        return code_with_context(coder, y, shape, networks["context"], psi, self.order, blind=1)

    def frozen_networks(self) -> dict:
        context = IntegerContext(self.context_prediction, self.entropy_parameters)
        return super().frozen_networks() | {"context": context}
