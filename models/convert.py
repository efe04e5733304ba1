"""Checkpoints to CompressAI's files, and CompressAI's weights to codecs of ours.

    python -m models.convert export ckpts/Hyperprior/epoch_199_lmbda_0.013.safetensors out.pth

writes a state dictionary that CompressAI's `eval_model` runs. test.py takes weights of CompressAI
by --checkpoint FILE --quality Q; from Python they are a codec by `load_compressai`.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from models import checkpoint
from models.base import Codec
from models.cli import guarded
from models.entropy.density import LIKELIHOOD_BOUND, TAIL_MASS, NonParametricDensity
from models.entropy.gaussian import SCALE_BOUND
from models.errors import CheckpointError, UsageError
from models.files import atomic_write, check_target
from models.layers import GDN, MaskedConv2d
from models.layers.defaults import torch_defaults
from models.layers.gdn import BETA_MIN, PEDESTAL
from models.presets import TWINS, ZOO_LAMBDAS, zoo_point

# CompressAI's names that ours do without: buffers that are derived from the weights.
_DERIVED = re.compile(
    r"(_offset|_quantized_cdf|_cdf_length|scale_table|scale_bound|\.target|\.mask"
    r"|\.pedestal|\.bound|likelihood_lower_bound.*|lower_bound_scale.*)$"
)
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")
_LISTS = re.compile(r"^(entropy_bottleneck\.)_?(matri(?:x|ces)|bias(?:es)?|factors?)\.?(\d)$")
_LIST_NAMES = {"m": "matrices", "b": "biases", "f": "factors"}


def rename_keys(tensors: dict) -> dict[str, Tensor]:
    """Names of any of CompressAI's layouts to ours; tensors keep their shapes and kinds.

    Layouts: a training bundle {"state_dict": ...} or the bare dictionary; "module." of
    DataParallel, "_orig_mod." of torch.compile; densities as `_matrix0`, `_matrices.0` or
    `matrices.0`.
    """
    for bundle in ("state_dict", "model_state_dict"):
        tensors = tensors.get(bundle, tensors)
    renamed = {}
    for name, value in tensors.items():
        name = _WRAPPERS.sub("", name)
        if _DERIVED.search(name):
            continue
        match = _LISTS.match(name)
        if match:
            name = f"{match[1]}{_LIST_NAMES[match[2][0]]}.{match[3]}"
        renamed[name] = value
    return renamed


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors of our checkpoints and CompressAI's (.pth, .pth.tar, .safetensors), named as ours.

    Weights in fp32, tables in int32. CheckpointError as `checkpoint.checked`, and for any other
    file. Pickles run no code: `weights_only=True`.
    """
    path = checkpoint.readable(path)
    if path.suffix == ".safetensors":
        return checkpoint.checked(path, rename_keys(checkpoint.read_tensors(path)))
    try:
        if zipfile.is_zipfile(path):  # unpacked by torch
            with zipfile.ZipFile(path) as archive:
                checkpoint.check_room(path, sum(entry.file_size for entry in archive.infolist()))
        tensors = rename_keys(torch.load(path, map_location="cpu", weights_only=True))
    except CheckpointError:
        raise
    except Exception as error:  # whatever a foreign reader makes of a foreign file
        raise CheckpointError(
            f"{path} is no file of weights by torch.save, or is cut short."
        ) from error
    return checkpoint.checked(path, tensors)


@torch_defaults()
def load_compressai(path: str | Path, model_name: str, quality: int, metric: str) -> Codec:
    """Weights of CompressAI's twin of a model, with its point and solved quantiles, not frozen.

    `quality` 1 to 8 and `metric` say the lambda; N and M follow from the weights. CheckpointError
    for a file that does not fit the model, ValueError for a point that the zoo does not have.
    """
    point = zoo_point(model_name, quality, metric)
    tensors = load_tensors(path)
    try:
        N, M = tensors["g_a.0.weight"].shape[0], tensors["g_a.6.weight"].shape[0]
        model = checkpoint.with_weights(model_name, N, M, tensors)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} does not fit {model_name}: {reason}") from error
    model.point = point
    model.solve_quantiles()
    return model


def to_compressai(model: Codec) -> dict[str, Tensor]:
    """Our weights as a complete state dictionary, of the same shapes, of CompressAI's twin model.

    The tables are left empty: call its `update(force=True)` after `load_state_dict`.
    """
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, GDN):
            for parameter, minimum in (("beta", BETA_MIN), ("gamma", 0.0)):
                bound = (minimum + PEDESTAL) ** 0.5
                state[f"{name}.{parameter}_reparam.pedestal"] = torch.tensor([PEDESTAL])
                state[f"{name}.{parameter}_reparam.lower_bound.bound"] = torch.tensor([bound])
        elif isinstance(module, NonParametricDensity):
            target = math.log(2 / TAIL_MASS - 1)
            state[f"{name}.target"] = torch.tensor([-target, 0.0, target])
            state.update(_entropy_model(name))
        elif isinstance(module, MaskedConv2d):
            state[f"{name}.mask"] = module.mask.expand_as(module.weight).clone()
    if "z" in model.streams:
        name = "gaussian_conditional"
        state.update(_entropy_model(name))
        state[f"{name}.scale_table"] = torch.tensor([])
        state[f"{name}.scale_bound"] = torch.tensor([SCALE_BOUND])
        state[f"{name}.lower_bound_scale.bound"] = torch.tensor([SCALE_BOUND])
    return {name: value.contiguous() for name, value in state.items()}


def _entropy_model(name: str) -> dict[str, Tensor]:
    empty = {f"{name}.{k}": torch.IntTensor() for k in ("_offset", "_quantized_cdf", "_cdf_length")}
    return {**empty, f"{name}.likelihood_lower_bound.bound": torch.tensor([LIKELIHOOD_BOUND])}


def export_checkpoint(source: Path, target: Path, overwrite: bool) -> int:
    """Write a checkpoint of ours as CompressAI's state dictionary, print how to run it there; 0.

    CheckpointError for a file that is none; UsageError for a model without a twin, and for a
    target that exists unless `overwrite`.
    """
    check_target(target, source, overwrite)
    model = checkpoint.load(source)
    name = type(model).__name__
    if name not in TWINS:
        raise UsageError(f"CompressAI has no architecture for {name}, only for {', '.join(TWINS)}.")
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        torch.save(to_compressai(model), file)
    arch, metadata = TWINS[name].architecture, model.metadata
    lambdas, metric = ZOO_LAMBDAS[metadata["metric"]], metadata["metric"]
    nearest = min(range(len(lambdas)), key=lambda k: abs(lambdas[k] - metadata["lmbda"]))
    bench = f"--model_name compressai:{arch} --metric {metric} --quality {nearest + 1}"
    print(f"""Wrote {target}. To run it in CompressAI on a folder of images:
  python -m compressai.utils.eval_model checkpoint FOLDER -a {arch} -p {target}
or, on this project's bench, with real files:
  python test.py {bench} --checkpoint {target}""")
    return 0


def main(words: list[str] | None = None) -> int:
    """Command line; returns the exit code: 0, 1 after a failure in one line, 2 for usage."""
    parser = argparse.ArgumentParser(
        prog="python -m models.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("command", choices=["export"])
    add("source", type=Path, metavar="CHECKPOINT", help="one of ours")
    add("target", type=Path, metavar="OUT", help="by custom *.pth or *.pth.tar")
    add("--overwrite", action="store_true", help="write over a file")
    flags = parser.parse_args(words)
    files = flags.source, flags.target
    return guarded("convert", lambda: export_checkpoint(*files, flags.overwrite))


if __name__ == "__main__":
    sys.exit(main())
