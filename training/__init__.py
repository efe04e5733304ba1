"""Training: data, loss, optimisers, the loop, and runs that survive interruptions."""

from __future__ import annotations

import signal
from contextlib import ExitStack, closing

import torch

from training.crops import CropsOnDevice, Pixels, Prefetch, RandomCrops
from training.data import Data, open_data
from training.inheritance import new_model
from training.latents import Latents
from training.log import Log
from training.loop import SIGNALLED, Trainer
from training.run import Run
from training.settings import Settings
from training.team import Team, stop_signals

NARROWED_ON = 32  # crops that tell which channels of a wider parent have most power
STUDY_STEPS = 70_000  # that the weights of a model of the study have gone through, at least


def train(settings: Settings, team: Team, latents: Latents | None = None) -> int:
    """One process of a run; returns its exit code. TrainingError, CheckpointError, ImageError
    and OSError carry one sentence for the user.

    latents: of these images under these transforms, if they have been computed before.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    data = team.together(lambda: open_data(settings))
    settings = settings.completed(len(data.images), team.size)
    with ExitStack() as stack:

        def open_run() -> tuple[Run | None, dict | None]:
            run = stack.enter_context(closing(Run(settings)))
            state = run.begin(data.provenance)
            _introduce(run, settings, team, data)
            return run, state

        run, state = team.together(open_run if team.rank == 0 else lambda: (None, None))
        log, state = run.log if run else Log(), team.share(state)
        pixels = Pixels(data.images, settings.patch_size)
        crops = RandomCrops(pixels, settings.patch_size, settings.seed)
        model = team.together(
            lambda: new_model(
                settings, log.say, state and state["model"], lambda: crops.batch(0, NARROWED_ON)
            )
        )
        model.to(team.device, memory_format=torch.channels_last)
        if settings.keeps_latents:
            latents = latents or team.together(
                lambda: Latents(model, data.images, settings, team.size)
            )
            log.say(latents.report())
            crops = latents.crops(settings)
        if team.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(team.device)
            if crops.arrays.bytes < free / 3:  # their parts are joined, for a moment twice as much
                crops = CropsOnDevice(crops, team.device, settings.num_workers)
        torch.backends.cudnn.benchmark = True  # from now on: every step has the same shapes
        batches = stack.enter_context(closing(Prefetch(crops, settings, team)))
        signals = stack.enter_context(stop_signals(team))
        trainer = Trainer(settings, model, batches, data.held_out, run, log, team, signals)
        if state is not None:
            trainer.load_state_dict(state)
            del state  # as large as the model and the optimiser
        reason = trainer.train()
        team.together(lambda: trainer.finish(reason))
    return (signals or [128 + signal.SIGINT])[-1] if reason == SIGNALLED else 0


def _introduce(run: Run, settings: Settings, team: Team, data: Data) -> None:
    """The first lines of a run: what will be done, on what, and where it goes."""
    say = run.log.say
    if settings.dataset is None:
        say(
            "No --dataset: this is a DEMONSTRATION on a few sample photographs, NOT the training "
            f"of the study: {settings.total} short steps; expect blurred images."
        )
    elif settings.total < STUDY_STEPS // 100 and not settings.parents:
        say(
            f"Warning: {settings.total} steps from random weights lead nowhere, the models of the "
            f"study had {STUDY_STEPS:,} and more. Start from trained weights with --init_ckpt, or "
            "raise --steps_per_epoch (docs/datasets.md, One's own photographs)."
        )
    say(data.report)
    say(
        f"{settings.model_name} (N={settings.N}, M={settings.M}), lambda {settings.lmbda:g}, "
        f"{settings.metric}; {settings.optimizer}, lr {settings.lr:g}, {settings.scheduler}; "
        f"{settings.total} steps ({settings.epoch} epochs of {settings.steps_per_epoch}) of "
        f"{settings.batch_size * team.size} crops of {settings.patch_size}x{settings.patch_size}, "
        f"{settings.precision}, {team.hardware}."
    )
    say(f"Run: {run.folder}. Final checkpoint: {run.checkpoint_path(settings.epoch - 1)}")
    if run.saved is not None:
        say(f"Resuming after step {run.saved}.")
    elif settings.resume:
        say("There is no saved state here yet: starting from the beginning.")
