"""One process of a run from its settings to its exit code: data, model, folder, trainer, files."""

from __future__ import annotations

import importlib
from contextlib import ExitStack, closing

import torch

import models
from models.base import Codec
from training.crops import RandomCrops
from training.feed import Prefetch, open_data
from training.inheritance import ancestors, fix, latent_factor, take_weights
from training.journal import Silence
from training.latents import LatentCrops
from training.loop import FINISHED, NOT_FINITE, NOT_SAVED, SIGNALLED, TIME_IS_UP, Trainer
from training.records import Records
from training.run import Run
from training.settings import Settings
from training.team import Signals, Team

EXIT = {FINISHED: 0, TIME_IS_UP: 0, SIGNALLED: 130, NOT_FINITE: 1, NOT_SAVED: 1}


def train(settings: Settings, team: Team, kept: LatentCrops | None = None) -> int:
    """Train as the settings say; returns the exit code. TrainingError, CheckpointError,
    ImageError and OSError carry one sentence for the user.

    kept: latents of these images under these transforms that an earlier run has computed.
    """
    if settings.import_module:
        importlib.import_module(settings.import_module)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    data = team.together(lambda: open_data(settings))
    settings = settings.completed(len(data.crops.images), team.size)
    with ExitStack() as stack:

        def open_run() -> tuple[Silence, dict | None]:
            if not team.is_first:
                return Silence(), None
            run = stack.enter_context(Run.open(settings))
            state = run.load(settings)
            records = stack.enter_context(closing(Records(settings, run, team, data)))
            records.announce(state)
            return records, state

        records, state = team.together(open_run)
        state = team.share(state)
        model = team.together(lambda: new_model(settings, records, state))
        model.to(team.device, memory_format=torch.channels_last)
        crops: RandomCrops = data.crops
        if settings.keeps_latents:
            crops = kept or team.together(
                lambda: LatentCrops(model, data.crops.images, settings, team.size)
            )
            records.say(crops.report())
        torch.backends.cudnn.benchmark = True  # from now on: every step has the same shapes
        batches = stack.enter_context(Prefetch(crops, settings, team))
        signals = stack.enter_context(Signals(member=team.size > 1))
        trainer = Trainer(
            settings, model, batches, data.held_out, records, team, stop_asked=signals.received
        )
        if state is not None:
            trainer.load_state_dict(state)
            del state  # as large as the model and the optimiser
        elif settings.parents:  # now: the run may replace the files
            parents = (path for path, _ in settings.parents)
            trainer.notes["ancestors"] = ancestors(*parents, by=records.run_id)
        reason = trainer.train()
        team.together(lambda: records.finish(trainer, reason))
    return signals.exit_code if reason == SIGNALLED and signals.exit_code else EXIT[reason]


def new_model(settings: Settings, journal: Silence, state: dict | None) -> Codec:
    """The model of the settings: seeded random weights and those of its parents, or a state's."""
    torch.manual_seed(settings.seed)
    model = models.build(settings.model_name, settings.N, settings.M)
    model.point = settings.point
    if state is not None:
        model.load_state_dict(state["model"])
    else:
        for path, parts in settings.parents:
            factor = settings.rescale
            if factor is None:
                factor = latent_factor(path, settings.lmbda, settings.metric)
            journal.say(take_weights(model, path, factor, parts))
    fix(model, settings.fixed)
    return model
