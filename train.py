"""Train a codec: `python train.py --model_name Hyperprior --lmbda 0.013 --dataset FOLDER`.

Without --dataset it runs a demonstration on a few sample photographs. See docs/gpu.md for GPUs,
docs/datasets.md for data, train_study.sh for the training of the study, training/settings.py for
every flag with its bounds.
"""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback

import os
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from dataclasses import fields
from typing import Any

from models.cli import guarded
from training import train
from training.settings import Settings, resolve
from training.team import devices, join, launch

GO_ON = "--resume goes on from the last saved state"  # what an interruption leaves

FIRST = {  # flag of each group
    "model_name": "what to train",
    "dataset": "data",
    "epoch": "optimisation (defaults are the report's)",
    "gpu_id": "machine",
    "exp_version": "run",
}


def parser() -> ArgumentParser:
    """The flags of train.py, one for each field of `Settings`."""
    flags = ArgumentParser(
        prog="train.py",
        description="Train a learned image codec. Without --dataset: a short demonstration.",
        usage="train.py [--FLAG VALUE ...]",  # fifty are no help beside a mistake in one
        formatter_class=ArgumentDefaultsHelpFormatter,
    )
    group: Any = flags
    for f in fields(Settings):
        if f.name in FIRST:
            group = flags.add_argument_group(FIRST[f.name])
        if "flag" in f.metadata:
            group.add_argument(f"--{f.name}", **f.metadata["flag"])
    return flags


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 0, 1 after a failure, 2 for usage, 130 for Ctrl-C."""
    flags = parser().parse_args(arguments)

    def run() -> int:
        settings = resolve(flags)
        processes = len(devices(settings.gpu_id))
        if processes > 1 and "WORLD_SIZE" not in os.environ:
            words = sys.argv[1:] if arguments is None else arguments
            return launch([__file__, *words], processes)
        return join(
            lambda team: guarded("train.py", lambda: train(settings, team), GO_ON), settings.gpu_id
        )

    return guarded("train.py", run, GO_ON)


if __name__ == "__main__":
    sys.exit(main())
