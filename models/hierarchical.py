"""What codecs with side information share: z, coded before y, that tells of y."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from models.base import Codec
from models.coding.frozen import Networks
from models.coding.integer import FRACTION_BITS, GRID_BITS, IntegerNetwork
from models.coding.loop import Coder
from models.coding.priors import code_factorized, to_grid
from models.entropy.gaussian import SCALE_LEVELS
from models.entropy.tables import Tables, density_tables, gaussian_tables
from models.layers import Mode, without_gain


class HierarchicalCodec(Codec):
    """Base of codecs with side information z = h_a(y) (B, N, H/64, W/64), coded before y.

    A model defines its towers, h_a, h_s and `entropy_bottleneck` (the density of z) among them,
    and what z_hat tells of y, twice: in floats, `estimate_y`, and in integers, `code_y`.
    """

    streams = ("z", "y")
    downsampling = 64

    def latents(self, y: Tensor) -> dict[str, Tensor]:
        return {"y": y, "z": self.h_a(y)}

    def likelihoods(
        self, latents: dict[str, Tensor], mode: Mode
    ) -> tuple[Tensor, dict[str, Tensor]]:
        z_hat, z_likelihoods = self.entropy_bottleneck(latents["z"], without_gain(mode))
        y_hat, y_likelihoods = self.estimate_y(latents["y"], z_hat, mode)
        return y_hat, {"y": y_likelihoods, "z": z_likelihoods}

    def estimate_y(self, y: Tensor, z_hat: Tensor, mode: Mode) -> tuple[Tensor, Tensor]:
        """y_hat and the likelihoods of y, each like y (B, M, H/16, W/16)."""
        raise NotImplementedError

    def code(self, coders: Mapping, latents: dict, shapes: dict) -> Tensor:
        offsets = self.frozen.offsets["z"]
        z_hat = code_factorized(coders["z"], latents.get("z"), shapes["z"], offsets)
        return self.code_y(coders["y"], latents.get("y"), shapes["y"], to_grid(z_hat))

    def code_y(self, coder: Coder, y: Tensor | None, shape: tuple, z_hat: Tensor) -> Tensor:
        """Code y (B, M, H/16, W/16), or read it where None; returns y_hat.

        z_hat (B, N, H/64, W/64): integers in units of 1/64, the input of integer networks.
        """
        raise NotImplementedError

    def frozen_tables(self) -> dict[str, Tables]:
        return {"z": density_tables(self.entropy_bottleneck), "y": gaussian_tables()}

    def table_counts(self) -> dict[str, int]:
        return super().table_counts() | {"y": SCALE_LEVELS}

    def frozen_networks(self) -> Networks:
        return {"h_s": IntegerNetwork(self.h_s, GRID_BITS, FRACTION_BITS)}

    def latent_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple]:
        z = (batch, self.N, height // 64, width // 64)
        return super().latent_shapes(batch, height, width) | {"z": z}
