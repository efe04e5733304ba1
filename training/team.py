"""The processes that train together: PyTorch's DistributedDataParallel, or one alone."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.cli import processor
from models.errors import CodecError, TrainingError

STOPPING = b"train.py: stopping after this step.\n"
TIMEOUT = timedelta(hours=1)  # the others wait while the first one validates

Result = TypeVar("Result")


@dataclass(frozen=True)
class Team:
    """One process's view: its rank of `size`, and its device. Rank 0 alone writes."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def hardware(self) -> str:
        """What trains, for the provenance."""
        if self.device.type == "cuda":
            return f"{self.size} x {torch.cuda.get_device_name(self.device)}"
        return f"{self.size} x {processor()}, {torch.get_num_threads()} threads"

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Where this process waits for the others: TrainingError if one of them has died."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or isinstance(error, torch.OutOfMemoryError):
                raise
            line = str(error).splitlines()[0]
            raise TrainingError(f"Another process does not answer: {line}") from error

    def mean(self, values: Tensor) -> list[float]:
        """The mean over the processes of a vector (n,), the same on all; called while `waiting`."""
        if self.size > 1:
            dist.all_reduce(values)
        return (values / self.size).tolist()

    def share(self, value: Result) -> Result:
        """The first process's object, on all of them. TrainingError as `waiting`."""
        box = [value]
        if self.size > 1:
            with self.waiting():
                dist.broadcast_object_list(box, src=0)
        return box[0]

    def together(self, action: Callable[[], Result]) -> Result:
        """What `action` returns in this process, if it fails in none; all wait for all. Otherwise
        the first that failed raises its error, and the others leave without a word."""
        problem = None
        try:
            result = action()
        except (CodecError, OSError) as error:
            problem = error
        failed = [problem is not None] * self.size
        if self.size > 1:
            with self.waiting():
                dist.all_gather_object(failed, problem is not None)
            with suppress(RuntimeError):  # nobody leaves while another still reads the answer
                dist.barrier()
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
def stop_signals(team: Team) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM ask for a stop after the present step, which is said at once; a second
    Ctrl-C interrupts. Gives the list of the exit codes that those which came ask for.

    Not one of several processes: Ctrl-C in a terminal reaches it twice, from there and from the
    process that started it, perhaps while it leaves.
    """
    codes: list[int] = []

    def note(number: int, frame) -> None:
        if codes and number == signal.SIGINT and team.size == 1:
            raise KeyboardInterrupt
        if team.rank == 0 and not codes:
            # Below the bar, if there is one; print may not be interrupted by itself.
            os.write(2, b"\n" * sys.stderr.isatty() + STOPPING)
        codes.append(128 + number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield codes
    finally:
        if team.size == 1:
            for number, handler in before.items():
                signal.signal(number, handler)


def devices(gpu_id: str) -> list[torch.device]:
    """'' -> the first GPU, else the CPU; '0 1 2' -> those GPUs; 'cpu cpu' -> two CPU processes."""
    tokens, there = gpu_id.replace(",", " ").split(), torch.cuda.device_count()
    tokens = tokens or ["0" if there else "cpu"]
    if set(tokens) != {"cpu"} and not set(tokens) <= set(map(str, range(there))):
        raise TrainingError(
            f"--gpu_id takes numbers of GPUs, such as '0 1 2', or cpu, not {gpu_id!r}; torch sees "
            f"{there} here."
        )
    return [torch.device("cpu" if token == "cpu" else f"cuda:{token}") for token in tokens]


def launch(program: list[str], processes: int) -> int:
    """The exit code of `python PROGRAM...` as several processes, started as torchrun does it.

    When one fails, or at a signal, all are asked to stop and killed 30 s later.
    """
    from torch.distributed.elastic.multiprocessing import SignalException  # imports take a second
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher import LaunchConfig, elastic_launch

    here = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "localhost"}
    logging.disable(logging.ERROR)  # its tables of failures: the processes say what went wrong
    try:
        config = LaunchConfig(1, 1, processes, max_restarts=0, monitor_interval=0.2, **here)
        elastic_launch(config, sys.executable)(*program)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0


def join(work: Callable[[Team], int], gpu_id: str) -> int:
    """Work in this process, alone or as one of those that torchrun started; the exit code.

    One of several ends at once, since Python's usual way out destroys the process group while its
    threads still run, which aborts; and after a failure the others may not answer.
    """
    rank, local = (int(os.environ.get(name, 0)) for name in ("RANK", "LOCAL_RANK"))
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size > 1 and not gpu_id:
        gpu_id = " ".join(map(str, range(torch.cuda.device_count())))
    chosen = devices(gpu_id)
    team = Team(rank, size, chosen[local % len(chosen)])
    if team.device.type == "cuda":
        if local >= len(chosen):
            raise TrainingError(f"torchrun starts more processes than the {len(chosen)} GPUs here.")
        torch.cuda.set_device(team.device)
    if size == 1:
        return work(team)
    code = 1
    try:
        dist.init_process_group("nccl" if team.device.type == "cuda" else "gloo", timeout=TIMEOUT)
        code = work(team)
        if code == 0:
            dist.destroy_process_group()
    except Exception:  # a mistake in the code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
