"""What outlives a process: the folder of a run, its lock, and the state to resume from."""

from __future__ import annotations

import fcntl
import json
import platform
import subprocess
import uuid
from argparse import Namespace
from pathlib import Path

import torch

from models import checkpoint
from models.errors import CheckpointError, TrainingError
from models.files import atomic_write, write_text
from training.settings import config, differences

STATE, SETTINGS = "state.pt", "settings.json"


class Run:
    """runs/<Model>/<exp_version>/: state.pt, settings.json, train.log, curve.csv, tensorboard/.

    The lock is held until the process ends, however it ends; a second process that asks for
    the same folder gets a TrainingError. `resuming` tells whether there is a state.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.version = folder.name
        self.id = uuid.uuid4().hex[:12]  # replaced by the state's when resuming
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"Another process is training in {folder}; choose another --exp_version."
            ) from None
        for left_over in folder.glob(".*.tmp"):  # of a process that was killed while writing
            left_over.unlink()

    @classmethod
    def open(cls, settings: Namespace) -> Run:
        """The folder of a new run, or of the one to resume.

        Without a version: a new number, or the newest run of these settings that has a state.
        TrainingError when a new run would write into the folder of an old one.
        """
        root = Path(settings.runs) / settings.model_name
        version, resume = settings.exp_version, settings.resume
        if version is None:
            return cls._newest(root, settings) if resume else cls._numbered(root)
        if Path(version).name != version:
            raise TrainingError(f"--exp_version is a folder's name, not {version!r}.")
        folder = root / version
        if not resume and folder.is_dir() and any(f.name != "lock" for f in folder.iterdir()):
            raise TrainingError(
                f"{folder} holds another run: add --resume to go on with it, choose another "
                f"--exp_version, or leave the flag out to get a number."
            )
        return cls(folder)

    @classmethod
    def _newest(cls, root: Path, settings: Namespace) -> Run:
        states = sorted(root.glob(f"*/{STATE}"), key=lambda path: -path.stat().st_mtime)
        if not states:
            raise TrainingError(f"There is no run to resume in {root}; drop --resume to start one.")
        reasons = []
        for state in states:
            reasons.append(differences(settings, _read_settings(state.parent)))
            if not reasons[-1]:
                return cls(state.parent)
        raise TrainingError(
            f"No run in {root} has these settings; in the newest, {states[0].parent.name}, "
            f"{'; '.join(reasons[0])}."
        )

    @classmethod
    def _numbered(cls, root: Path) -> Run:
        number = 0
        while True:  # mkdir decides between two processes that start together
            try:
                (root / f"run_{number}").mkdir(parents=True)
                return cls(root / f"run_{number}")
            except FileExistsError:
                number += 1

    def close(self) -> None:
        """Give the folder back."""
        self._lock.close()

    def describe(self, settings: Namespace) -> None:
        """Write the settings where a reader, and a later --resume, find them."""
        write_text(self.folder / SETTINGS, json.dumps(config(settings), indent=2) + "\n")

    @property
    def has_state(self) -> bool:
        """Whether the run left a state to go on from."""
        return (self.folder / STATE).is_file()

    def save(self, state: dict) -> None:
        """Write the state, all or nothing. OSError of the file system."""
        with atomic_write(self.folder / STATE) as temporary:
            torch.save({**state, "run_id": self.id}, temporary)

    def load(self) -> dict:
        """The state, on the CPU; TrainingError if it cannot be read."""
        try:
            state = torch.load(self.folder / STATE, map_location="cpu", weights_only=True)
            self.id = state["run_id"]
            return state
        except Exception as error:  # torch raises many kinds for a damaged file
            raise TrainingError(
                f"{self.folder / STATE} cannot be read ({str(error).splitlines()[0][:150]}); "
                f"choose another --exp_version to start again."
            ) from error

    def owns(self, path: Path) -> bool:
        """Whether a checkpoint was written by this run."""
        try:
            return checkpoint.read_metadata(path)["provenance"].get("run_id") == self.id
        except (CheckpointError, KeyError, AttributeError):
            return False

    def checkpoint_path(self, model: str, epoch: int, lmbda: float, root, overwrite: bool) -> Path:
        """Where a checkpoint goes: beside the run if another run's file has the usual place."""
        path = checkpoint.path_for(model, epoch, lmbda, root)
        if overwrite or not path.exists() or self.owns(path):
            return path
        return self.folder / path.name


def _read_settings(folder: Path) -> dict:
    try:
        return json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def code_revision() -> str | None:
    """The commit of the code, with "+" for uncommitted changes; None outside a repository."""
    here = Path(__file__).parent
    try:

        def git(*words: str) -> str:
            done = subprocess.run(
                ("git", *words), cwd=here, capture_output=True, text=True, check=True, timeout=30
            )
            return done.stdout.strip()

        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def hardware(device: torch.device) -> str:
    """What the training ran on, for the provenance."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{name}, {torch.get_num_threads()} threads"
