"""What outlives a process: the folder of a run, its lock, its state and its checkpoints."""

from __future__ import annotations

import hashlib
import io
import itertools
import shlex
import subprocess
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from models import checkpoint
from models.base import Codec
from models.errors import CheckpointError, TrainingError
from models.files import atomic_write, locked, write_bytes
from training.log import Log
from training.settings import Settings

STATE = "state.pt"
DIGEST = 32  # bytes: a state ends with the SHA-256 of what comes before


class Run:
    """runs/<Model>/<exp_version>/: state.pt, train.log, curve.csv, tensorboard/.

    The folder is locked until `close`, or until the process ends, however it does; a second
    process that asks for it gets a TrainingError.
    """

    def __init__(self, folder: Path, settings: Settings):
        self.folder, self.settings = folder, settings
        self._closing = ExitStack()
        try:
            self._closing.enter_context(locked(folder, wait=False))
        except Timeout:
            raise TrainingError(
                f"Another process is training in {folder}; choose another --exp_version."
            ) from None
        self.log = Log(folder, tensorboard=not settings.no_tensorboard)
        self._closing.callback(self.log.close)
        self.saved: int | None = None  # the step of the state that is on the disk
        # What all sessions of the run share; a state brings its own.
        self.origin: dict[str, Any] = {"run": folder.name, "run_id": uuid.uuid4().hex[:12]}
        self.last_checkpoint: str | None = None

    def close(self) -> None:
        """Give the folder back."""
        self._closing.close()

    @classmethod
    def open(cls, settings: Settings) -> Run:
        """The folder of a new run, or of the one to resume; without a version a new number, or
        the run that was saved last. TrainingError when a new run would write into an old one's.
        """
        root = Path(settings.runs) / settings.model_name
        if settings.exp_version is not None:
            folder = root / settings.exp_version
            if not settings.resume and (folder / STATE).exists():
                raise TrainingError(
                    f"{folder} holds another run: add --resume to go on with it, choose another "
                    f"--exp_version, or leave the flag out to get a number."
                )
            return cls(folder, settings)
        if not settings.resume:
            return cls(_numbered(root), settings)
        states = sorted(root.glob(f"*/{STATE}"), key=lambda path: path.stat().st_mtime)
        if not states:
            raise TrainingError(f"There is no run to resume in {root}; drop --resume to start one.")
        return cls(states[-1].parent, settings)

    def begin(self, origin: dict) -> dict | None:
        """The state to go on from, on the CPU, if there is one; else the beginning of a run.

        `origin`: where the weights of a new run come from. A state's own stays as it is.
        TrainingError if the state cannot be read, or is of another training.
        """
        path = self.folder / STATE
        if not path.is_file():
            self.origin |= origin
            return None
        data = path.read_bytes()
        if hashlib.sha256(data[:-DIGEST]).digest() != data[-DIGEST:]:
            raise TrainingError(
                f"{path} cannot be read: it is damaged, or of an earlier version of train.py; "
                f"choose another --exp_version to start again."
            )
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        different = self.settings.differences(state["config"])
        if state["origin"]["data_fingerprint"] != origin["data_fingerprint"]:
            different.append("the images are not the same (their names and sizes)")
        if different:
            further = state["last_checkpoint"] or "FILE"
            raise TrainingError(
                f"{self.folder} was trained with other settings: {'; '.join(different)}. Repeat "
                f"the flags of that run, name another by --exp_version, or train its weights "
                f"further in a new one, with --init_ckpt {further}."
            )
        self.origin, self.last_checkpoint = state["origin"], state["last_checkpoint"]
        self.saved = state["step"]
        return state

    def save(self, state: dict) -> None:
        """Write the state of a step, all or nothing. If that fails, it is said: `saved` tells."""
        config, last = self.settings.config(), self.last_checkpoint
        run = {"config": config, "origin": self.origin, "last_checkpoint": last}
        try:
            with atomic_write(self.folder / STATE) as temporary:
                torch.save({**state, **run}, temporary)
                with temporary.open("rb+") as file:
                    file.write(hashlib.file_digest(file, "sha256").digest())
            self.saved = state["step"]
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a full disk
            self.log.say(
                f"The state of step {state['step']} could not be saved ({_first_line(error)}): "
                f"make room on the disk of {self.folder}. {self.what_is_saved()}."
            )

    def what_is_saved(self) -> str:
        """What --resume would find."""
        if self.saved is None:
            return "No state is saved: the run would begin again"
        return f"The state of step {self.saved} is saved"

    def owns(self, path: Path) -> bool:
        """Whether a checkpoint was written by this run."""
        try:
            provenance = checkpoint.read_metadata(path)["provenance"]
            return provenance.get("run_id") == self.origin["run_id"]
        except CheckpointError:
            return False

    def checkpoint_path(self, epoch: int) -> Path:
        """Where a checkpoint goes: with the run, unless --ckpts says otherwise; also where the
        file there is another run's, and --overwrite is not given."""
        settings = self.settings
        own, given = (
            checkpoint.path_for(settings.model_name, epoch, settings.lmbda, root)
            for root in (self.folder / "ckpts", settings.ckpts or self.folder / "ckpts")
        )
        return given if settings.overwrite or not given.exists() or self.owns(given) else own

    def checkpoint(self, model: Codec, epoch: int, progress: dict) -> None:
        """Write an epoch's checkpoint and remove this run's previous intermediate one.

        `progress`: the training so far, for the provenance. TrainingError if the last one of the
        run cannot be written; the others are done without.
        """
        path = self.checkpoint_path(epoch)
        code = {"code_revision": code_revision(), "torch": torch.__version__}
        provenance = {**self.origin, **progress, **code}
        try:
            checkpoint.save(path, model, config=self.settings.config(), provenance=provenance)
        except (OSError, CheckpointError) as error:
            if epoch == self.settings.epoch - 1:
                raise TrainingError(
                    f"The checkpoint {path} could not be written ({_first_line(error)}). "
                    f"{self.what_is_saved()}; put it right and repeat the command with --resume."
                ) from error
            self.log.say(f"No checkpoint of epoch {epoch}: {_first_line(error)}")
            return
        self.log.say(f"Wrote {path}")
        previous, self.last_checkpoint = self.last_checkpoint, str(path)
        if previous and Path(previous).name != path.name and self.owns(Path(previous)):
            Path(previous).unlink(missing_ok=True)

    def record(self) -> None:
        """Copy the curve to the study's."""
        name = f"{self.settings.model_name}_lmbda_{self.settings.lmbda:g}.csv"
        target = Path("statistics/training") / name
        write_bytes(target, (self.folder / "curve.csv").read_bytes())
        self.log.say(f"Wrote {target}")

    def resume_command(self) -> str:
        """What a user does to go on."""
        named = self.folder.name == self.settings.exp_version
        version = "" if named else f" --exp_version {self.folder.name}"
        return f"repeat the command with --resume{version}"

    def test_command(self) -> str:
        """What a user does with the final checkpoint."""
        settings, path = self.settings, self.checkpoint_path(self.settings.epoch - 1)
        words = f"python test.py --model_name {settings.model_name}".split()
        words += ["--checkpoint", str(path)]
        if settings.metric != "mse":
            words += ["--metric", settings.metric]
        if settings.import_module:
            words += ["--import_module", settings.import_module]
        return shlex.join(words)


def _numbered(root: Path) -> Path:
    """A new folder run_0, run_1, ..."""
    for number in itertools.count():  # mkdir decides between two processes that start together
        with suppress(FileExistsError):
            (root / f"run_{number}").mkdir(parents=True)
            break
    return root / f"run_{number}"


def code_revision() -> str | None:
    """The commit of the code, with "+" for uncommitted changes; None outside a repository."""
    command = ("git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+")
    options: dict = {"stderr": subprocess.DEVNULL, "text": True, "timeout": 30}
    try:
        return subprocess.check_output(command, cwd=Path(__file__).parent, **options).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
