"""Which operating points are tested: checkpoints, imported weights, CompressAI's models."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import models
from evaluation.points import Point, imported_point, trained_point
from models import checkpoint, convert
from models.errors import CheckpointError, UsageError
from models.layers.bf16 import check_precision
from models.presets import MAX_PIXELS, short, zoo_point
from models.rates import at_lambda

PREFIX = "compressai:"


@dataclass(frozen=True)
class Wanted:
    """What is asked for, by the flags of test.py of these names."""

    model_name: str
    lmbda: Sequence[float] = ()
    epoch_num: int | None = None
    quality: Sequence[int] = ()
    checkpoint: Path | None = None
    ckpt_dir: Path | None = None  # the study's
    metric: str = "mse"
    import_module: Sequence[str] = ()
    device: str = "cpu"
    max_pixels: int = MAX_PIXELS
    effort: int = 0
    precision: str = "fp32"

    def options(self) -> dict:
        """Those of `ModelCodec`."""
        names = ("device", "max_pixels", "effort", "precision")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Choice:
    """The name under which results are filed, and the operating points, lowest lambda first.

    `study`: the weights are the study's or CompressAI's, not somebody's own or a demonstration's.
    """

    name: str
    points: Sequence[Point]
    study: bool


def choose(wanted: Wanted) -> Choice:
    """The points of a model. UsageError or CheckpointError for what there is not."""
    zoo_model = wanted.model_name.lower().startswith(PREFIX)
    _check(wanted, zoo_model)
    suffix = "" if wanted.metric == "mse" else f"-{wanted.metric}"
    if zoo_model:
        from evaluation import zoo  # CompressAI is a reference: most runs do without it

        arch = wanted.model_name[len(PREFIX) :].lower()
        args = (arch, wanted.quality, wanted.metric, wanted.checkpoint, wanted.device)
        return Choice(f"compressai-{arch}{suffix}", zoo.points(*args), wanted.checkpoint is None)
    for module in wanted.import_module:
        importlib.import_module(module)
    try:
        name = models.canonical_name(wanted.model_name)
        lambdas = [zoo_point(name, q, wanted.metric).lmbda for q in wanted.quality] or wanted.lmbda
    except ValueError as error:
        raise UsageError(str(error)) from None
    if wanted.effort:  # never mixed with the main tables, as bf16
        suffix += f"-searched{wanted.effort}"
    if wanted.precision != "fp32":
        suffix += f"-{wanted.precision}"
    if wanted.checkpoint is not None:
        return Choice(f"{name}{suffix}", [_from_file(wanted, name, wanted.checkpoint)], False)
    points, study = _trained(wanted, name, lambdas)
    study = study and not wanted.effort and wanted.precision == "fp32"
    return Choice(f"{name}{suffix}", points, study)


def choose_all(ckpt_dir: Path, device: str) -> dict[str, Sequence[Point]]:
    """The points of each model that has any, by its name. CheckpointError where none has."""
    chosen: dict[str, Sequence[Point]] = {}
    for name in models.MODELS:
        try:
            chosen[name] = choose(Wanted(name, ckpt_dir=ckpt_dir, device=device)).points
        except CheckpointError as error:
            print(f"{short(name)} is left out: {error}")
    if not chosen:
        raise CheckpointError(
            f"There is no checkpoint in {ckpt_dir}; train one, for example with "
            "`python train.py --model_name Hyperprior --code_rate low`."
        )
    return chosen


def _check(wanted: Wanted, zoo_model: bool) -> None:
    """UsageError for flags that exclude each other, instead of ignoring one of them."""
    check_precision(wanted.precision, torch.device(wanted.device))
    one_of_ours = wanted.lmbda or wanted.epoch_num is not None
    for excluded, message in (
        (zoo_model and (wanted.effort or wanted.precision != "fp32"),
         "CompressAI's models are measured as they are: drop --effort and --precision."),
        (wanted.effort and wanted.metric != "mse",
         "A search is for the mean square error: drop --effort or --metric."),
        (wanted.lmbda and wanted.quality,
         "--quality already means a lambda: drop one of the two flags."),
        (zoo_model and one_of_ours,
         "CompressAI's models go by --quality, not by --lmbda or --epoch_num."),
        (wanted.checkpoint and one_of_ours,
         "--checkpoint is one operating point: drop --lmbda and --epoch_num."),
        (wanted.checkpoint and len(wanted.quality) > 1,
         "One --checkpoint belongs to one --quality."),
    ):  # fmt: skip
        if excluded:
            raise UsageError(message)


def _trained(wanted: Wanted, name: str, lambdas: Sequence[float]) -> tuple[list[Point], bool]:
    """Those in the folder of checkpoints, and whether they are the study's.

    A lambda that none was trained for is had from another checkpoint by a gain.
    """
    there = map(checkpoint.read_metadata, checkpoint.find(name, wanted.ckpt_dir, wanted.epoch_num))
    by_metric: dict[str, dict[float, dict]] = {}
    for metadata in there:
        if metadata["model"] != name:
            raise UsageError(
                f"{metadata['file']} holds a {metadata['model']}, not a {name}: move it away."
            )
        by_metric.setdefault(metadata["metric"], {})[metadata["lmbda"]] = metadata
    if wanted.metric not in by_metric:
        raise UsageError(
            f"The checkpoints of {name} were trained for {', '.join(sorted(by_metric))}: "
            f"pass --metric {min(by_metric)}."
        )
    trained = by_metric[wanted.metric]
    study = checkpoint.STUDY.resolve()
    study_only = not wanted.import_module and (wanted.ckpt_dir or study).resolve() == study
    points = []
    for lmbda in sorted(set(lambdas or trained)):
        own = trained[at_lambda(list(trained), lmbda)[0]]
        args = Path(own["file"]), lmbda, wanted.import_module
        points.append(trained_point(*args, **wanted.options()))
        study_only &= lmbda in trained and not own["provenance"].get("demonstration")
    return points, study_only


def _from_file(wanted: Wanted, name: str, path: Path) -> Point:
    if wanted.quality:
        convert.load_tensors(path)  # says now what is wrong with it
        args = (path, name, wanted.quality[0], wanted.metric)
        return imported_point(*args, **wanted.options())
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} is not one of ours; for CompressAI's weights add --quality.")
    model = checkpoint.read_metadata(path)["model"]
    if model != name:
        raise UsageError(f"{path} holds a {model}: pass --model_name with that.")
    return trained_point(path, None, wanted.import_module, **wanted.options())
