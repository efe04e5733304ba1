"""The processes that train together: PyTorch's DistributedDataParallel, or one alone."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from models.cli import processor
from models.errors import CodecError, TrainingError

GRACE_SECONDS = 60  # for the others to stop when one process has failed
STOPPING = b"train.py: stopping after this step.\n"
TIMEOUT = timedelta(hours=1)  # the others wait while the first one validates

Result = TypeVar("Result")


@dataclass(frozen=True)
class Team:
    """One process's view: its rank of `size`, and the device it trains on.

    What asks the others raises TrainingError when they do not answer.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """The one process that writes."""
        return self.rank == 0

    @property
    def hardware(self) -> str:
        """What trains, for the provenance."""
        if self.device.type == "cuda":
            return f"{self.size} x {torch.cuda.get_device_name(self.device)}"
        return f"{self.size} x {processor()}, {torch.get_num_threads()} threads"

    def mean(self, values: Tensor) -> list[float]:
        """The mean over the processes of a vector (n,); the same list on all of them."""
        if self.size > 1:
            with _others_answer():
                dist.all_reduce(values)
        return (values / self.size).tolist()

    def share(self, value: Result) -> Result:
        """The first process's object, on all of them."""
        box = [value]
        if self.size > 1:
            with _others_answer():
                dist.broadcast_object_list(box, src=0)
        return box[0]

    def together(self, action: Callable[[], Result]) -> Result:
        """What `action` returns in this process, if it fails in none; all wait for all.

        Otherwise the first that failed raises its error, and the others leave without a word.
        """
        problem = None
        try:
            result = action()
        except (CodecError, OSError) as error:
            problem = error
        failed = [problem is not None] * self.size
        if self.size > 1:
            with _others_answer():
                dist.all_gather_object(failed, problem is not None)
            # A second time, so that nobody has left while another still reads the first answer.
            with suppress(RuntimeError):
                dist.all_gather_object(list(failed), True)
        if problem is not None and failed.index(True) == self.rank:
            raise problem
        if any(failed):
            raise SystemExit(1)
        return result

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over the processes."""
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            model, device_ids=devices, forward_sync_buffers=False
        )


@contextmanager
def _others_answer() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        line = str(error).splitlines()[0]
        raise TrainingError(f"Another process does not answer: {line}") from error


class Signals:
    """Ctrl-C and SIGTERM ask for a stop after the present step, which the first process of a team
    says at once; a second Ctrl-C interrupts.

    In one of several processes it does not, since the process that started them (which has no
    team, and says nothing) then ends them, and the handlers stay until the process leaves.
    """

    def __init__(self, team: Team | None = None):
        self.speaks = team is not None and team.is_first
        self.member = team is not None and team.size > 1
        self.exit_code = 0

    def received(self) -> bool:
        """Whether one has come."""
        return self.exit_code != 0

    def _note(self, number: int, frame) -> None:
        if self.exit_code and number == signal.SIGINT and not self.member:
            raise KeyboardInterrupt
        if self.speaks and not self.exit_code:
            # Below the bar, if there is one; print may not be interrupted by itself.
            os.write(2, b"\n" * sys.stderr.isatty() + STOPPING)
        self.exit_code = 128 + number

    def __enter__(self) -> Signals:
        numbers = (signal.SIGINT, signal.SIGTERM)
        self.before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *exception) -> None:
        if not self.member:
            for number, handler in self.before.items():
                signal.signal(number, handler)


def devices(gpu_id: str) -> list[torch.device]:
    """'' -> the first GPU, else the CPU; '0 1 2' -> those GPUs; 'cpu cpu' -> two CPU processes."""
    tokens, there = gpu_id.replace(",", " ").split(), torch.cuda.device_count()
    for token in tokens:
        if token != "cpu" and not (token.isascii() and token.isdigit()):
            raise TrainingError(f"--gpu_id takes numbers of GPUs, such as '0 1 2', not {token!r}.")
        if token != "cpu" and int(token) >= there:
            raise TrainingError(
                f"There is no GPU {token}: torch sees {there}. --gpu_id cpu trains on the CPU."
            )
    if "cpu" in tokens and set(tokens) != {"cpu"}:
        raise TrainingError("--gpu_id names GPUs or 'cpu', not both.")
    tokens = tokens or ["0" if torch.cuda.is_available() else "cpu"]
    return [torch.device("cpu") if t == "cpu" else torch.device("cuda", int(t)) for t in tokens]


def launch(work: Callable[[Team], int], gpu_id: str) -> int:
    """Run `work` in as many processes as asked; returns the exit code.

    Under torchrun (WORLD_SIZE is set) this process is one of them; several devices in
    `gpu_id` start one process each; otherwise this process works alone. `work` must be
    picklable (a function of a module, or a partial of one).
    """
    if "WORLD_SIZE" in os.environ:
        _member(work, _torchrun_team(gpu_id), "env://")
    chosen = devices(gpu_id)
    if len(chosen) == 1:
        _use(chosen[0])
        return work(Team(device=chosen[0]))
    # Torch's elastic_launch would take as many lines to make its warnings, its reports of failed
    # processes and the SignalException of its handlers the one sentence that a user reads.
    with tempfile.TemporaryDirectory() as folder:
        # Ctrl-C in the terminal reaches all processes: while they start they ignore it.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            arguments = (work, chosen, f"file://{folder}/meeting")
            context = mp.start_processes(_started, arguments, len(chosen), join=False)
        finally:
            signal.signal(signal.SIGINT, handler)
        return _wait(context)


def _wait(context: mp.ProcessContext) -> int:
    """The exit code of the processes: that of the first to fail, which stops the others."""
    asked = False
    with Signals() as signals:
        try:
            while not context.join(0.2, GRACE_SECONDS):
                if signals.received() and not asked:
                    asked = True
                    for process in context.processes:
                        process.terminate()  # stops after the present step, see Signals
            return 0
        except mp.ProcessExitedException as error:
            if not signals.received():
                return error.exit_code if error.exit_code > 0 else 128 - error.exit_code
            if error.exit_code == -signal.SIGTERM:  # it had not begun, and says nothing
                raise KeyboardInterrupt from None
        finally:
            for process in context.processes:
                process.kill()
    return signals.exit_code


def _torchrun_team(gpu_id: str) -> Team:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", rank))
    chosen = devices(gpu_id or " ".join(map(str, range(torch.cuda.device_count()))))
    if chosen[0].type == "cuda" and local >= len(chosen):
        raise TrainingError(f"torchrun starts more processes than the {len(chosen)} GPUs here.")
    return Team(rank, size, chosen[local % len(chosen)])


def _started(rank: int, work: Callable[[Team], int], chosen: list, meeting: str) -> None:
    _member(work, Team(rank, len(chosen), chosen[rank]), meeting)


def _member(work: Callable[[Team], int], team: Team, meeting: str) -> NoReturn:
    """Work as one of several processes, and end this one.

    It ends at once, since Python's usual way out destroys the process group while its threads
    still run, which aborts; and after a failure the others may not answer to end it together.
    """
    code = 1
    try:
        _use(team.device)
        if team.size > 1:
            backend = "nccl" if team.device.type == "cuda" else "gloo"
            dist.init_process_group(
                backend, init_method=meeting, rank=team.rank, world_size=team.size, timeout=TIMEOUT
            )
        code = work(team)
        if team.size > 1 and code == 0:
            dist.destroy_process_group()
    except Exception:  # a mistake in the code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _use(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
