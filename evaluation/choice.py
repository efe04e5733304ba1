"""Which operating points are tested: checkpoints, imported weights, CompressAI's models."""

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import models
from evaluation.points import Point, imported_point, trained_point
from models import checkpoint, convert
from models.errors import CheckpointError, UsageError
from models.layers.bf16 import check_precision
from models.presets import short, zoo_point
from models.rates import at_lambda

PREFIX = "compressai:"
OPTIONS = ("device", "max_pixels", "effort", "precision")  # flags that `ModelCodec` takes


@dataclass(frozen=True)
class Choice:
    """The name under which results are filed, and the operating points, lowest lambda first.

    `study`: the weights are the study's or CompressAI's, not somebody's own or a demonstration's.
    """

    name: str
    points: Sequence[Point]
    study: bool


def choose(flags: Namespace) -> list[Choice]:
    """What test.py's flags ask for, whose device is no longer "auto": one model, or with the name
    "all" every one that has checkpoints. UsageError or CheckpointError for what there is not."""
    for module in flags.import_module:
        importlib.import_module(module)
    if flags.model_name == "all":
        return list(of_every_model(partial(_choose_one, flags)).values())
    return [_choose_one(flags, flags.model_name)]


def _choose_one(flags: Namespace, model: str) -> Choice:
    zoo_model = model.lower().startswith(PREFIX)
    _check(flags, zoo_model)
    suffix = "" if flags.metric == "mse" else f"-{flags.metric}"
    if zoo_model:
        from evaluation import zoo  # CompressAI is a reference: most runs do without it

        arch = model[len(PREFIX) :].lower()
        args = (arch, flags.quality, flags.metric, flags.checkpoint, flags.device)
        return Choice(f"compressai-{arch}{suffix}", zoo.points(*args), flags.checkpoint is None)
    try:
        name = models.canonical_name(model)
        lambdas = [zoo_point(name, q, flags.metric).lmbda for q in flags.quality] or flags.lmbda
    except ValueError as error:
        raise UsageError(str(error)) from None
    options = {option: getattr(flags, option) for option in OPTIONS}
    if flags.checkpoint is not None:
        points, study = [_from_file(flags, name, options)], False
    else:
        points, study = _trained(flags, name, lambdas, options)
    if flags.effort:  # never mixed with the main tables, as bf16
        suffix += f"-searched{flags.effort}"
    if flags.precision != "fp32":
        suffix += f"-{flags.precision}"
    return Choice(f"{name}{suffix}", points, study and not suffix)


def of_every_model(choose_one: Callable[[str], Any]) -> dict[str, Any]:
    """What a function chooses for each model that has checkpoints. CheckpointError if none has."""
    chosen = {}
    for name in models.MODELS:
        try:
            chosen[name] = choose_one(name)
        except CheckpointError as error:
            print(f"{short(name)} is left out: {error}")
    if not chosen:
        raise CheckpointError(
            "There is no checkpoint of any model; train one, for example with "
            "`python train.py --model_name Hyperprior --code_rate low`."
        )
    return chosen


def _check(flags: Namespace, zoo_model: bool) -> None:
    """UsageError for flags that exclude each other, instead of ignoring one of them."""
    check_precision(flags.precision, torch.device(flags.device))
    one_of_ours = flags.lmbda or flags.epoch_num is not None
    for excluded, message in (
        (zoo_model and (flags.effort or flags.precision != "fp32"),
         "CompressAI's models are measured as they are: drop --effort and --precision."),
        (flags.effort and flags.metric != "mse",
         "A search is for the mean square error: drop --effort or --metric."),
        (flags.lmbda and flags.quality,
         "--quality already means a lambda: drop one of the two flags."),
        (zoo_model and one_of_ours,
         "CompressAI's models go by --quality, not by --lmbda or --epoch_num."),
        (flags.checkpoint and (one_of_ours or len(flags.quality) > 1),
         "--checkpoint is one operating point: drop --lmbda and --epoch_num, name one --quality."),
    ):  # fmt: skip
        if excluded:
            raise UsageError(message)


def _trained(
    flags: Namespace, name: str, lambdas: Sequence[float], options: dict[str, Any]
) -> tuple[list[Point], bool]:
    """Those in the folder of checkpoints, and whether they are the study's.

    A lambda that none was trained for is had from another checkpoint by a gain.
    """
    there = checkpoint.by_lambda(name, flags.ckpt_dir, flags.epoch_num, lambdas)
    trained = {lmbda: own for lmbda, own in there.items() if own["metric"] == flags.metric}
    if not trained:
        other = next(iter(there.values()))["metric"]
        raise UsageError(f"The checkpoints of {name} are for {other}: pass --metric {other}.")
    study = not flags.import_module and flags.ckpt_dir.resolve() == checkpoint.STUDY.resolve()
    points = []
    for lmbda in sorted(set(lambdas or trained)):
        own = trained[at_lambda(list(trained), lmbda)[0]]
        points.append(trained_point(Path(own["file"]), name, lmbda, flags.import_module, **options))
        study &= lmbda in trained and not own["provenance"].get("demonstration")
    return points, study


def _from_file(flags: Namespace, name: str, options: dict[str, Any]) -> Point:
    path = flags.checkpoint
    if flags.quality:
        convert.load_tensors(path)  # says now what is wrong with it
        return imported_point(path, name, flags.quality[0], flags.metric, **options)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} is not one of ours; for CompressAI's weights add --quality.")
    return trained_point(path, name, None, flags.import_module, **options)
