"""Learning rate over the steps of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

SCHEDULERS = ("plateau", "multistep", "cosine", "constant")
COSINE_END = 0.01  # of the peak rate, at the last step
STEP_FACTOR = 0.5  # of multistep and plateau, as in the report


class Schedule:
    """Sets the rate of every group to its peak times a factor that depends on the step.

    plateau: halved when the validation loss has not fallen by 1e-4 of itself for more than
    `patience` epochs (the rule of torch.optim.lr_scheduler.ReduceLROnPlateau). multistep: halved
    at every epoch of `milestones`. cosine: half a cosine from 1 to 0.01 over `total` steps.
    constant: for a trunk that branches cool down from (Haegele et al. 2024, arXiv 2405.18392).
    All start with a linear warm-up over `warmup` steps.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer, kind: str, *, total: int, steps_per_epoch: int,
        warmup: int = 0, milestones: Sequence[int] = (), patience: int = 10,
    ):  # fmt: skip
        self.optimizer, self.kind = optimizer, kind
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.total, self.steps_per_epoch, self.warmup = total, steps_per_epoch, warmup
        self.milestones, self.patience = tuple(milestones), patience
        self.best, self.bad_epochs, self.reductions = math.inf, 0, 0

    def factor(self, step: int) -> float:
        """Rate of step 0, 1, ... as a part of the peak."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.kind == "constant":
            return warm
        if self.kind == "cosine":
            done = max(0, step - self.warmup) / max(1, self.total - 1 - self.warmup)
            half = (1 + math.cos(math.pi * min(1.0, done))) / 2
            return warm * (COSINE_END + (1 - COSINE_END) * half)
        passed = sum(step >= epoch * self.steps_per_epoch for epoch in self.milestones)
        return warm * STEP_FACTOR ** (passed if self.kind == "multistep" else self.reductions)

    def set(self, step: int) -> None:
        """Set the rates for this step."""
        factor = self.factor(step)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor

    def end_epoch(self, loss: float) -> None:
        """Take note of an epoch's validation loss."""
        if loss < self.best * (1 - 1e-4):
            self.best, self.bad_epochs = loss, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.reductions, self.bad_epochs = self.reductions + 1, 0

    def state_dict(self) -> dict:
        return {name: getattr(self, name) for name in ("best", "bad_epochs", "reductions")}

    def load_state_dict(self, state: dict) -> None:
        for name in ("best", "bad_epochs", "reductions"):
            setattr(self, name, state[name])
