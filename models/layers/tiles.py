"""Transforms of large images, tile by tile, with the result of the whole."""

from __future__ import annotations

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
    for rows, columns in progress(list(_tiles(height, width, tile))):
        top, bottom = _extend(rows, margin, height)
        left, right = _extend(columns, margin, width)
        part = network(x[:, :, top:bottom, left:right])
        if out is None:
            size = int(height * scale), int(width * scale)
            out = part.new_empty(*part.shape[:2], *size)
        inner = (_scaled(rows, top, scale), _scaled(columns, left, scale))
        outer = (_scaled(rows, 0, scale), _scaled(columns, 0, scale))
        out[:, :, outer[0], outer[1]] = part[:, :, inner[0], inner[1]]
    assert out is not None
    return out


def _tiles(height: int, width: int, tile: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            yield (top, min(top + tile, height)), (left, min(left + tile, width))


def _extend(span: tuple[int, int], margin: int, size: int) -> tuple[int, int]:
    return max(span[0] - margin, 0), min(span[1] + margin, size)


def _scaled(span: tuple[int, int], origin: int, scale: float) -> slice:
    return slice(int((span[0] - origin) * scale), int((span[1] - origin) * scale))


def analyse(g_a: Callable, x: Tensor, progress: Progress = iter, tile: int = TILE) -> Tensor:
    """g_a(x): image (B, 3, H, W) to latents (B, M, H/16, W/16); whole while training."""
    if torch.is_grad_enabled():
        return g_a(x)
    return tiled(g_a, x, tile, MARGIN, 1 / 16, progress)


def synthesise(g_s: Callable, y_hat: Tensor, progress: Progress = iter, tile: int = TILE) -> Tensor:
    """g_s(y_hat): latents (B, M, H/16, W/16) to an image (B, 3, H, W)."""
    return tiled(g_s, y_hat, tile // 16, MARGIN // 16, 16, progress)
