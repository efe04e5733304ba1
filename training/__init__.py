"""Training: data, loss, optimisers, the loop, and runs that survive interruptions."""

from __future__ import annotations

import importlib
from contextlib import ExitStack, closing

import torch

from models.errors import TrainingError
from training.crops import CropsOnDevice, Pixels, RandomCrops
from training.feed import Data, Prefetch, open_data
from training.inheritance import ancestors, new_model
from training.latents import Latents
from training.log import Log
from training.loop import FINISHED, NOT_FINITE, SIGNALLED, TIME_IS_UP, Trainer
from training.run import Run
from training.settings import STUDY_STEPS, Settings
from training.team import Signals, Team

NARROWED_ON = 32  # crops that tell which channels of a wider parent have most power


def train(settings: Settings, team: Team, latents: Latents | None = None) -> int:
    """One process of a run; returns its exit code. TrainingError, CheckpointError, ImageError
    and OSError carry one sentence for the user.

    latents: of these images under these transforms, if they have been computed before.
    """
    if settings.import_module:
        importlib.import_module(settings.import_module)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    data = team.together(lambda: open_data(settings))
    settings = settings.completed(len(data.images), team.size)
    with ExitStack() as stack:

        def open_run() -> tuple[Run | None, dict | None]:
            if not team.is_first:
                return None, None
            run = stack.enter_context(closing(Run.open(settings)))
            state = run.begin(_origin(run, settings, data))
            _introduce(run, settings, team, data, resumed=state is not None)
            return run, state

        run, state = team.together(open_run)
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
        signals = stack.enter_context(Signals(team))
        trainer = Trainer(settings, model, batches, data.held_out, run, team, signals.received)
        if state is not None:
            trainer.load_state_dict(state)
            del state  # as large as the model and the optimiser
        reason = trainer.train()
        team.together(lambda: _finish(run, trainer, reason) if run else None)
    return (signals.exit_code or 130) if reason == SIGNALLED else 0


def _origin(run: Run, settings: Settings, data: Data) -> dict:
    """Where the weights of a new run come from, for the provenance of its checkpoints."""
    parents = (path for path, _ in settings.parents)
    return {
        **data.provenance, "demonstration": settings.demonstration, "seed": settings.seed,
        "parent": settings.config()["init_ckpt"],
        "ancestors": ancestors(*parents, by=run.origin["run_id"]),
    }  # fmt: skip


def _introduce(run: Run, settings: Settings, team: Team, data: Data, resumed: bool) -> None:
    """The first lines of a run: what will be done, on what, and where it goes."""
    say = run.log.say
    if settings.demonstration:
        say(
            "No --dataset: this is a DEMONSTRATION on a few sample photographs, NOT the training "
            f"of the study. Unless flags say otherwise it takes {settings.total} short steps; "
            "expect blurred images."
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
    where = run.checkpoint_path(settings.epoch - 1)
    say(f"Run: {run.folder}. Final checkpoint: {where}")
    if settings.ckpts is not None and not where.is_relative_to(settings.ckpts):
        say("  (its usual place holds that of another run; --overwrite replaces it)")
    if resumed:
        say(f"Resuming after step {run.saved}.")
    elif settings.resume:
        say("There is no saved state here yet: starting from the beginning.")


def _finish(run: Run, trainer: Trainer, reason: str) -> None:
    """Leave the results of a run, say why it ended and what to do next."""
    settings, step = trainer.settings, trainer.step
    if reason == FINISHED:
        path = run.checkpoint_path(settings.epoch - 1)
        if not path.exists() or not run.owns(path):
            trainer.checkpoint(settings.epoch - 1)
        if settings.record:
            run.record()
    if steps := step - trainer.first_step:
        seconds = trainer.session_seconds
        images = steps * settings.batch_size * trainer.team.size
        run.log.say(f"{steps} steps in {seconds:.0f} s: {images / seconds:.1f} images/s.")
    if reason == NOT_FINITE:
        raise TrainingError(
            f"{trainer.skipped} steps in a row up to step {step - 1} had a loss or gradient "
            "that is not finite. The weights are those before; lower --lr, or use --warmup and "
            "--clip."
        )
    if run.saved != step:
        raise TrainingError(f"Stopped after step {step}. {run.what_is_saved()}.")
    to_go_on = f"after step {step} of {settings.total}; to go on, {run.resume_command()}."
    run.log.say({
        FINISHED: f"Finished after step {step}. To test it: {run.test_command()}",
        TIME_IS_UP: f"The time is up {to_go_on}",
        SIGNALLED: f"Stopped {to_go_on}",
    }[reason])  # fmt: skip
