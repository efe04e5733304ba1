"""The flags of train.py, and from the flags as given to a complete description of a run."""

from __future__ import annotations

import importlib
from argparse import Namespace
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import models
from models.cli import module_name, number
from models.errors import TrainingError
from models.presets import CATALOGUE, CHANNELS, LAMBDAS, METRICS, OperatingPoint, zoo_point

TRANSFORMS = ("g_a", "g_s")  # of all codecs, equal but for N and M
# Peak learning rates: Adam's is the report's, Muon's worked best in short runs.
DEFAULT_LR = {"adam": 1e-4, "muon": 1e-3}
SCHEDULERS = ("plateau", "multistep", "cosine", "constant")

# Of the original report: the context models train for 250 epochs, and Hyperprior's learning rate
# falls at fixed epochs where the others wait for a plateau.
BY_MODEL: dict[str, dict[str, Any]] = {
    "Hyperprior": {"scheduler": "multistep"},
    **{name: {"epoch": 250} for name, entry in CATALOGUE.items() if entry.context},
}
MS_SSIM_LR = 1e-5  # from an MSE checkpoint, as CompressAI's zoo was trained
MS_SSIM_MIN_PATCH = 161  # five scales with a window of 11

# Not for other machines' eyes, or not about the training.
UNTOLD = ("runs", "ckpts", "resume", "overwrite", "record", "import_module")
PATHS = ("dataset", "test_dataset", "init_ckpt", "init_transforms")  # told by their last names

COUNT, ANY, SIDE, WIDTH = (number(int, *b) for b in ((1, 10**9), (0, 10**9), (1, 65536), (1, 4096)))
POSITIVE = number(float, 1e-12)
SWITCH: dict[str, Any] = {"default": False, "action": "store_true"}


def flag(help: str, kind=None, default=None, *, report=None, demo=None, binds=False, **more) -> Any:
    """A field of `Settings` and its flag: words, type with bounds, default.

    `report` and `demo` stand for the default with a data set, which is the original report's, and
    without. `binds`: it decides what the steps compute, so a resumed run must repeat it. `more`
    goes to `add_argument`.
    """
    if report is not None:
        help += f" ({report}; demonstration {demo})"
    options = {"help": help, "default": default, **more, **({"type": kind} if kind else {})}
    return field(metadata={"flag": options, "report": report, "demo": demo, "binds": binds})


@dataclass(frozen=True)
class Settings:
    """One run, described to the end: the flags of train.py with every default filled in.

    `steps_per_epoch` is 0 (one pass over the images) until the data is open, see `completed`.
    """

    # fmt: off
    model_name: str = flag("one of the models, or an alias of it", default="Hyperprior", binds=True)
    code_rate: str = flag("its first lambda, N and M", choices=("low", "high"))
    lmbda: float = flag(
        "trade-off; the study's: 0.0067 0.013 0.025 0.0483", number(float, 1e-9, 1e5), binds=True)
    quality: int | None = flag("1..8: lambda, N and M of CompressAI's zoo", number(int, 1, 8))
    metric: str = flag("distortion of the loss", default="mse", choices=METRICS, binds=True)
    N: int = flag("channels of the inner layers, in place of the point's", WIDTH, binds=True)
    M: int = flag("channels of the latent, in place of the point's", WIDTH, binds=True)
    init_ckpt: str | None = flag("start from what fits of FILE", metavar="FILE", binds=True)
    init_transforms: str | None = flag(
        "g_a and g_s of FILE, in place of that one's", metavar="FILE", binds=True)
    rescale: float | None = flag(
        "factor on their latents (root of lambdas' ratio)", number(float, 1e-3, 1e3), binds=True)
    fixed: list[str] = flag(
        "parts not to train; g_a and g_s both: train on kept latents",
        default=[], nargs="+", metavar="PART", binds=True)
    latent_views: int = flag(
        "of each image, mirrored and shifted, whose latents are kept", number(int, 1, 1000), 1,
        metavar="K", binds=True)
    import_module: str | None = flag("that registers your own model", module_name, metavar="MODULE")

    dataset: str | None = flag(
        "folder of images, ImageFolder or Vimeo-90k; none: demo", metavar="PATH", binds=True)
    test_dataset: str | None = flag(
        "images for validation; none: some are held out", metavar="PATH", binds=True)
    batch_size: int = flag("crops a step, in each process", SIDE, report=64, demo=8, binds=True)
    test_batch_size: int = flag("images at a time in validation", SIDE, 16)
    patch_size: int = flag("side of the square crops", SIDE, report=256, demo=128, binds=True)
    num_workers: int = flag("threads that prepare crops; 0: none", number(int, 0, 256), 2)

    epoch: int = flag("epochs, context models 250", COUNT, report=200, demo=5, binds=True)
    steps_per_epoch: int = flag(
        "steps of an epoch, 0: one pass over the images", ANY, report=0, demo=30, binds=True)
    optimizer: str = flag(
        "optimiser", choices=tuple(DEFAULT_LR), report="adam", demo="muon", binds=True)
    lr: float = flag("peak learning rate (adam 1e-4, muon 1e-3)", POSITIVE, binds=True)
    rest_lr: float | None = flag("Adam's rate on what Muon leaves (2 lr)", POSITIVE, binds=True)
    scheduler: str = flag(
        "of the learning rate, Hyperprior multistep", choices=SCHEDULERS,
        report="plateau", demo="cosine", binds=True)
    milestones: list[int] = flag("epochs of multistep", ANY, [40, 90, 140], nargs="+", binds=True)
    warmup: int = flag("steps of linear warm-up", ANY, report=0, demo=10, binds=True)
    clip: float = flag(
        "largest norm of the gradient; 0: no limit", number(float, 0), 1.0, binds=True)
    ema: float = flag(
        "decay of the averaged weights, which are saved, 0: off", number(float, 0, 0.999999),
        report=0.0, demo=0.95, binds=True)
    ste_fraction: float = flag(
        "last part of the steps: real rounding", number(float, 0, 1), 0.0, binds=True)
    quantization: str = flag(
        "of the steps before those", default="noise", choices=("noise", "round", "ste"), binds=True)
    max_skips: int = flag("stop after so many non-finite steps in a row", COUNT, 10)
    seed: int = flag("of weights, crops and noise", number(int, 0, 2**63 - 1), 0, binds=True)

    gpu_id: str = flag("'0', '0 1 2' (one process each), 'cpu'; '': GPU 0 if any", default="")
    precision: str = flag("of the transforms", default="fp32", choices=("fp32", "bf16"))
    compile: bool = flag("use torch.compile", **SWITCH)
    threads: int | None = flag("CPU threads of a process", number(int, 1, 1024))

    exp_version: str | None = flag("folder in runs/<Model>/; none: a number", metavar="NAME")
    resume: bool = flag("go on from the run's state, if it has one", **SWITCH)
    val_time: int = flag("epochs from one validation to the next", COUNT, 1, binds=True)
    check_time: int = flag("epochs from one checkpoint to the next", COUNT, 10)
    save_minutes: float = flag("at most so much work is lost by kill -9", number(float, 0), 5.0)
    time_limit: float | None = flag("save and stop after so long", POSITIVE, metavar="SECONDS")
    log_every: int = flag("steps from one row of the curve to the next", COUNT, 50)
    no_tensorboard: bool = flag("no TensorBoard files", **SWITCH)
    record: bool = flag("copy the curve to statistics/training/ at the end", **SWITCH)
    overwrite: bool = flag("replace a checkpoint of another run", **SWITCH)
    runs: str = flag("folder of all runs", default="runs", metavar="DIR")
    ckpts: str | None = flag("folder of checkpoints; none: ckpts/ in the run's", metavar="DIR")

    processes: int = field(default=1, metadata={"binds": True})  # what no flag says
    # fmt: on

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.epoch * self.steps_per_epoch

    @property
    def ste_start(self) -> int:
        """The first step with real rounding."""
        return self.total - round(self.ste_fraction * self.total)

    @property
    def keeps_latents(self) -> bool:
        """Both transforms are fixed: y of the training images is computed once."""
        return set(TRANSFORMS) <= set(self.fixed)

    @property
    def parents(self) -> list[tuple[str, tuple[str, ...]]]:
        """The checkpoints to start from, and the parts that each gives; the later one prevails."""
        pairs = (self.init_ckpt, ("",)), (self.init_transforms, TRANSFORMS)
        return [(path, parts) for path, parts in pairs if path is not None]

    def completed(self, images: int, processes: int) -> Settings:
        """With what depends on the number of training images and of processes."""
        batch = self.batch_size * processes
        steps = self.steps_per_epoch or max(1, round(images / batch))
        return replace(self, processes=processes, steps_per_epoch=steps)

    def config(self) -> dict[str, Any]:
        """What goes into checkpoints and states: no folder of the machine but its last name."""
        values = {k: v for k, v in asdict(self).items() if k not in UNTOLD}
        paths = {k: Path(values[k]).resolve().name for k in PATHS if values[k] is not None}
        return values | paths

    def differences(self, before: dict) -> list[str]:
        """Each binding flag that is not as in a saved state's `config`: "--N was 8, is now 12"."""
        now = self.config()
        return [
            f"--{f.name} was {before.get(f.name)}, is now {now[f.name]}"
            for f in fields(self)
            if f.metadata["binds"] and before.get(f.name) != now[f.name]
        ]


def resolve(flags: Namespace) -> Settings:
    """The flags with every default filled in, `--import_module` imported; TrainingError for flags
    that exclude each other."""
    if flags.import_module:
        importlib.import_module(flags.import_module)
    try:
        name = models.canonical_name(flags.model_name)
        point = _point(flags, name)
    except ValueError as error:
        raise TrainingError(str(error)) from None
    given = {**vars(flags), **asdict(point)}
    given["model_name"] = given.pop("model")
    column = "demo" if flags.dataset is None else "report"
    defaults = {f.name: f.metadata[column] for f in fields(Settings) if "flag" in f.metadata}
    if flags.dataset is not None:
        defaults |= BY_MODEL.get(name, {})
    given |= {k: default for k, default in defaults.items() if given[k] is None}
    if given["lr"] is None:
        fine_tune = flags.metric == "ms-ssim" and flags.init_ckpt
        given["lr"] = MS_SSIM_LR if fine_tune else DEFAULT_LR[given["optimizer"]]
    settings = Settings(**given)
    _check(settings)
    return settings


def _point(flags: Namespace, name: str) -> OperatingPoint:
    """CompressAI's point of --quality, or that of a lambda (default: the first of the rate)."""
    lmbda, rate, metric = flags.lmbda, flags.code_rate, flags.metric
    if flags.quality is not None:
        if lmbda is not None or rate is not None:
            raise TrainingError("--quality already means a lambda: give it alone.")
        point = zoo_point(name, flags.quality, metric)
    elif metric == "ms-ssim" and lmbda is None:
        raise TrainingError("MS-SSIM has lambdas of its own: give --quality 1..8 or --lmbda.")
    else:
        lmbda = LAMBDAS[rate or "low"][0] if lmbda is None else lmbda
        usual = "high" if metric == "mse" and lmbda > LAMBDAS["low"][-1] else "low"
        if rate not in (None, usual) and metric == "mse" and lmbda in LAMBDAS[usual]:
            raise TrainingError(
                f"lambda {lmbda:g} does not belong to code rate {rate!r}: drop one flag."
            )
        rate = rate or usual
        channels = CHANNELS.get(name, CHANNELS["Factorized"])[rate]  # your own model has none
        point = OperatingPoint(name, lmbda, rate, *channels, metric)
    return replace(point, N=flags.N or point.N, M=flags.M or point.M)


def _check(settings: Settings) -> None:
    """What bounds of a single flag cannot say."""
    version = settings.exp_version
    if version is not None and (version in ("", "..") or Path(version).name != version):
        raise TrainingError(f"--exp_version is a folder's name, not {version!r}.")
    ms_ssim, side = settings.metric == "ms-ssim", settings.patch_size
    if ms_ssim:
        importlib.import_module("pytorch_msssim")  # a missing package is told before the work
    step = models.MODELS[settings.model_name].downsampling
    for wrong, message in (
        (side % step,
         f"--patch_size must be a multiple of {step} for {settings.model_name}, not {side}."),
        (ms_ssim and side < MS_SSIM_MIN_PATCH,
         f"MS-SSIM needs --patch_size of at least {MS_SSIM_MIN_PATCH}, not {side}."),
        (settings.latent_views > 1 and not settings.keeps_latents,
         "--latent_views is for kept latents: add --fixed g_a g_s."),
        (settings.rescale is not None and not settings.parents,
         "--rescale needs weights: add --init_ckpt or --init_transforms."),
        (settings.rest_lr is not None and settings.optimizer == "adam",
         "--rest_lr is for what Muon leaves to Adam: add --optimizer muon."),
    ):  # fmt: skip
        if wrong:
            raise TrainingError(message)
