"""Factorized prior.

J. Balle, V. Laparra, E. P. Simoncelli: "End-to-end Optimized Image Compression", ICLR 2017
(arXiv 1611.01704), with the non-parametric density of Balle et al. 2018, appendix 6.1.

    x --> g_a --> y --> Q --> y_hat --> g_s --> x_hat
                        |
                   factorized prior: bits of y_hat, one density per channel
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from models.base import Codec
from models.coding.gain import UNIT, Gain
from models.coding.priors import code_factorized
from models.coding.range_coder import CodingTables
from models.entropy.density import NonParametricDensity
from models.entropy.tables import density_tables, scaled_tables
from models.layers import Mode, analysis_transform, synthesis_transform


class Factorized(Codec):
    """x (B, 3, H, W) in [0, 1], H and W multiples of 16; y (B, M, H/16, W/16)."""

    def __init__(self, N: int = 128, M: int = 192):
        super().__init__(N, M)
        self.g_a = analysis_transform(N, M)
        self.g_s = synthesis_transform(N, M)
        self.entropy_bottleneck = NonParametricDensity(M)

    def likelihoods(self, latents: dict, mode: Mode) -> tuple[Tensor, dict]:
        y_hat, y_likelihoods = self.entropy_bottleneck(latents["y"], mode)
        return y_hat, {"y": y_likelihoods}

    def code(self, coders: Mapping, latents: dict, shapes: dict) -> Tensor:
        offsets = self.frozen.offsets["y"]
        return code_factorized(coders["y"], latents.get("y"), shapes["y"], offsets)

    def coding_tables(self, gain: Gain) -> dict:
        if gain.units == UNIT:
            return super().coding_tables(gain)
        return {"y": CodingTables(scaled_tables(self.frozen.tables["y"], gain.units, UNIT))}

    def frozen_tables(self) -> dict:
        return {"y": density_tables(self.entropy_bottleneck)}
