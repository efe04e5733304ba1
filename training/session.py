"""One process of a run from its flags to its exit code: data, model, folder, trainer, files."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch

import models
from models import checkpoint
from models.base import Codec
from models.errors import CheckpointError, TrainingError
from models.files import write_bytes
from models.presets import OperatingPoint
from training.feed import Data, Prefetch, open_data
from training.inheritance import ancestors, hold, latent_factor, take_weights
from training.journal import Journal
from training.loop import FINISHED, NOT_FINITE, NOT_SAVED, SIGNALLED, TIME_IS_UP, Trainer
from training.loss import RateDistortion
from training.run import Run, code_revision, hardware
from training.settings import complete, config, differences, resolve
from training.team import Signals, Team

EXIT = {FINISHED: 0, TIME_IS_UP: 0, SIGNALLED: 130, NOT_FINITE: 1, NOT_SAVED: 1}


def train(flags: Namespace, team: Team) -> int:
    """Train as the flags say; returns the exit code. TrainingError, CheckpointError,
    ImageError and OSError carry one sentence for the user."""
    settings = resolve(flags, team.size)
    RateDistortion(settings.lmbda, settings.metric)  # missing packages are told before the work
    if settings.threads:
        torch.set_num_threads(settings.threads)
    data = team.together(lambda: open_data(settings))
    complete(settings, len(data.crops.images))
    run, state = open_run(settings, team)
    try:
        return train_in(run, state, settings, data, team)
    finally:
        if run is not None:
            run.close()


def train_in(
    run: Run | None, state: dict | None, settings: Namespace, data: Data, team: Team
) -> int:
    """Train in the folder of a run, from its state if there is one; returns the exit code."""
    journal = Journal(run.folder if run else None, tensorboard=settings.tensorboard)
    announce(settings, journal, run, team, data, state)
    model = new_model(settings, journal, fresh=state is None)
    store = Store(settings, run, journal, team, data)
    with Prefetch(data.crops, settings, team) as batches, Signals(team.size > 1) as signals:
        trainer = Trainer(
            settings, model, batches, data.held_out, journal, team,
            save=store.state, checkpoint=store.checkpoint, stop_asked=signals.received,
        )  # fmt: skip
        if state is not None:
            trainer.load_state_dict(state)
            del state  # as large as the model and the optimiser
        elif settings.init_ckpt:  # now: the run may replace the file
            trainer.notes["ancestors"] = ancestors(settings.init_ckpt)
        try:
            reason = trainer.train()
            team.together(lambda: reason == FINISHED and team.is_first and store.finish(trainer))
            last_words(reason, trainer, store, journal)
        finally:
            journal.close()
    return signals.exit_code if reason == SIGNALLED and signals.exit_code else EXIT[reason]


def open_run(settings: Namespace, team: Team) -> tuple[Run | None, dict | None]:
    """The run's folder, in the first process; the state to go on from, in all of them.

    TrainingError in the first process; the others then leave without a word.
    """

    def first_opens() -> tuple[Run | None, dict | None]:
        if not team.is_first:
            return None, None
        run = Run.open(settings)
        try:
            return run, load_state(run, settings)
        except TrainingError:
            run.close()
            raise

    run, state = team.together(first_opens)
    return run, team.share(state)


def load_state(run: Run, settings: Namespace) -> dict | None:
    """The state to go on from, if there is one; TrainingError if it is of another training."""
    if not run.has_state:
        return None
    state = run.load()
    different = differences(settings, state["config"])
    if different:
        raise TrainingError(
            f"{run.folder} was trained with other settings: {'; '.join(different)}. Repeat the "
            f"flags of that run, or choose another --exp_version."
        )
    return state


def announce(settings, journal: Journal, run: Run, team: Team, data: Data, state) -> None:
    """The first lines of a run: what will be done, on what, and where it goes."""
    if run is None:
        return
    run.describe(settings)
    batch = settings.batch_size * team.size
    if settings.demonstration:
        journal.say(
            "No --dataset: this is a DEMONSTRATION on a few sample photographs, NOT the training "
            f"of the study. Unless flags say otherwise it takes {settings.total} short steps; "
            "expect blurred images."
        )
    journal.say(data.report)
    journal.say(
        f"{settings.model_name} (N={settings.N}, M={settings.M}), lambda {settings.lmbda:g}, "
        f"{settings.metric}; {settings.optimizer}, lr {settings.lr:g}, {settings.scheduler}; "
        f"{settings.total} steps ({settings.epoch} epochs of {settings.steps_per_epoch}) of "
        f"{batch} crops of {settings.patch_size}x{settings.patch_size}, {settings.precision}, "
        f"{team.size} x {hardware(team.device)}."
    )
    where = run.checkpoint_path(
        settings.model_name, settings.epoch - 1, settings.lmbda, settings.ckpts, settings.overwrite
    )
    journal.say(f"Run: {run.folder}. Final checkpoint: {where}")
    if where.parent == run.folder:
        journal.say(
            "  (the usual place holds the checkpoint of another run; --overwrite replaces it)"
        )
    if state is not None:
        journal.say(f"Resuming after step {state['step']}.")
    elif settings.resume:
        journal.say("There is no saved state here yet: starting from the beginning.")


def new_model(settings: Namespace, journal: Journal, fresh: bool) -> Codec:
    """The model of the settings, with seeded random weights and those of `--init_ckpt`."""
    torch.manual_seed(settings.seed)
    model = models.build(settings.model_name, settings.N, settings.M)
    model.point = OperatingPoint(
        settings.model_name, settings.lmbda, settings.code_rate, settings.N, settings.M,
        settings.metric,
    )  # fmt: skip
    if settings.init_ckpt and fresh:
        factor = settings.rescale
        if factor is None:
            factor = latent_factor(settings.init_ckpt, settings.lmbda, settings.metric)
        journal.say(take_weights(model, settings.init_ckpt, factor))
    hold(model, settings.fixed)
    return model


class Store:
    """Writes what a run leaves behind; used in the first process only."""

    def __init__(
        self, settings: Namespace, run: Run | None, journal: Journal, team: Team, data: str
    ):
        self.settings, self.run, self.journal, self.team = settings, run, journal, team
        self.data = data
        self.revision = code_revision() if run else None

    def state(self, trainer: Trainer) -> bool:
        """Save the state to resume from; a failure is said and leaves the previous one."""
        try:
            self.run.save({**trainer.state_dict(), "config": config(self.settings)})
            return True
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a full disk
            self.journal.say(
                f"The state of step {trainer.step} could not be saved ({_first_line(error)}): "
                f"make room on the disk of {self.run.folder}. The state saved before is intact."
            )
            return False

    def checkpoint(self, trainer: Trainer, epoch: int) -> None:
        """Write an epoch's checkpoint and remove this run's previous intermediate one."""
        last = epoch == self.settings.epoch - 1
        path = self._path(epoch)
        try:
            checkpoint.save(
                path, trainer.averaged, config=config(self.settings),
                provenance=self.provenance(trainer),
            )  # fmt: skip
        except (OSError, CheckpointError) as error:
            if last:
                raise TrainingError(
                    f"The checkpoint {path} could not be written ({_first_line(error)}); the state "
                    f"is saved: put it right and repeat the command with --resume."
                ) from error
            self.journal.say(f"No checkpoint of epoch {epoch}: {_first_line(error)}")
            return
        self.journal.say(f"Wrote {path}")
        previous = trainer.notes.get("intermediate")
        if previous and Path(previous) != path and self.run.owns(Path(previous)):
            Path(previous).unlink(missing_ok=True)
        trainer.notes["intermediate"] = None if last else str(path)

    def finish(self, trainer: Trainer) -> None:
        """The final checkpoint, unless it is there, and the curve for the study."""
        settings = self.settings
        path = self._path(settings.epoch - 1)
        if not path.exists() or not self.run.owns(path):
            self.checkpoint(trainer, settings.epoch - 1)
        if settings.record:
            name = f"{settings.model_name}_lmbda_{settings.lmbda:g}.csv"
            target = Path("statistics/training") / name
            write_bytes(target, (self.run.folder / "curve.csv").read_bytes())
            self.journal.say(f"Wrote {target}")

    def provenance(self, trainer: Trainer) -> dict:
        """Where the weights come from, for the checkpoint's metadata."""
        settings = self.settings
        return {
            **self.data.provenance,
            "demonstration": settings.demonstration,
            "steps": trainer.step,
            "images_seen": trainer.images_seen,
            "seed": settings.seed,
            "parent": config(settings)["init_ckpt"],
            "ancestors": trainer.notes.get("ancestors", []),
            "code_revision": self.revision,
            "hours": round(trainer.seconds / 3600, 6),  # a trial takes a fraction of a second
            "hardware": f"{self.team.size} x {hardware(self.team.device)}",
            "torch": torch.__version__,
            "run": self.run.version,
            "run_id": self.run.id,
        }

    def _path(self, epoch: int) -> Path:
        s = self.settings
        return self.run.checkpoint_path(s.model_name, epoch, s.lmbda, s.ckpts, s.overwrite)


def last_words(reason: str, trainer: Trainer, store: Store, journal: Journal) -> None:
    """Why the training ended, how fast it was, and what to do next."""
    settings, steps = trainer.settings, trainer.step - trainer.first_step
    if steps and store.run:
        seconds = trainer.session_seconds
        images = steps * settings.batch_size * store.team.size
        journal.say(f"{steps} steps in {seconds:.0f} s: {images / seconds:.1f} images/s.")
    again = "repeat the command with --resume"
    if store.run and store.run.version != settings.exp_version:
        again += f" --exp_version {store.run.version}"
    journal.say(
        {
            FINISHED: f"Finished after step {trainer.step}.",
            TIME_IS_UP: f"The time is up after step {trainer.step} of {settings.total}; to go on, "
            f"{again}.",
            SIGNALLED: f"Stopped after step {trainer.step} of {settings.total}; to go on, {again}.",
            NOT_FINITE: f"Stopped: {settings.max_skips} steps in a row up to step "
            f"{trainer.step - 1} had a loss or gradient that is not finite. The weights are those "
            f"before; lower --lr, or use --warmup and --clip.",
            NOT_SAVED: f"Stopped after step {trainer.step}, and the state could not be saved.",
        }[reason]
    )


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
