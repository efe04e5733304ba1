"""Checkpoints to and from CompressAI's files.

    python -m models.convert export ckpts/Hyperprior/epoch_199_lmbda_0.013.safetensors out.pth
    python -m models.convert import bmshj2018-hyperprior-4-de1b779c.pth.tar out.safetensors \\
        --model_name Hyperprior --quality 4

`export` writes a state dictionary that CompressAI's `eval_model` runs; `import` freezes
weights of CompressAI into a checkpoint of ours, which test.py and codec.py take by --checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from models import checkpoint
from models.drivers import guarded
from models.errors import UsageError
from models.files import atomic_write
from models.interchange import to_compressai
from models.presets import METRICS, TWINS, zoo_point
from models.registry import canonical_name


def export_checkpoint(source: Path, target: Path) -> str:
    """A checkpoint of ours to CompressAI's state dictionary; returns its architecture's name.

    The weights are those of the checkpoint, rounded to fp16, in fp32. CheckpointError for a
    file that is none; UsageError for a model that CompressAI has no twin of.
    """
    model = checkpoint.load(source)
    name = type(model).__name__
    if name not in TWINS:
        raise UsageError(
            f"CompressAI has no architecture for {name}; it has one for {', '.join(TWINS)}."
        )
    state = {key: value.contiguous() for key, value in to_compressai(model).items()}
    with atomic_write(target) as temporary:
        torch.save(state, temporary)
    return TWINS[name].architecture


def import_weights(source: Path, target: Path, model_name: str, quality: int, metric: str) -> str:
    """CompressAI's file (.pth, .pth.tar, .safetensors) to a checkpoint of ours; its digest.

    `quality` 1 to 8 and `metric` say the lambda; N and M follow from the weights, which are
    rounded to fp16. CheckpointError for a file that does not fit the model.
    """
    if target.suffix != ".safetensors":
        raise UsageError(f"{target} is to be a checkpoint: end its name in .safetensors.")
    try:
        name = canonical_name(model_name)
        zoo_point(name, quality, metric)
    except ValueError as error:
        raise UsageError(str(error)) from None
    model = checkpoint.load_compressai(source, name, quality, metric)
    checkpoint.save(target, model, config={}, provenance={"imported_from": source.name})
    return checkpoint.read_metadata(target)["digest"]


def parser() -> argparse.ArgumentParser:
    """The flags of both commands."""
    made = argparse.ArgumentParser(
        prog="python -m models.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("export", help="our checkpoint to CompressAI's state dictionary")
    command.add_argument("source", type=Path, metavar="CHECKPOINT")
    command.add_argument("target", type=Path, metavar="OUT", help="by custom *.pth or *.pth.tar")
    command = commands.add_parser("import", help="CompressAI's weights to our checkpoint")
    command.add_argument("source", type=Path, metavar="FILE", help=".pth, .pth.tar, .safetensors")
    command.add_argument("target", type=Path, metavar="OUT", help="*.safetensors")
    add = command.add_argument
    add("--model_name", required=True, help="our model of the same architecture")
    add("--quality", type=int, required=True, metavar="Q", help="CompressAI's, 1 to 8")
    add("--metric", choices=METRICS, default="mse", help="what it was trained for")
    return made


def run(flags: argparse.Namespace) -> int:
    """Do what the flags say; raises what `guarded` turns into a line."""
    if flags.target.exists() and flags.source.exists() and flags.target.samefile(flags.source):
        raise UsageError("The two files are the same.")
    if flags.command == "export":
        arch = export_checkpoint(flags.source, flags.target)
        print(f"Wrote {flags.target}. To run it in CompressAI on a folder of images:\n"
              f"  python -m compressai.utils.eval_model checkpoint FOLDER -a {arch} "
              f"-p {flags.target}")  # fmt: skip
        return 0
    words = (flags.model_name, flags.quality, flags.metric)
    digest = import_weights(flags.source, flags.target, *words)
    print(f"Wrote {flags.target}, tables {digest}; test.py and codec.py take it by --checkpoint.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 0, 1 after a failure in one line, 2 for usage."""
    flags = parser().parse_args(arguments)
    return guarded("convert", lambda: run(flags))


if __name__ == "__main__":
    sys.exit(main())
