"""What outlives a process: the folder of a run, its lock, its state and its checkpoints."""

from __future__ import annotations

import hashlib
import io
import subprocess
import uuid
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from models import checkpoint
from models.base import Codec
from models.errors import CheckpointError, TrainingError
from models.files import atomic_write, locked, write_bytes
from training.inheritance import ancestors
from training.log import Log
from training.settings import Settings

STATE = "state.pt"
DIGEST = 32  # bytes: a state ends with the SHA-256 of what comes before


class Run:
    """runs/<Model>/<exp_version>/: state.pt, train.log, curve.csv, tensorboard/.

    The folder of a new run, or of the one to resume; without a version a new number, or the run
    that was saved last. It is locked until `close`, or until the process ends, however it does.
    TrainingError when another process has it, or when a new run would write into an old one's.
    """

    def __init__(self, settings: Settings):
        self.folder, self.settings = _folder(settings), settings
        self.lock = locked(self.folder, wait=False)
        try:
            self.lock.acquire()
        except Timeout:
            raise TrainingError(
                f"Another process is training in {self.folder}; choose another --exp_version."
            ) from None
        self.log = Log(self.folder, tensorboard=not settings.no_tensorboard)
        self.saved: int | None = None  # the step of the state that is on the disk
        # What all sessions of the run share; a state brings its own.
        self.origin: dict[str, Any] = {"run": self.folder.name, "run_id": uuid.uuid4().hex[:12]}
        self.last_checkpoint: str | None = None

    def close(self) -> None:
        """Give the folder back."""
        self.log.close()
        self.lock.release()

    def begin(self, data: dict) -> dict | None:
        """The state to go on from, on the CPU, if there is one; else the beginning of a run.

        `data`: the provenance of the images. TrainingError if the state cannot be read, or is of
        another training.
        """
        path = self.folder / STATE
        if not path.is_file():
            settings = self.settings
            parents = (path for path, _ in settings.parents)
            self.origin |= {
                **data, "demonstration": settings.dataset is None, "seed": settings.seed,
                "parent": settings.config()["init_ckpt"],
                "ancestors": ancestors(*parents, by=self.origin["run_id"]),
            }  # fmt: skip
            return None
        content = path.read_bytes()
        if hashlib.sha256(content[:-DIGEST]).digest() != content[-DIGEST:]:
            raise TrainingError(
                f"{path} cannot be read: it is damaged, or of an earlier version of train.py; "
                f"choose another --exp_version to start again."
            )
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        different = self.settings.differences(state["config"])
        if state["origin"]["data_fingerprint"] != data["data_fingerprint"]:
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
            line = str(error).partition("\n")[0]
            self.log.say(
                f"The state of step {state['step']} could not be saved ({line}): make "
                f"room on the disk of {self.folder}. {self.what_is_saved()}."
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
        path = checkpoint.path_for(settings.model_name, epoch, settings.lmbda, "")
        own = self.folder / "ckpts" / path
        given = settings.ckpts / path if settings.ckpts else own
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
                    f"The checkpoint {path} could not be written ({error}). "
                    f"{self.what_is_saved()}; put it right and repeat the command with --resume."
                ) from error
            self.log.say(f"No checkpoint of epoch {epoch}: {error}")
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


def _folder(settings: Settings) -> Path:
    root = Path(settings.runs) / settings.model_name
    if settings.exp_version is not None:
        folder = root / settings.exp_version
        if not settings.resume and (folder / STATE).exists():
            raise TrainingError(
                f"{folder} holds another run: add --resume to go on with it, choose another "
                f"--exp_version, or leave the flag out to get a number."
            )
        return folder
    if settings.resume:
        states = sorted(root.glob(f"*/{STATE}"), key=lambda path: path.stat().st_mtime)
        if not states:
            raise TrainingError(f"There is no run to resume in {root}; drop --resume to start one.")
        return states[-1].parent
    number = 0
    while True:  # mkdir decides between two processes that start together
        try:
            (root / f"run_{number}").mkdir(parents=True)
            return root / f"run_{number}"
        except FileExistsError:
            number += 1


def code_revision() -> str | None:
    """The commit of the code, with "+" for uncommitted changes; None outside a repository."""
    command = ("git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+")
    options: dict = {"stderr": subprocess.DEVNULL, "text": True, "timeout": 30}
    try:
        return subprocess.check_output(command, cwd=Path(__file__).parent, **options).strip()
    except (OSError, subprocess.SubprocessError):
        return None
