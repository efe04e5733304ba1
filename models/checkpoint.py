"""Checkpoints: weights, operating point, frozen tables and provenance, in and out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from models import registry
from models.base import Codec
from models.coding.container import Header
from models.entropy.tables import Tables
from models.errors import CheckpointError, FreezeError
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

    Weights of convolutions and GDN become fp16; everything small stays fp32. The tables and
    the digest belong to the weights as rounded, so what is read back codes as what was
    written. The model itself keeps its weights. Errors: CheckpointError for weights that are not
    finite in fp16, OSError of the file system.
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
        "format": FORMAT,
        "model": type(model).__name__,
        "N": model.N,
        "M": model.M,
        "lmbda": model.point.lmbda if model.point else 0.0,
        "metric": model.point.metric if model.point else "mse",
        "code_rate": model.point.code_rate if model.point else "",
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
        fault = _fault(metadata)
    except Exception as error:  # whatever a foreign reader makes of a foreign file
        raise CheckpointError(
            f"{path} is not a checkpoint of this program, or is cut short."
        ) from error
    if fault:
        raise CheckpointError(f"{path} is not a checkpoint of this program: {fault}.")
    epoch = re.match(r"epoch_(\d+)_", path.name)
    return {**metadata, "epoch": int(epoch[1]) if epoch else None, "file": str(path)}


def _fault(metadata: dict) -> str:
    """What the programs could not work with. KeyError for what is missing."""
    for name, kind in METADATA.items():
        if not isinstance(metadata[name], kind):
            return f"its {name} is {str(metadata[name])[:50]!r}"
    if not 0 <= metadata["lmbda"] < LARGEST_LAMBDA or metadata["metric"] not in METRICS:
        return "its operating point is none that a file can name"
    return ""


@torch_defaults()
def load(path: str | Path, device: str | torch.device = "cpu") -> Codec:
    """The model of a checkpoint, frozen, in eval mode, with `.point` and `.metadata` set.

    CheckpointError when the file is not a checkpoint, is damaged, or does not hold the
    model it claims.
    """
    metadata = read_metadata(path)
    check_study(Path(path))
    tensors = checked(path, read_tensors(path))
    stored = {name: tensors.pop(name) for name in list(tensors) if name.startswith(TABLES)}
    try:
        model = with_weights(metadata["model"], metadata["N"], metadata["M"], tensors)
        point = (metadata["lmbda"], metadata["code_rate"], model.N, model.M, metadata["metric"])
        tables = {
            latent: Tables.from_tensors(
                {name: stored[f"{TABLES}{latent}.{name}"] for name in Tables.__annotations__}
            )
            for latent in model.streams
        }
        model.freeze(tables)
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} does not hold the model it claims: {reason}") from error
    if model.digest != metadata.get("digest"):
        raise CheckpointError(f"{path} is damaged: its integer weights do not have its digest.")
    model.point = OperatingPoint(type(model).__name__, *point)
    model.metadata = metadata
    return model.to(device)


def with_weights(name: str, N: int, M: int, tensors: dict[str, Tensor]) -> Codec:
    """A model with these weights. RuntimeError, TypeError or ValueError if they do not fit it.

    A small file can claim a model as large as it likes. One wider than any of the study is first
    built without memory; not each, since torch takes seconds to learn to compute without data.
    """
    if max(N, M) > WIDEST:
        try:
            with torch.device("meta"):
                registry.build(name, N, M).load_state_dict(tensors, assign=True)
        except Exception:
            if name in CHANNELS:
                raise
            # One's own model may compute while it is built, which takes real tensors.
    model = registry.build(name, N, M)
    model.load_state_dict(tensors)
    return model


def readable(path: str | Path) -> Path:
    """The path of a file that may be read; CheckpointError for any other."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.")
    if not os.access(path, os.R_OK):
        raise CheckpointError(f"{path} may not be read; check its permissions.")
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
    path = path.resolve()
    if not path.is_relative_to(STUDY) or not (STUDY / SUMS).is_file():
        return
    published = re.search(
        rf"^(\w+)  {re.escape(path.relative_to(STUDY).as_posix())}$",
        (STUDY / SUMS).read_text(),
        re.M,
    )
    with path.open("rb") as file:
        if published and hashlib.file_digest(file, "sha256").hexdigest() != published[1]:
            raise CheckpointError(
                f"{path} is not the study's, by {SUMS} beside it: restore it by `git checkout` or "
                "download it again, and keep models of your own in another folder."
            )


def checked(path: str | Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file by our names, weights in fp32 and tables in int32.

    CheckpointError for what are no tables or weights, for weights that are no finite numbers, and
    for more of them than the file has room for.
    """
    path = Path(path)
    for name, value in tensors.items():
        _check_kind(path, name, value)
    check_room(path, sum(math.prod(v.shape) * v.element_size() for v in tensors.values()))
    for name, value in tensors.items():
        if value.is_floating_point():
            tensors[name] = value.float()
            if not torch.isfinite(tensors[name]).all():
                raise CheckpointError(f"{path} holds NaN or infinity in {name}; it cannot be used.")
    return tensors


def _check_kind(path: Path, name: str, value: Tensor) -> None:
    if not (isinstance(name, str) and isinstance(value, Tensor)):
        raise CheckpointError(f"{path} holds no table of weights.")
    if value.layout != torch.strided or value.is_nested or value.device.type != "cpu":
        raise CheckpointError(f"{path} holds {name} sparse or without data: save plain tensors.")
    integers = name.startswith(TABLES)
    if not (value.dtype == torch.int32 if integers else value.is_floating_point()):
        wanted = "int32" if integers else "floating-point numbers"
        raise CheckpointError(f"{path} holds {name} as {value.dtype}, not as {wanted}.")


def check_room(path: Path, size: int) -> None:
    """Refuse what would take more memory than the file, which repeats or compresses numbers."""
    if size > path.stat().st_size:
        raise CheckpointError(
            f"{path} stands for {size} bytes of weights and has {path.stat().st_size}: save it "
            "again, each tensor with numbers of its own."
        )


def path_for(model_name: str, epoch: int, lmbda: float, root: str | Path) -> Path:
    """<root>/<Model>/epoch_<E>_lmbda_<lambda>.safetensors"""
    name = registry.canonical_name(model_name)
    return Path(root) / name / f"epoch_{epoch}_lmbda_{digits(lmbda)}.safetensors"


def for_file(header: Header, root: str | Path) -> Path:
    """The checkpoint whose tables a compressed file names, of any epoch; CheckpointError."""
    try:
        folder = Path(root) / registry.canonical_name(header.model)
    except ValueError as error:
        raise CheckpointError(f"{error} (--import_module brings in one's own.)") from None
    for path in sorted(folder.glob("*.safetensors")):
        try:
            if read_metadata(path).get("digest") == header.digest:
                return path
        except CheckpointError:
            continue  # another file in the folder is broken; this one may still be there
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

    root: the folder to look in; None is `STUDY`. One that a demonstration left (a run without
    a data set) counts only where there is no other, or where its epoch or lambda is asked for.
    CheckpointError that names the folder, what is there and what to do when there are none;
    ValueError for an unknown model.
    """
    folder = Path(root or STUDY) / registry.canonical_name(model_name)
    there: list[tuple[float, int, Path]] = []
    for path in folder.glob("epoch_*_lmbda_*.safetensors"):
        match = re.fullmatch(r"epoch_(\d+)_lmbda_(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", path.stem)
        if match:
            there.append((float(match[2]), int(match[1]), path))
    found = [
        (value, number, path)
        for value, number, path in there
        if epoch in (None, number) and (lmbda is None or math.isclose(value, lmbda))
    ]
    if not found:
        wanted = "" if epoch is None else f" of epoch {epoch}"
        wanted += "" if lmbda is None else f" with lambda {digits(lmbda)}"
        known = ", ".join(map(digits, sorted({value for value, _, _ in there})))
        where = f" (there are lambda {known})"
        if not known:
            where = (
                ": the study's are in ckpts/ of a clone of the project; name that folder by "
                "--ckpt_dir, by `root` or in the environment as LIC_CKPTS"
            )
        raise CheckpointError(
            f"{folder} holds no checkpoint{wanted}{where}; train one with "
            f"`python train.py --model_name {folder.name}`."
        )
    trained = [entry for entry in found if not _is_demonstration(entry[2])]
    last = {value: path for value, _, path in sorted(trained or found)}
    return list(last.values())


def lambdas(paths: Sequence[Path]) -> list[float]:
    """Those that checkpoints were trained for, in their order. CheckpointError."""
    return [read_metadata(path)["lmbda"] for path in paths]


def _is_demonstration(path: Path) -> bool:
    """Whether a run without a data set left the file; what cannot be read is told when loaded."""
    try:
        return bool(read_metadata(path)["provenance"].get("demonstration"))
    except CheckpointError:
        return False
