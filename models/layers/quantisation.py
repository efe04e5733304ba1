"""The three faces of quantisation: noise, rounding, rounding with a straight-through gradient."""

from __future__ import annotations

import torch
from torch import Tensor

MODES = ("noise", "round", "ste")


class Quantised:
    """Latents x of any shape, quantised in one of three modes.

    'noise': x + u with u ~ U(-1/2, 1/2), the training proxy of rounding (Balle et al. 2017,
    section 3). 'round': as coded. 'ste': for the networks that follow, rounded with the
    gradient of the identity (Theis et al. 2017, section 2.1); for the rate, which would have
    no useful gradient then, x + u (Minnen and Singh 2020, section 3).

    Noise is drawn once: all that is asked of one object goes with the same u. ValueError for
    any other mode.
    """

    def __init__(self, x: Tensor, mode: str):
        if mode not in MODES:
            raise ValueError(f"Unknown quantization {mode!r}; choose noise, round or ste.")
        if x.dtype in (torch.bfloat16, torch.float16):
            x = x.float()  # at |x| = 50 bf16 has steps of 1/4: noise and rounding need more
        self.x, self.mode = x, mode
        self.noisy = None if mode == "round" else x + torch.rand_like(x) - 0.5

    def hat(self, means: Tensor | float = 0.0) -> Tensor:
        """What the following networks see, like x: rounded around `means`, unless noisy.

        means: any shape that broadcasts to x's.
        """
        if self.mode == "noise":
            return self.noisy
        rounded = torch.round(self.x - means) + means
        return rounded if self.mode == "round" else self.x + (rounded - self.x).detach()

    def measured(self, means: Tensor | float = 0.0) -> Tensor:
        """What the rate is measured on, like x; `means` as in `hat`."""
        return self.hat(means) if self.noisy is None else self.noisy
