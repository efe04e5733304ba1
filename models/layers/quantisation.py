"""The three faces of quantisation: noise, rounding, rounding with a straight-through gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def add_noise(x: Tensor) -> Tensor:
    """x + u with u ~ U(-1/2, 1/2), any shape: the training proxy of rounding.

    Source: Balle et al. 2017, section 3 (equation 11 of the arXiv version).
    """
    return x + torch.rand_like(x) - 0.5


def round_offset(x: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """round(x - offset) + offset, any broadcastable shapes: what is coded and read back."""
    return torch.round(x - offset) + offset


def round_ste(x: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """`round_offset` forwards, the identity backwards (straight-through estimator); any shape.

    Source: Theis et al. 2017, section 2.1; used for the synthesis side as in Minnen and
    Singh 2020, section 3.
    """
    return x + (round_offset(x, offset) - x).detach()


def quantise(x: Tensor, mode: str, offset: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """(what the following networks see, what the rate is measured on), each like x.

    'noise': both x + u; 'round': both rounded around `offset`, as coded; 'ste': rounded
    with a straight-through gradient for the networks, noise for the rate, which would have
    no useful gradient otherwise. ValueError for any other mode.
    """
    if x.dtype in (torch.bfloat16, torch.float16):
        x = x.float()  # at |x| = 50 bf16 has steps of 1/4: noise and rounding need more
    if mode == "noise":
        noisy = add_noise(x)
        return noisy, noisy
    if mode == "round":
        rounded = round_offset(x, offset)
        return rounded, rounded
    if mode == "ste":
        return round_ste(x, offset), add_noise(x)
    raise ValueError(f"Unknown quantization {mode!r}; choose noise, round or ste.")
