"""The processes that train together: PyTorch's DistributedDataParallel, or one alone."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from models.errors import TrainingError

GRACE_SECONDS = 60  # for the others to stop when one process has failed
TIMEOUT = timedelta(hours=1)  # the others wait while the first one validates


@dataclass(frozen=True)
class Team:
    """One process's view: its rank of `size`, and the device it trains on."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """The one process that writes."""
        return self.rank == 0

    def mean(self, values: Tensor) -> list[float]:
        """The mean over the processes of a vector (n,); the same list on all of them."""
        if self.size > 1:
            dist.all_reduce(values)
            values = values / self.size
        return values.tolist()

    def share(self, value):
        """The first process's object, on all of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over the processes."""
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            model, device_ids=devices, broadcast_buffers=False
        )


def devices(gpu_id: str) -> list[torch.device]:
    """'' -> the first GPU, else the CPU; '0 1 2' -> those GPUs; 'cpu cpu' -> two CPU processes."""
    tokens = gpu_id.replace(",", " ").split()
    if not tokens:
        return [torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")]
    found = []
    for token in tokens:
        if token == "cpu":
            found.append(torch.device("cpu"))
        elif not token.isdigit():
            raise TrainingError(f"--gpu_id takes numbers of GPUs, such as '0 1 2', not {token!r}.")
        elif int(token) >= torch.cuda.device_count():
            there = torch.cuda.device_count()
            raise TrainingError(
                f"There is no GPU {token}: torch sees {there}. --gpu_id cpu trains on the CPU."
            )
        else:
            found.append(torch.device("cuda", int(token)))
    if len({device.type for device in found}) > 1:
        raise TrainingError("--gpu_id names GPUs or 'cpu', not both.")
    return found


def launch(work: Callable[[Team], int], gpu_id: str) -> int:
    """Run `work` in as many processes as asked; returns the exit code.

    Under torchrun (WORLD_SIZE is set) this process is one of them; several devices in
    `gpu_id` start one process each; otherwise this process works alone. `work` must be
    picklable (a function of a module, or a partial of one).
    """
    if "WORLD_SIZE" in os.environ:
        return _join_torchrun(work, gpu_id)
    chosen = devices(gpu_id)
    if len(chosen) == 1:
        _use(chosen[0])
        return work(Team(device=chosen[0]))
    with tempfile.TemporaryDirectory() as folder:
        arguments = (work, chosen, f"file://{folder}/meeting")
        context = mp.start_processes(_spawned, arguments, len(chosen), join=False, daemon=False)
        return _wait(context.processes)


def _join_torchrun(work: Callable[[Team], int], gpu_id: str) -> int:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", rank))
    if gpu_id == "" and torch.cuda.is_available():
        gpu_id = " ".join(map(str, range(torch.cuda.device_count())))
    chosen = devices(gpu_id)
    if chosen[0].type == "cuda" and local >= len(chosen):
        raise TrainingError(f"torchrun starts more processes than the {len(chosen)} GPUs here.")
    return _work_together(work, Team(rank, size, chosen[local % len(chosen)]), "env://")


def _spawned(rank: int, work: Callable[[Team], int], chosen: list, meeting: str) -> None:
    raise SystemExit(_work_together(work, Team(rank, len(chosen), chosen[rank]), meeting))


def _work_together(work: Callable[[Team], int], team: Team, meeting: str) -> int:
    _use(team.device)
    if team.size > 1:
        backend = "nccl" if team.device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend, init_method=meeting, rank=team.rank, world_size=team.size, timeout=TIMEOUT
        )
    code = work(team)
    # After a failure the others may not answer any more: leave without asking them.
    if team.size > 1 and code == 0:
        dist.destroy_process_group()
    return code


def _use(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _wait(processes: list) -> int:
    """The exit code of the processes started here; stops the others when one has failed."""
    deadline = None
    while any(process.is_alive() for process in processes):
        try:
            for process in processes:
                process.join(0.2)
        except KeyboardInterrupt:  # they got the signal too, and save their state
            continue
        if deadline is None and any(process.exitcode for process in processes):
            deadline = time.monotonic() + GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            for process in processes:
                process.kill()
    codes = [process.exitcode for process in processes if process.exitcode]
    return max((code if code > 0 else 128 - code for code in codes), default=0)
