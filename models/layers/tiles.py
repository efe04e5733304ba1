"""Transforms of large images, tile by tile, with the result of the whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

TILE = 1024  # pixels, a multiple of 16
MARGIN = 32  # pixels: what a latent sees of the image reaches 30 pixels beyond its own

Progress = Callable[[Iterable], Iterable]


def tiled(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    tile: int,
    margin: int,
    scale: float,
    progress: Progress = iter,
) -> Tensor:
    """network(x) for x (B, C, H, W), computed on overlapping tiles; (B, C', H*scale, W*scale).

    `tile` and `margin` in x's own pixels; each tile is extended by `margin` where the image
    goes on, and what the margin spoils is cut off, so the result equals the untiled one up
    to float noise if `margin` covers the network's reach. Multiples of 1/scale are needed
    for scale < 1, or strides would lose their phase. Memory is that of one tile.
    """
    height, width = x.shape[-2:]
    if height <= tile and width <= tile:
        return network(x)
    out: Tensor | None = None
    spans = (_spans(size, tile, margin, scale) for size in (height, width))
    for rows, columns in progress(list(itertools.product(*spans))):
        (seen, inner, outer), (seen_across, inner_across, outer_across) = rows, columns
        part = network(x[:, :, seen, seen_across])
        if out is None:
            size = int(height * scale), int(width * scale)
            out = part.new_empty(*part.shape[:2], *size)
        out[:, :, outer, outer_across] = part[:, :, inner, inner_across]
    assert out is not None
    return out


def _spans(size: int, tile: int, margin: int, scale: float) -> Iterator[tuple[slice, slice, slice]]:
    """Of each tile: what the network sees of x, what of its result counts, and where that goes."""
    for start in range(0, size, tile):
        end, first = min(start + tile, size), max(start - margin, 0)
        inner, outer = (
            slice(int((start - origin) * scale), int((end - origin) * scale))
            for origin in (first, 0)
        )
        yield slice(first, end + margin), inner, outer


def analyse(g_a: Callable, x: Tensor, progress: Progress = iter, tile: int = TILE) -> Tensor:
    """g_a(x): image (B, 3, H, W) to latents (B, M, H/16, W/16); whole while training."""
    if torch.is_grad_enabled():
        return g_a(x)
    return tiled(g_a, x, tile, MARGIN, 1 / 16, progress)


def synthesise(g_s: Callable, y_hat: Tensor, progress: Progress = iter, tile: int = TILE) -> Tensor:
    """g_s(y_hat): latents (B, M, H/16, W/16) to an image (B, 3, H, W)."""
    return tiled(g_s, y_hat, tile // 16, MARGIN // 16, 16, progress)
