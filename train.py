"""Train a codec: `python train.py --model_name Hyperprior --lmbda 0.013 --dataset FOLDER`.

Without --dataset it runs a demonstration on a few sample photographs. See docs/gpu.md for GPUs,
docs/datasets.md for data, train_study.sh for the training of the study.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from functools import partial

from models.cli import guarded
from models.presets import METRICS
from training.optimizers import OPTIMIZERS
from training.schedules import SCHEDULERS
from training.session import train
from training.settings import Settings, resolve
from training.team import Team, launch

GO_ON = "--resume goes on from the last saved state"  # what an interruption leaves


def parser() -> argparse.ArgumentParser:
    """All the knobs. A default of None is filled in by training/settings.py."""
    made = argparse.ArgumentParser(
        prog="train.py",
        description="Train a learned image codec. Without --dataset: a short demonstration.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    group = made.add_argument_group("what to train")
    add = group.add_argument
    add("--model_name", default="Factorized", help="one of the models, or an alias of it")
    add("--code_rate", choices=("low", "high"), help="its first lambda, N and M")
    add("--lmbda", type=float, help="trade-off lambda; the study's: 0.0067 0.013 0.025 0.0483")
    add("--quality", type=int, help="1..8: lambda, N and M of CompressAI's zoo")
    add("--metric", choices=METRICS, default="mse", help="distortion of the loss")
    add("--N", type=int, help="channels of the inner layers, in place of the operating point's")
    add("--M", type=int, help="channels of the latent, in place of the operating point's")
    add("--init_ckpt", metavar="FILE", help="start from every tensor of FILE that fits")
    add("--init_transforms", metavar="FILE", help="g_a and g_s of FILE, in place of that one's")
    add("--rescale", type=float, help="factor on their latents (root of the lambdas' ratio)")
    add("--fixed", nargs="+", default=[], metavar="PART",
        help="parts not to train; g_a and g_s both: train on kept latents")  # fmt: skip
    add("--latent_views", type=int, default=1, metavar="K",
        help="of each image, mirrored and shifted, whose latents are kept")  # fmt: skip
    add("--import_module", metavar="MODULE", help="import first: one that registers your own model")

    group = made.add_argument_group("data")
    add = group.add_argument
    add("--dataset", metavar="PATH", help="folder of images, ImageFolder or Vimeo-90k; none: demo")
    add("--test_dataset", metavar="PATH", help="images for validation; none: some are held out")
    add("--batch_size", type=int, help="crops a step, in each process (64; demonstration 8)")
    add("--test_batch_size", type=int, default=16, help="images at a time in validation")
    add("--patch_size", type=int, help="side of the square crops (256; demonstration 128)")
    add("--num_workers", type=int, default=2, help="threads that prepare crops; 0: none")

    group = made.add_argument_group("optimisation (defaults are the report's)")
    add = group.add_argument
    add("--epoch", type=int, help="epochs (200, context models 250; demonstration 5)")
    add("--steps_per_epoch", type=int, help="steps of an epoch (0: one pass over the images)")
    add("--optimizer", choices=OPTIMIZERS, help="(adam; demonstration muon)")
    add("--lr", type=float, help="peak learning rate (adam 1e-4, muon 1e-3, soap 2e-3)")
    add("--rest_lr", type=float, help="Adam's rate on what Muon and SOAP leave (2 lr, lr)")
    add("--scheduler", choices=SCHEDULERS, help="(Hyperprior multistep, others plateau)")
    add("--milestones", type=int, nargs="+", default=[40, 90, 140], help="epochs of multistep")
    add("--warmup", type=int, help="steps of linear warm-up (0)")
    add("--clip", type=float, default=1.0, help="largest norm of the gradient; 0: no limit")
    add("--ema", type=float, help="decay of the averaged weights, which are saved (0: off)")
    add("--ste_fraction", type=float, default=0.0, help="last part of the steps: real rounding")
    add("--quantization", choices=("noise", "round", "ste"), default="noise",
        help="of the steps before those")  # fmt: skip
    add("--max_skips", type=int, default=10, help="stop after so many non-finite steps in a row")
    add("--seed", type=int, default=0, help="of weights, crops and noise")

    group = made.add_argument_group("machine")
    add = group.add_argument
    add("--gpu_id", default="", help="'0', '0 1 2' (one process each), 'cpu'; '': GPU 0 if any")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="of the transforms")
    add("--compile", action="store_true", help="use torch.compile")
    add("--threads", type=int, help="CPU threads of a process")

    group = made.add_argument_group("run")
    add = group.add_argument
    add("--exp_version", metavar="NAME", help="folder of the run in runs/<Model>/; none: a number")
    add("--resume", action="store_true", help="go on from the run's state, if it has one")
    add("--val_time", type=int, default=1, help="epochs from one validation to the next")
    add("--check_time", type=int, default=10, help="epochs from one checkpoint to the next")
    add("--save_minutes", type=float, default=5, help="at most so much work is lost by kill -9")
    add("--time_limit", type=float, metavar="SECONDS", help="save the state and stop after so long")
    add("--log_every", type=int, default=50, help="steps from one row of the curve to the next")
    add("--no_tensorboard", dest="tensorboard", action="store_false", help="no TensorBoard files")
    add("--record", action="store_true", help="copy the curve to statistics/training/ at the end")
    add("--overwrite", action="store_true", help="replace a checkpoint of another run")
    add("--runs", default="runs", metavar="DIR", help="folder of all runs")
    add("--ckpts", metavar="DIR", help="folder of the checkpoints; none: ckpts/ in the run's")
    return made


def work(settings: Settings, team: Team) -> int:
    """Train in this process, one of those that train together."""
    return guarded("train.py", lambda: train(settings, team), GO_ON)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 0, 1 after a failure, 2 for usage, 130 for Ctrl-C."""
    flags = parser().parse_args(arguments)

    def run() -> int:
        if flags.import_module:
            importlib.import_module(flags.import_module)
        settings = resolve(flags)
        return launch(partial(work, settings), settings.gpu_id)

    return guarded("train.py", run, GO_ON)


if __name__ == "__main__":
    sys.exit(main())
