"""Checkpoints: weights, operating point, frozen tables and provenance, in and out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from models import registry
from models.base import Codec
from models.coding.container import Header
from models.entropy.tables import Tables
from models.errors import CheckpointError, FreezeError, UsageError
from models.files import write_bytes
from models.layers.defaults import torch_defaults
from models.presets import CHANNELS, METRICS, OperatingPoint, digits

FORMAT = "1"
TABLES = "tables."
METADATA: dict[str, type | tuple[type, ...]] = {  # what a checkpoint says about itself
    "model": str, "N": int, "M": int, "lmbda": (int, float), "metric": str, "code_rate": str,
    "digest": str, "config": dict, "provenance": dict,
}  # fmt: skip
LARGEST_LAMBDA = 1e30  # a file holds it in 32 bits
# The study's checkpoints, found from any folder: in the clone, if the variable names no other.
STUDY = Path(os.environ.get("LIC_CKPTS") or Path(__file__).parents[1] / "ckpts").resolve()
SUMS = "SHA256SUMS"  # of the study's, in the format of sha256sum
WIDEST = max(width for rates in CHANNELS.values() for widths in rates.values() for width in widths)


@torch_defaults()
def save(path: str | Path, model: Codec, *, config: dict, provenance: dict) -> None:
    """Write a model as safetensors: weights in fp16, frozen tables, metadata as JSON.

    Weights of convolutions and GDN become fp16, everything small stays fp32; tables and digest
    belong to the weights as rounded. The model itself is not changed. CheckpointError for weights
    that are not finite in fp16; OSError.
    """
    rounded = {name: _rounded(name, value) for name, value in model.state_dict().items()}
    twin = registry.build(type(model).__name__, model.N, model.M)
    twin.load_state_dict({name: value.float() for name, value in rounded.items()})
    twin.solve_quantiles()
    rounded["entropy_bottleneck.quantiles"] = twin.entropy_bottleneck.quantiles.data
    try:
        frozen = twin.freeze().frozen
    except FreezeError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be written: {error}") from error
    for latent, tables in frozen.tables.items():
        for name, value in tables.tensors().items():
            rounded[f"{TABLES}{latent}.{name}"] = value
    tensors = {name: value.contiguous() for name, value in rounded.items()}
    metadata = {
        **vars(model.point or OperatingPoint("", 0.0, "", 0, 0)),
        "format": FORMAT,
        "model": type(model).__name__,
        "N": model.N,
        "M": model.M,
        "digest": twin.digest,
        "config": config,
        "provenance": provenance,
        "checksums": {name: _checksum(value) for name, value in tensors.items()},
    }
    # Not the library's save_file: it makes a temporary file of its own, which kill -9 leaves.
    write_bytes(path, serialised(tensors, {"metadata": json.dumps(metadata, sort_keys=True)}))


def _rounded(name: str, value: Tensor) -> Tensor:
    value = value.detach().cpu()
    half = value.half() if value.ndim in (2, 4) else value.float()
    if not torch.isfinite(half).all():
        raise CheckpointError(f"The weights {name} are not finite in fp16; training diverged.")
    return half


def _checksum(value: Tensor) -> int:
    """CRC-32 of a tensor's bytes."""
    return zlib.crc32(value.contiguous().reshape(-1).view(torch.uint8).numpy())


def read_metadata(path: str | Path) -> dict:
    """The metadata of a checkpoint of ours, its epoch and file among them; else CheckpointError."""
    path = readable(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["metadata"])
        sound = {key: isinstance(metadata.get(key), kind) for key, kind in METADATA.items()}
    except Exception as error:  # whatever a foreign reader makes of a foreign file
        raise CheckpointError(
            f"{path} is not a checkpoint of this program, or is cut short."
        ) from error
    sound["metric"] = metadata.get("metric") in METRICS
    sound["lmbda"] = sound["lmbda"] and 0 <= metadata["lmbda"] < LARGEST_LAMBDA
    if wrong := [key for key, fine in sound.items() if not fine]:
        what = f"its {wrong[0]} is {metadata.get(wrong[0])!r:.50}"
        raise CheckpointError(f"{path} is not a checkpoint of this program: {what}.")
    epoch = re.match(r"epoch_(\d+)_", path.name)
    return {**metadata, "epoch": int(epoch[1]) if epoch else None, "file": str(path)}


@torch_defaults()
def load(path: str | Path, device: str | torch.device = "cpu") -> Codec:
    """The model of a checkpoint, frozen, in eval mode, with `.point` and `.metadata` set.

    CheckpointError for another file, a damaged one, and one without the model that it claims.
    """
    metadata = read_metadata(path)
    check_study(Path(path))
    tensors = checked(path, read_tensors(path))
    stored = {name: tensors.pop(name) for name in list(tensors) if name.startswith(TABLES)}
    try:
        model = with_weights(metadata["model"], metadata["N"], metadata["M"], tensors)
        model.freeze({v: Tables.from_tensors(stored, f"{TABLES}{v}.") for v in model.streams})
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} does not hold the model it claims: {reason}") from error
    if model.digest != metadata["digest"]:
        raise CheckpointError(f"{path} is damaged: its integer weights do not have its digest.")
    model.point = OperatingPoint(**{key: metadata[key] for key in OperatingPoint.__annotations__})
    model.metadata = metadata
    return model.to(device)


def with_weights(name: str, N: int, M: int, tensors: dict[str, Tensor]) -> Codec:
    """A model with these weights. RuntimeError, TypeError or ValueError if they do not fit it.

    A small file can claim any size: a model of the study, wider than it has them, is first built
    without memory. Not others: it takes torch seconds to import, and one's own may need data.
    """
    if max(N, M) > WIDEST and registry.canonical_name(name) in CHANNELS:
        with torch.device("meta"):
            registry.build(name, N, M).load_state_dict(tensors, assign=True)
    model = registry.build(name, N, M)
    model.load_state_dict(tensors)
    return model


def readable(path: str | Path) -> Path:
    """The path of a file that may be read; CheckpointError for any other."""
    path = Path(path)
    if not path.is_file() or not os.access(path, os.R_OK):
        raise CheckpointError(f"There is no checkpoint {path}, or it may not be read.")
    return path


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, as they are stored.

    CheckpointError for another file, and for tensors that do not have the checksums in the file.
    """
    path = readable(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = json.loads((file.metadata() or {}).get("metadata", "{}"))
        sums = metadata.get("checksums", {})  # older files have none
        damaged = [name for name, value in sums.items() if _checksum(tensors[name]) != value]
    except Exception as error:  # whatever a foreign reader makes of a foreign file
        raise CheckpointError(f"{path} is no file of safetensors, or is damaged.") from error
    if damaged:
        raise CheckpointError(f"{path} is damaged in {', '.join(damaged)[:100]}: copy it again.")
    return tensors


def check_study(path: Path) -> None:
    """CheckpointError if it is one of the study's files, and not as it was published."""
    path, sums = path.resolve(), STUDY / SUMS
    if not path.is_relative_to(STUDY) or not sums.is_file():
        return
    published = dict(line.split("  ")[::-1] for line in sums.read_text().splitlines())
    expected = published.get(path.relative_to(STUDY).as_posix())
    with path.open("rb") as file:
        if expected and hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise CheckpointError(
                f"{path} is not the study's, by {SUMS} beside it: restore it by `git checkout`, "
                "and keep models of your own in another folder."
            )


def checked(path: str | Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file by our names, weights in fp32 and tables in int32.

    CheckpointError for what are no tables or weights, for weights that are no finite numbers, and
    for more of them than the file has room for.
    """
    path = Path(path)
    for name, value in tensors.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise CheckpointError(f"{path} holds no table of weights.")
        if value.layout != torch.strided or value.is_nested or value.device.type != "cpu":
            raise CheckpointError(f"{path} holds {name} sparse or without data: save it plain.")
        integers = name.startswith(TABLES)
        if not (value.dtype == torch.int32 if integers else value.is_floating_point()):
            kind = "int32" if integers else "floating-point numbers"
            raise CheckpointError(f"{path} holds {name} as {value.dtype}, not as {kind}.")
    check_room(path, sum(math.prod(v.shape) * v.element_size() for v in tensors.values()))
    floats = {k: v.float() for k, v in tensors.items() if v.is_floating_point()}
    for name, value in floats.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path} holds NaN or infinity in {name}; it cannot be used.")
    return tensors | floats


def check_room(path: Path, size: int) -> None:
    """Refuse what would take more memory than the file, which repeats or compresses numbers."""
    if size > path.stat().st_size:
        raise CheckpointError(f"{path} is smaller than the {size} bytes of weights in it.")


def path_for(model_name: str, epoch: int, lmbda: float, root: str | Path) -> Path:
    """<root>/<Model>/epoch_<E>_lmbda_<lambda>.safetensors"""
    name = registry.canonical_name(model_name)
    return Path(root) / name / f"epoch_{epoch}_lmbda_{digits(lmbda)}.safetensors"


def for_file(header: Header, root: str | Path) -> Path:
    """The checkpoint whose tables a compressed file names, of any epoch; CheckpointError."""
    try:
        folder = Path(root) / registry.canonical_name(header.model)
    except UsageError as error:
        raise CheckpointError(f"{error} (--import_module adds others.)") from None
    for path in sorted(folder.glob("*.safetensors")):
        with suppress(CheckpointError):  # another file in the folder may be broken
            if read_metadata(path)["digest"] == header.digest:
                return path
    raise CheckpointError(
        f"The file needs the checkpoint of {header.model}, lambda {header.lmbda:g}, with the "
        f"tables {header.digest}, which is not in {folder}: pass it by --checkpoint FILE."
    )


def find(
    model_name: str,
    root: str | Path | None = None,
    epoch: int | None = None,
    lmbda: float | None = None,
) -> list[Path]:
    """Checkpoints of a model, lowest lambda first; of each lambda the last epoch, or `epoch`.

    root: the folder to look in; None is `STUDY`. CheckpointError that says what there is where
    there are none; UsageError for an unknown model.
    """
    folder = Path(root or STUDY) / registry.canonical_name(model_name)
    checkpoints: list[tuple[float, int, Path]] = []
    for path in folder.glob("epoch_*_lmbda_*.safetensors"):
        match = re.fullmatch(r"epoch_(\d+)_lmbda_(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", path.stem)
        if match:
            checkpoints.append((float(match[2]), int(match[1]), path))
    wanted = {
        value: path
        for value, number, path in sorted(checkpoints)
        if epoch in (None, number) and (lmbda is None or math.isclose(value, lmbda))
    }
    if wanted:
        return list(wanted.values())
    asked = "" if epoch is None else f" of epoch {epoch}"
    asked += "" if lmbda is None else f" with lambda {digits(lmbda)}"
    advice = ": the study's are in ckpts/ of a clone; name it by --ckpt_dir, `root` or LIC_CKPTS"
    if checkpoints:
        known = ", ".join(map(digits, sorted({value for value, _, _ in checkpoints})))
        advice = f" (there are lambda {known})"
    raise CheckpointError(
        f"{folder} holds no checkpoint{asked}{advice}; train one with "
        f"`python train.py --model_name {folder.name}`."
    )


def by_lambda(
    model_name: str,
    root: str | Path | None = None,
    epoch: int | None = None,
    lambdas: Sequence[float] = (),
) -> dict[float, dict]:
    """The metadata of a model's checkpoints by the lambda that they were trained for, lowest first.

    Of these `lambdas` alone, if there are any and each was trained. Errors as `find`;
    CheckpointError for a file that is none, and for one of another model.
    """
    paths = find(model_name, root, epoch)
    with suppress(CheckpointError):
        paths = [find(model_name, root, epoch, lmbda)[0] for lmbda in lambdas] or paths
    trained = {}
    for path in paths:
        metadata = read_metadata(path)
        if metadata["model"] != path.parent.name:
            raise CheckpointError(f"{path} holds a {metadata['model']}: move it away.")
        trained[metadata["lmbda"]] = metadata
    return trained
