"""What outlives a process: the folder of a run, its lock, and the state to resume from."""

from __future__ import annotations

import json
import uuid
from contextlib import ExitStack
from pathlib import Path

import torch

from models import checkpoint
from models.errors import CheckpointError, TrainingError
from models.files import atomic_write, locked, write_text
from training.settings import Settings

STATE, SETTINGS = "state.pt", "settings.json"


class Run:
    """runs/<Model>/<exp_version>/: state.pt, settings.json, train.log, curve.csv, tensorboard/.

    The folder is locked until the `with` block ends, or the process, however it ends; a second
    process that asks for it gets a TrainingError.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.version = folder.name
        self.id = uuid.uuid4().hex[:12]  # replaced by the state's when resuming
        self._lock = ExitStack()
        try:
            self._lock.enter_context(locked(folder, wait=False))
        except BlockingIOError:
            raise TrainingError(
                f"Another process is training in {folder}; choose another --exp_version."
            ) from None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception) -> None:
        self._lock.close()

    @classmethod
    def open(cls, settings: Settings) -> Run:
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
        if not resume and (folder / SETTINGS).exists():
            raise TrainingError(
                f"{folder} holds another run: add --resume to go on with it, choose another "
                f"--exp_version, or leave the flag out to get a number."
            )
        return cls(folder)

    @classmethod
    def _newest(cls, root: Path, settings: Settings) -> Run:
        states = sorted(root.glob(f"*/{STATE}"), key=lambda path: -path.stat().st_mtime)
        if not states:
            raise TrainingError(f"There is no run to resume in {root}; drop --resume to start one.")
        reasons = []
        for state in states:
            reasons.append(settings.differences(_read_settings(state.parent)))
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

    def describe(self, settings: Settings) -> None:
        """Write the settings where a reader, and a later --resume, find them."""
        write_text(self.folder / SETTINGS, json.dumps(settings.config(), indent=2) + "\n")

    def save(self, state: dict) -> None:
        """Write the state, all or nothing. OSError of the file system."""
        with atomic_write(self.folder / STATE) as temporary:
            torch.save({**state, "run_id": self.id}, temporary)

    def load(self, settings: Settings) -> dict | None:
        """The state to go on from, on the CPU, if there is one.

        TrainingError if it cannot be read, or is of another training.
        """
        path = self.folder / STATE
        if not path.is_file():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.id = state["run_id"]
            different = settings.differences(state["config"])
        except Exception as error:  # torch raises many kinds for a damaged file
            raise TrainingError(
                f"{path} cannot be read ({str(error).splitlines()[0][:150]}); "
                f"choose another --exp_version to start again."
            ) from error
        if different:
            raise TrainingError(
                f"{self.folder} was trained with other settings: {'; '.join(different)}. Repeat "
                f"the flags of that run, or choose another --exp_version."
            )
        return state

    def owns(self, path: Path) -> bool:
        """Whether a checkpoint was written by this run."""
        try:
            return checkpoint.read_metadata(path)["provenance"].get("run_id") == self.id
        except (CheckpointError, KeyError, AttributeError):
            return False

    def checkpoint_path(self, settings: Settings, epoch: int) -> Path:
        """Where a checkpoint goes: with the run, unless --ckpts says otherwise; also where the
        file there is another run's, and --overwrite is not given."""

        def inside(root) -> Path:
            return checkpoint.path_for(settings.model_name, epoch, settings.lmbda, root)

        own = inside(self.folder / "ckpts")
        if settings.ckpts is None:
            return own
        path = inside(settings.ckpts)
        return path if settings.overwrite or not path.exists() or self.owns(path) else own


def _read_settings(folder: Path) -> dict:
    try:
        return json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
