"""What a new model takes from trained ones: `--init_ckpt`, `--init_transforms` and `--fixed`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from models import checkpoint, convert
from models.base import Codec
from models.checkpoint import TABLES
from models.errors import CheckpointError, TrainingError
from models.files import printable
from models.layers import analysis_transform
from models.presets import OperatingPoint
from training.settings import TRANSFORMS, Settings

RUN = (
    "run_id", "model", "lmbda", "N", "M", "fixed", "latent_views", "steps", "images_seen",
    "patch_size", "lr", "hours", "hardware", "data_fingerprint",
)  # fmt: skip


def new_model(
    settings: Settings,
    say: Callable[[str], None] = lambda _: None,
    state: dict | None = None,
    images: Callable[[], Tensor] | None = None,
) -> Codec:
    """The model of the settings: seeded random weights and those of its parents, or `state`.

    `say` is told what was taken; `images` and errors are those of `take_weights`.
    """
    torch.manual_seed(settings.seed)
    name, N, M = settings.model_name, settings.N, settings.M
    model = models.build(name, N, M)
    model.point = OperatingPoint(name, settings.lmbda, settings.code_rate, N, M, settings.metric)
    if state is not None:
        model.load_state_dict(state)
    else:
        for path, parts in settings.parents:
            factor = settings.rescale or latent_factor(path, settings.lmbda, settings.metric)
            say(take_weights(model, path, factor, parts, images))
    fix(model, settings.fixed)
    return model


def take_weights(
    model: Codec,
    path: str | Path,
    factor: float = 1.0,
    parts: tuple[str, ...] = ("",),
    images: Callable[[], Tensor] | None = None,
) -> str:
    """Copy every tensor of a checkpoint that fits by name and shape; says what did not.

    Transforms of a narrower model are `widened`; those with more channels of y are `narrowed`, if
    `images` are given. Latents are multiplied by `factor` (see `rescaled`), and nothing but
    `parts`, such as "g_a.", is looked at. CheckpointError if the file cannot be read, or if no part
    of the model, such as g_a, gets half of its weights: the file is then of another width or model.
    """
    whole = {k: v for k, v in convert.load_tensors(path).items() if not k.startswith(TABLES)}
    chosen = narrowed(whole, model.M, images) if images else whole
    tensors = {k: v for k, v in rescaled(chosen, factor).items() if k.startswith(parts)}
    own = {k: v for k, v in model.state_dict().items() if k.startswith(parts)}
    usable = tensors
    if has(tensors, "h_a") != has(own, "h_a"):  # the density is of y in one, of z in the other
        usable = {k: v for k, v in tensors.items() if not k.startswith("entropy_bottleneck.")}
    fitting = {k: v for k, v in usable.items() if k in own and own[k].shape == v.shape}
    wider = {k: v for k, v in widened(model, usable).items() if k not in fitting}
    taken = fitting | wider
    missing: Counter = Counter()  # of each part, weights that are not taken less those that are
    for name, value in own.items():
        missing[name.partition(".")[0]] += value.numel() * (-1 if name in taken else 1)
    if min(missing.values()) > 0:
        raise CheckpointError(
            f"{path} has {len(taken)} of {len(own)} tensors of {type(model).__name__} with "
            f"N={model.N}, M={model.M}, and half of no part of it: give another file, or its --N "
            f"and --M."
        )
    model.load_state_dict({**model.state_dict(), **taken})
    words = f"Took {len(fitting)} of {len(own)} tensors from {path}."
    if chosen is not whole:
        words += f" Took the {model.M} latent channels of most power."
    if factor != 1:
        words += f" Multiplied the latents by {factor:.4g}."
    for reason, names in (
        ("Widened", wider.keys()),
        ("Not taken from it", tensors.keys() - taken.keys()),
        ("Left as they were", own.keys() - taken.keys()),
    ):
        if names:
            words += f" {reason}: {printable(', '.join(sorted(names)))}."
    return words


def latent_factor(path: str | Path, lmbda: float, metric: str) -> float:
    """What y of a checkpoint is multiplied by to go from its lambda to `lmbda`; 1 if unknown.

    The square root of the quotient: at high rate the best step size of a quantiser has a
    square in proportion to 1 / lambda, and our step is always 1.
    """
    with suppress(CheckpointError):
        metadata = checkpoint.read_metadata(path)
        if metadata["metric"] == metric and metadata["lmbda"] > 0:
            return math.sqrt(lmbda / metadata["lmbda"])
    return 1.0


def has(tensors: dict[str, Tensor], part: str) -> bool:
    """Whether the weights, by name and of any size, have a part such as h_a."""
    return any(name.startswith(f"{part}.") for name in tensors)


def rescaled(tensors: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The weights, of any size, with y multiplied by `factor` and all that reads y divided by it.

    Without quantisation x_hat and z stay the same, and the prior's density of y widens by
    `factor`: its scales and means are multiplied, or the first matrix of a factorized prior is
    divided. So a trained model moves to another lambda. ReLU and LeakyReLU pass a positive
    factor on, which is why the last layer of the hyper synthesis can take it.
    """
    if factor == 1:
        return tensors
    head = "entropy_parameters" if has(tensors, "entropy_parameters") else "h_s"
    written = {_layer(tensors, "g_a", -1), _layer(tensors, head, -1)}
    read = {_layer(tensors, part, 0) for part in ("g_s", "h_a")} | {"context_prediction"}
    result = dict(tensors)
    for name, value in tensors.items():
        layer, _, kind = name.rpartition(".")
        if layer in written:
            result[name] = value * factor
        elif layer in read and kind == "weight":
            result[name] = value / factor
    first, quantiles = "entropy_bottleneck.matrices.0", "entropy_bottleneck.quantiles"
    if not has(tensors, "h_a") and first in tensors:
        slope = F.softplus(tensors[first].double()) / factor
        result[first] = (slope + (-(-slope).expm1()).log()).to(tensors[first].dtype)
        result[quantiles] = tensors[quantiles] * factor
    return result


def _layer(tensors: dict[str, Tensor], part: str, place: int) -> str:
    """The first (0) or last (-1) convolution of a sequence, such as "g_a.6"; "" without one."""
    words = [k.split(".") for k in tensors if k.startswith(f"{part}.") and k.endswith(".weight")]
    numbers = sorted(int(word[1]) for word in words)
    return f"{part}.{numbers[place]}" if numbers else ""


def widened(model: Codec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors like those of the model's parts that compute what `tensors` does, by name.

    `tensors` holds such parts with at most as many channels in every layer; {} if it does not.
    They are the transforms, and the whole of a scale hyperprior (not of a context model, whose
    scales and means share a layer's outputs).
    Added channels start at random and nothing reads them yet: the weights from them to the
    channels that were there are zero (gamma of GDN is so from the start), so outputs stay the
    same and the gradient of those weights does not vanish. Source: Chen et al. 2016, "Net2Net"
    (arXiv 1511.05641), section 2.4, with zeros in place of its copies.
    """
    result, own = {}, model.state_dict()
    whole = all(has(t, "h_a") and not has(t, "entropy_parameters") for t in (own, tensors))
    names = [name for name in own if whole or name.startswith(TRANSFORMS)]
    if not tensors.keys() >= set(names):
        return {}
    for name in names:
        old, new = tensors[name], own[name].clone()
        alike = old.ndim == new.ndim and old.shape[2:] == new.shape[2:]
        if not alike or any(a > b for a, b in zip(old.shape, new.shape, strict=True)):
            return {}
        layer = model.get_submodule(name.rpartition(".")[0])
        if old.ndim > 1 and isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            out_dim = int(isinstance(layer, nn.ConvTranspose2d))
            new.narrow(out_dim, 0, old.shape[out_dim]).zero_()
        new[tuple(map(slice, old.shape))] = old
        result[name] = new
    return result


@torch.no_grad()
def narrowed(tensors: dict[str, Tensor], M: int, images: Callable[[], Tensor]) -> dict[str, Tensor]:
    """The weights of transforms and of a scale hyperprior with the M channels of y alone that have
    the largest mean square on images (B, 3, H, W), in their order.

    g_a and h_s compute them as before; g_s and h_a do what they did where the others were zero.
    Nothing fits of what context models and Factorized have beside. `tensors` itself where it has no
    more than M, or another g_a than ours.
    """
    own = {k.removeprefix("g_a."): v for k, v in tensors.items() if k.startswith("g_a.")}
    N, channels = (len(own.get(f"{layer}.bias", ())) for layer in (0, 6))
    if not N or channels <= M:
        return tensors
    g_a = analysis_transform(N, channels)
    try:
        g_a.load_state_dict(own)
    except RuntimeError:
        return tensors
    power = torch.stack([g_a(x[None]).square().mean((0, 2, 3)) for x in images()]).mean(0)
    strongest = power.topk(M).indices.sort().values
    result = dict(tensors)
    for part, place, dim in (("g_a", -1, 0), ("h_s", -1, 0), ("g_s", 0, 0), ("h_a", 0, 1)):
        layer = _layer(tensors, part, place)  # the inputs of g_s, deconvolutions, come first
        for name, value in tensors.items():
            if name == f"{layer}.weight" or name == f"{layer}.bias" and place == -1:
                result[name] = value.index_select(dim, strongest)
    return result


def ancestors(*paths: str | Path, by: str | None = None) -> list[dict]:
    """The runs of `train.py` that the weights of checkpoints went through, the last one first.

    Each once, with what `RUN` names; None where the run did not tell. Nothing for a file that is
    no checkpoint of ours. The list is flat: what a second checkpoint adds begins with a run that
    has "joined_by", the run `by` which takes from both.
    """
    runs: list[dict] = []
    for path in paths:
        with suppress(CheckpointError):
            metadata = checkpoint.read_metadata(path)
            facts = {**metadata["config"], **metadata["provenance"], **metadata}
            known = {run["run_id"] for run in runs}
            lineage = [{name: facts.get(name) for name in RUN}, *facts.get("ancestors", [])]
            new = [run for run in lineage if run["run_id"] not in known]
            if runs and new and by:
                new[0] = {**new[0], "joined_by": by}
            runs += new
    return runs


def fix(model: Codec, names: list[str]) -> None:
    """Exclude the parts `names`, such as "g_a", from training. TrainingError for others."""
    parts = dict(model.named_children())
    for name in names:
        if name not in parts:
            raise TrainingError(f"--fixed {name}: {type(model).__name__} has {', '.join(parts)}.")
        parts[name].requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise TrainingError("--fixed names every part of the model: nothing is left to train.")
