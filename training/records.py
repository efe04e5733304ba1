"""What the first process of a run tells and keeps: journal, states, checkpoints, last words."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import torch

from models import checkpoint
from models.cli import processor
from models.errors import CheckpointError, TrainingError
from models.files import write_bytes
from training.feed import Data
from training.journal import Journal
from training.loop import FINISHED, NOT_FINITE, NOT_SAVED, SIGNALLED, TIME_IS_UP, Trainer
from training.run import Run
from training.settings import Settings
from training.team import Team


class Records(Journal):
    """Tells and keeps what happens in a run; see `Silence` for the calls."""

    def __init__(self, settings: Settings, run: Run, team: Team, data: Data):
        super().__init__(run.folder, tensorboard=settings.tensorboard)
        self.settings, self.run, self.team, self.data = settings, run, team, data
        self.run_id = run.id
        self.revision = code_revision()
        self.saved: int | None = None  # the step of the state that is on the disk

    def announce(self, state: dict | None) -> None:
        """The first lines of a run: what will be done, on what, and where it goes."""
        settings, run, team = self.settings, self.run, self.team
        run.describe(settings)
        if settings.demonstration:
            self.say(
                "No --dataset: this is a DEMONSTRATION on a few sample photographs, NOT the "
                "training of the study. Unless flags say otherwise it takes "
                f"{settings.total} short steps; expect blurred images."
            )
        self.say(self.data.report)
        self.say(
            f"{settings.model_name} (N={settings.N}, M={settings.M}), lambda {settings.lmbda:g}, "
            f"{settings.metric}; {settings.optimizer}, lr {settings.lr:g}, {settings.scheduler}; "
            f"{settings.total} steps ({settings.epoch} epochs of {settings.steps_per_epoch}) of "
            f"{settings.batch_size * team.size} crops of "
            f"{settings.patch_size}x{settings.patch_size}, {settings.precision}, {self._hardware}."
        )
        where = run.checkpoint_path(settings, settings.epoch - 1)
        self.say(f"Run: {run.folder}. Final checkpoint: {where}")
        if settings.ckpts is not None and not where.is_relative_to(settings.ckpts):
            self.say("  (its usual place holds that of another run; --overwrite replaces it)")
        if state is not None:
            self.saved = state["step"]
            self.say(f"Resuming after step {self.saved}.")
        elif settings.resume:
            self.say("There is no saved state here yet: starting from the beginning.")

    def save(self, trainer: Trainer) -> bool:
        try:
            self.run.save({**trainer.state_dict(), "config": self.settings.config()})
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a full disk
            self.say(
                f"The state of step {trainer.step} could not be saved ({_first_line(error)}): "
                f"make room on the disk of {self.run.folder}. {self._kept()}."
            )
            return False
        self.saved = trainer.step
        return True

    def _kept(self) -> str:
        """What --resume would find."""
        if self.saved is None:
            return "No state is saved: the run would begin again"
        return f"The state of step {self.saved} is saved"

    def checkpoint(self, trainer: Trainer, epoch: int) -> None:
        """Write an epoch's checkpoint and remove this run's previous intermediate one.

        TrainingError if the last one cannot be written.
        """
        last = epoch == self.settings.epoch - 1
        path = self.run.checkpoint_path(self.settings, epoch)
        try:
            checkpoint.save(
                path, trainer.averaged, config=self.settings.config(),
                provenance=self.provenance(trainer),
            )  # fmt: skip
        except (OSError, CheckpointError) as error:
            if last:
                raise TrainingError(
                    f"The checkpoint {path} could not be written ({_first_line(error)}). "
                    f"{self._kept()}; put it right and repeat the command with --resume."
                ) from error
            self.say(f"No checkpoint of epoch {epoch}: {_first_line(error)}")
            return
        self.say(f"Wrote {path}")
        previous = trainer.notes.get("intermediate")
        if previous and Path(previous) != path and self.run.owns(Path(previous)):
            Path(previous).unlink(missing_ok=True)
        trainer.notes["intermediate"] = None if last else str(path)

    def provenance(self, trainer: Trainer) -> dict:
        """Where the weights come from, for the checkpoint's metadata."""
        settings = self.settings
        return {
            **self.data.provenance,
            "demonstration": settings.demonstration,
            "steps": trainer.step,
            "images_seen": trainer.images_seen,
            "seed": settings.seed,
            "parent": settings.config()["init_ckpt"],
            "ancestors": trainer.notes.get("ancestors", []),
            "code_revision": self.revision,
            "hours": round(trainer.seconds / 3600, 6),  # a trial takes a fraction of a second
            "hardware": self._hardware,
            "torch": torch.__version__,
            "run": self.run.version,
            "run_id": self.run.id,
        }

    @property
    def _hardware(self) -> str:
        if self.team.device.type == "cuda":
            return f"{self.team.size} x {torch.cuda.get_device_name(self.team.device)}"
        return f"{self.team.size} x {processor()}, {torch.get_num_threads()} threads"

    def finish(self, trainer: Trainer, reason: str) -> None:
        steps = trainer.step - trainer.first_step
        if reason == FINISHED:
            self._leave_results(trainer)
        if steps:
            seconds = trainer.session_seconds
            images = steps * self.settings.batch_size * self.team.size
            self.say(f"{steps} steps in {seconds:.0f} s: {images / seconds:.1f} images/s.")
        self.say(self._last_words(trainer, reason))

    def _leave_results(self, trainer: Trainer) -> None:
        """The final checkpoint, unless it is there, and the curve for the study."""
        settings = self.settings
        path = self.run.checkpoint_path(settings, settings.epoch - 1)
        if not path.exists() or not self.run.owns(path):
            self.checkpoint(trainer, settings.epoch - 1)
        if settings.record:
            name = f"{settings.model_name}_lmbda_{settings.lmbda:g}.csv"
            target = Path("statistics/training") / name
            write_bytes(target, (self.run.folder / "curve.csv").read_bytes())
            self.say(f"Wrote {target}")

    def _last_words(self, trainer: Trainer, reason: str) -> str:
        settings, step = self.settings, trainer.step
        again = "repeat the command with --resume"
        if self.run.version != settings.exp_version:
            again += f" --exp_version {self.run.version}"
        return {
            FINISHED: f"Finished after step {step}. To test it: {self._test_command()}",
            TIME_IS_UP: f"The time is up after step {step} of {settings.total}; to go on, {again}.",
            SIGNALLED: f"Stopped after step {step} of {settings.total}; to go on, {again}.",
            NOT_FINITE: f"Stopped: {settings.max_skips} steps in a row up to step {step - 1} had a "
            "loss or gradient that is not finite. The weights are those before; lower --lr, or use "
            "--warmup and --clip.",
            NOT_SAVED: f"Stopped after step {step}, which is not saved. {self._kept()}.",
        }[reason]

    def _test_command(self) -> str:
        settings = self.settings
        path = self.run.checkpoint_path(settings, settings.epoch - 1)
        words = ["python", "test.py", "--model_name", settings.model_name, "--checkpoint", path]
        if settings.metric != "mse":
            words += ["--metric", settings.metric]
        if settings.import_module:
            words += ["--import_module", settings.import_module]
        return shlex.join(map(str, words))


def code_revision() -> str | None:
    """The commit of the code, with "+" for uncommitted changes; None outside a repository."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ("git", *words), cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
            timeout=30,
        )  # fmt: skip
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
