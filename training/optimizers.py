"""Muon, which needs fewer steps than Adam, with Adam for what it leaves out; learning rates.

Muon treats the weight of a convolution as a matrix; vectors (biases, GDN's beta) and the small
matrices of the entropy density keep Adam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.settings import Settings

COSINE_END = 0.01  # of the peak rate, at the last step
STEP_FACTOR = 0.5  # of multistep and plateau, as in the report
PATIENCE = 10  # epochs without progress, of plateau

# Quintic that moves singular values in (0, 1] to about 1 (K. Jordan et al., "Muon: An optimizer
# for hidden layers in neural networks", 2024): steep at 0, so that five steps are enough.
QUINTIC = (3.4445, -4.7750, 2.0315)
STEPS = 5


def orthogonalize(matrices: Sequence[Tensor]) -> list[Tensor]:
    """U f(S) V' for each matrix = U S V', with f(S) in about [0.7, 1.2]; (m, n) -> (m, n).

    Newton-Schulz iteration, matrix products only. All its factors are polynomials of the Gram
    matrix X X', so it runs on that small square and meets X twice, not ten times: a third of the
    time for a 5 x 5 convolution. Grams of one size go through it together, since a GPU spends more
    time on being told what to do than on a product of this size. fp32, since the Gram matrix
    squares the condition number. Zero rows and columns (masked taps) stay zero.
    """
    tall = [m.shape[0] > m.shape[1] for m in matrices]
    wide = [(m.t() if t else m).float() for m, t in zip(matrices, tall, strict=True)]
    norms = torch._foreach_add(torch._foreach_norm(wide), 1e-7)
    wide = torch._foreach_div(wide, norms)
    a, b, c = QUINTIC
    done: dict[int, Tensor] = {}
    for size in dict.fromkeys(map(len, wide)):
        indices = [i for i, x in enumerate(wide) if len(x) == size]
        grams = torch.stack([wide[i] @ wide[i].t() for i in indices])
        product = grams  # soon what each X is to be multiplied by, (B, m, m)
        for k in range(STEPS):
            factor = torch.baddbmm(grams, grams, grams, beta=b, alpha=c)
            factor.diagonal(dim1=1, dim2=2).add_(a)
            product = factor @ product if k else factor
            if k + 1 < STEPS:
                grams = factor @ grams @ factor
        for i, left in zip(indices, product, strict=True):
            x = left @ wide[i]
            done[i] = (x.t() if tall[i] else x).to(matrices[i].dtype)
    return [done[i] for i in range(len(matrices))]


class Muon(torch.optim.Adam):
    """Nesterov momentum, orthogonalised, times 0.2 sqrt(larger dimension) of the matrix.

    The factor gives an update the root mean square of a typical Adam step, whatever the shape
    (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2). A weight is a matrix
    (outputs, inputs * k * k). Groups that have `out_dim`, the dimension of their outputs (0 for
    Conv2d, 1 for ConvTranspose2d), are Muon's, the others are left to Adam.
    """

    momentum = 0.95

    @torch.no_grad()
    def step(self):
        """One step on every parameter that has a gradient; Muon's have none afterwards."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters or "out_dim" not in group:
                continue
            for p in parameters:
                if p not in self.state:  # Adam looks for "step" in whatever has a state
                    self.state[p] = {"momentum": torch.zeros_like(p), "step": torch.zeros(())}
            grads = [p.grad for p in parameters]
            momenta = [self.state[p]["momentum"] for p in parameters]
            torch._foreach_lerp_(momenta, grads, 1 - self.momentum)
            out_dim, ahead = group["out_dim"], torch._foreach_lerp(grads, momenta, self.momentum)
            ahead = [x.movedim(out_dim, 0) for x in ahead]
            moves = orthogonalize([x.flatten(1) for x in ahead])
            torch._foreach_mul_(moves, [0.2 * max(move.shape) ** 0.5 for move in moves])
            moves = [m.view(x.shape).movedim(0, out_dim) for m, x in zip(moves, ahead, strict=True)]
            torch._foreach_add_(parameters, moves, alpha=-group["lr"])
            for p in parameters:
                p.grad = None  # so that Adam passes it by
        super().step()


def build_optimizer(
    name: str, model: nn.Module, lr: float, rest_lr: float | None = None
) -> torch.optim.Optimizer:
    """The optimiser `name`, "adam" or "muon", for all parameters of a model that need gradients:
    weights of Conv2d, of ConvTranspose2d, GDN's square matrices, the others, in this order.

    lr: peak rate. rest_lr: rate of Adam on what Muon leaves out, twice `lr` where None.
    """
    plain, transposed = (
        [m.weight for m in model.modules() if isinstance(m, kind) and m.weight.requires_grad]
        for kind in (nn.Conv2d, nn.ConvTranspose2d)
    )
    taken = {*plain, *transposed}
    rest = [p for p in model.parameters() if p.requires_grad and p not in taken]
    rest.sort(key=lambda p: p.dim() != 2)
    if name == "adam":
        return torch.optim.Adam(plain + transposed + rest, lr=lr)
    groups: list[dict] = [
        {"params": plain, "out_dim": 0},
        {"params": transposed, "out_dim": 1},
        {"params": rest, "lr": 2 * lr if rest_lr is None else rest_lr},
    ]
    return Muon([group for group in groups if group["params"]], lr=lr)


class Schedule:
    """Sets the rate of every group to its peak times a factor that depends on the step.

    plateau: halved when the validation loss has not fallen by 1e-4 of itself for more than 10
    epochs (the rule of torch.optim.lr_scheduler.ReduceLROnPlateau). multistep: halved at every
    epoch of `milestones`. cosine: half a cosine from 1 to 0.01 over all steps. constant: for a
    trunk that branches cool down from (Haegele et al. 2024, arXiv 2405.18392). All start with a
    linear warm-up. `settings`: completed.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, settings: Settings):
        self.optimizer, self.settings = optimizer, settings
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.best, self.bad_epochs, self.reductions = math.inf, 0, 0

    def factor(self, step: int) -> float:
        """Rate of step 0, 1, ... as a part of the peak."""
        s = self.settings
        warm = min(1.0, (step + 1) / s.warmup) if s.warmup else 1.0
        if s.scheduler == "constant":
            return warm
        if s.scheduler == "cosine":
            done = max(0, step - s.warmup) / max(1, s.total - 1 - s.warmup)
            half = (1 + math.cos(math.pi * min(1.0, done))) / 2
            return warm * (COSINE_END + (1 - COSINE_END) * half)
        passed = sum(step >= epoch * s.steps_per_epoch for epoch in s.milestones)
        return warm * STEP_FACTOR ** (passed if s.scheduler == "multistep" else self.reductions)

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
        if self.bad_epochs > PATIENCE:
            self.reductions, self.bad_epochs = self.reductions + 1, 0

    def state_dict(self) -> dict:
        return {name: getattr(self, name) for name in ("best", "bad_epochs", "reductions")}

    def load_state_dict(self, state: dict) -> None:
        vars(self).update(state)
