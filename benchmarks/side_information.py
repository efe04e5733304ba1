"""What the side information takes away from the latent: moments and correlations.

For the three models with a hyperprior at lambda 0.013, on each built-in photograph: y, and what is
left of it, (y - mean) / scale by the decoder's predictions. Writes side_information.csv, and draws
the distributions of all values in side_information_normal.png, the study's in Image4md/.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import models
from evaluation.bits import bits_per_position
from evaluation.plots import drawing, style_of
from models.base import Codec, pad
from models.coding.loop import Coder
from models.coding.orders import everywhere
from models.datasets import sample_photographs
from models.entropy.gaussian import scale_levels
from models.images import to_tensor
from models.presets import STUDIED, short

LMBDA = 0.013
HYPERPRIORS = STUDIED[1:]  # the models with one
KINDS = {"before": "y / standard deviation of its channel", "after": "(y - mean) / scale",
         "scale > 1": "(y - mean) / scale, where scale > 1"}  # fmt: skip
ACTIVE = 0.5  # least standard deviation of a channel that carries information
REACH = 4  # positions


class Watcher(Coder):
    """A coder that stores nothing and remembers symbols and indexes, each (1, n, M) per step."""

    def __init__(self) -> None:
        self.steps: list[tuple[Tensor, Tensor]] = []

    def code(self, symbols: Tensor, indexes: Tensor) -> Tensor:
        self.steps.append((symbols, indexes.clone()))
        return symbols


@torch.no_grad()
def look(codec: Codec, pixels: np.ndarray) -> dict[str, Any]:
    """What the coder sees of an image, uint8 (H, W, 3): tensors (M, H/16, W/16).

    "y", the "mean" and "scale" that are predicted, "normalised", which is (y - mean) / scale; and
    "bits", an array (H/16, W/16), see `bits_per_position`. `codec` is one of `HYPERPRIORS`.
    """
    x = to_tensor(pixels)
    latents = codec.analysis(pad(x, codec.downsampling))
    watchers = {key: Watcher() for key in latents}
    y_hat = codec.code(watchers, latents, {key: v.shape for key, v in latents.items()})[0]
    turns = torch.cat(getattr(codec, "order", everywhere)(*y_hat.shape[1:])).argsort()
    symbols, indexes = (
        torch.cat(parts, 1)[0, turns].T.reshape(y_hat.shape)
        for parts in zip(*watchers["y"].steps, strict=True)
    )
    y = latents["y"][0]
    mean = y_hat - symbols.float()
    scale = scale_levels()[indexes.long()].float()
    normalised = (y - mean) / scale
    bits = bits_per_position(codec, x)
    return {"y": y, "mean": mean, "scale": scale, "normalised": normalised, "bits": bits}


def distributions(parts: dict[str, Any]) -> dict[str, np.ndarray]:
    """Values (n,) of each of `KINDS`: all of y before and after, and the wide ones of after.

    Values with a scale below 1 are mostly rounded to zero, whatever their distribution.
    """
    before = parts["y"] / parts["y"].flatten(1).std(1)[:, None, None]
    after = parts["normalised"]
    values = before, after, after[parts["scale"] > 1]
    return {kind: one.flatten().numpy() for kind, one in zip(KINDS, values, strict=True)}


def correlations(parts: dict[str, Any]) -> dict[str, np.ndarray]:
    """`correlation` of y, of what is left of it, and of both magnitudes, in active channels."""
    active = parts["y"].flatten(1).std(1) > ACTIVE
    y, left = parts["y"][active], parts["normalised"][active]
    kinds = {"y": y, "normalised y": left, "|y|": y.abs(), "|normalised y|": left.abs()}
    return {kind: correlation(values) for kind, values in kinds.items()}


def correlation(values: Tensor) -> np.ndarray:
    """(9, 9): correlation of values (C, H, W) with those up to `REACH` away, mean over channels.

    The middle is the value itself, 1.
    """
    values = values - values.flatten(1).mean(1)[:, None, None]
    around = partial(F.unfold, kernel_size=2 * REACH + 1, padding=REACH)
    here, there = values.flatten(1)[:, None], around(values[:, None])  # (C, 1, n), (C, 81, n)
    inside = around(torch.ones_like(values[:1, None]))  # 0 beyond an edge
    product = (here * there).sum(2)
    size = (here.square() * inside).sum(2) * there.square().sum(2)
    return (product / size.sqrt()).mean(0).view(2 * REACH + 1, -1).numpy()


def row(name: str, photograph: str, parts: dict[str, Any]) -> dict[str, Any]:
    """A model's line of the table: moments, and correlations with a direct neighbour."""
    cells: dict[str, Any] = {}
    for kind, values in distributions(parts).items():
        cells[f"std, {kind}"] = values.std()
        cells[f"kurtosis, {kind}"] = ((values / values.std()) ** 4).mean()
        cells[f"beyond 3, {kind}"] = (np.abs(values) > 3).mean()  # 0.0027 of a normal distribution
    cells["share with scale > 1"] = (parts["scale"] > 1).float().mean()
    for kind, values in correlations(parts).items():
        cells[f"{kind}, neighbour"] = (values[REACH, REACH - 1] + values[REACH - 1, REACH]) / 2
    numbers = {key: round(float(value), 4) for key, value in cells.items()}
    return {"model": name, "photograph": photograph} | numbers


def draw(values: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Histograms of `distributions`, by model and kind, beside the normal density."""
    edges = np.linspace(-6, 6, 97)
    centres = (edges[1:] + edges[:-1]) / 2
    with drawing(path, (11, 3.4)) as figure:
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (kind, title) in zip(panels, KINDS.items(), strict=True):
            for name, own in values.items():
                counts, _ = np.histogram(own[kind], edges)
                density = counts / (len(own[kind]) * (edges[1] - edges[0]))
                look = {"color": style_of(name)["color"], "label": name}
                axes.plot(centres, np.maximum(density, 1e-5), **look)
            normal = np.exp(-(centres**2) / 2) / np.sqrt(2 * np.pi)
            axes.plot(centres, normal, "k:", linewidth=2, label="N(0, 1)")
            axes.set(title=title, xlabel="value", yscale="log", ylim=(1e-4, 10))
        panels[0].set_ylabel("density")
        panels[2].legend(loc="upper right", fontsize=9)


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Look and draw; the lines of the table. CheckpointError where a model has no checkpoint."""
    rows, values = [], {}
    for name in HYPERPRIORS:
        codec = models.load(name, LMBDA)
        looks = {photograph: look(codec, pixels) for photograph, pixels in sample_photographs()}
        rows += [row(short(name), *one) for one in looks.items()]
        own = [distributions(parts) for parts in looks.values()]
        values[short(name)] = {kind: np.concatenate([one[kind] for one in own]) for kind in KINDS}
    draw(values, options.figures / "side_information_normal.png")
    return rows
