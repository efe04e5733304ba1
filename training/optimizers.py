"""Muon, which needs fewer steps than Adam, with Adam for what it leaves out.

Muon treats the weight of a convolution as a matrix; vectors (biases, GDN's beta) and the small
matrices of the entropy density keep Adam. Everything that a step depends on is in `state_dict()`,
so that a resumed run goes on exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# With the peak learning rates: Adam's is the report's, Muon's worked best in short runs.
DEFAULT_LR = {"adam": 1e-4, "muon": 1e-3}
OPTIMIZERS = tuple(DEFAULT_LR)

# Quintic that moves singular values in (0, 1] to about 1 (K. Jordan et al., "Muon: An optimizer
# for hidden layers in neural networks", 2024): steep at 0, so that five steps are enough.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Sequence[Tensor], steps: int = 5) -> list[Tensor]:
    """U f(S) V' for each matrix = U S V', with f(S) in about [0.7, 1.2]; (m, n) -> (m, n).

    Newton-Schulz iteration, matrix products only. All its factors are polynomials of the Gram
    matrix X X', so the iteration runs on that small square and meets X twice, not 2 x `steps`
    times: a third of the time for a 5 x 5 convolution. Grams of one size go through it together,
    since a GPU spends more time on being told what to do than on a product of this size. fp32,
    since the Gram matrix squares the condition number. Zero rows and columns (masked taps) stay
    zero.
    """
    tall = [m.shape[0] > m.shape[1] for m in matrices]
    wide = [(m.t() if t else m).float() for m, t in zip(matrices, tall, strict=True)]
    norms = torch._foreach_add(torch._foreach_norm(wide), 1e-7)
    wide = torch._foreach_div(wide, norms)
    done: dict[int, Tensor] = {}
    for size in dict.fromkeys(map(len, wide)):
        indices = [i for i, x in enumerate(wide) if len(x) == size]
        grams = torch.stack([wide[i] @ wide[i].t() for i in indices])
        for i, product in zip(indices, _newton_schulz(grams, steps), strict=True):
            x = product @ wide[i]
            done[i] = (x.t() if tall[i] else x).to(matrices[i].dtype)
    return [done[i] for i in range(len(matrices))]


def _newton_schulz(grams: Tensor, steps: int) -> Tensor:
    """What X is to be multiplied by, for each X of Gram matrix X X', (B, m, m) -> (B, m, m)."""
    a, b, c = QUINTIC
    product = None
    for k in range(steps):
        factor = torch.baddbmm(grams, grams, grams, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if k + 1 < steps:
            grams = factor @ grams @ factor
    return product


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
            if parameters and "out_dim" in group:
                self._orthogonal_step(parameters, group["lr"], group["out_dim"])
        super().step()

    def _orthogonal_step(self, parameters: list[nn.Parameter], lr: float, out_dim: int) -> None:
        for p in parameters:
            if p not in self.state:  # Adam looks for "step" in whatever has a state
                self.state[p] = {"momentum": torch.zeros_like(p), "step": torch.zeros(())}
        grads = [p.grad for p in parameters]
        momenta = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(momenta, grads, 1 - self.momentum)
        ahead = torch._foreach_lerp(grads, momenta, self.momentum)
        ahead = [x.movedim(out_dim, 0) for x in ahead]
        updates = orthogonalize([x.flatten(1) for x in ahead])
        torch._foreach_mul_(updates, [0.2 * max(u.shape) ** 0.5 for u in updates])
        moves = [u.view(x.shape).movedim(0, out_dim) for u, x in zip(updates, ahead, strict=True)]
        torch._foreach_add_(parameters, moves, alpha=-lr)
        for p in parameters:
            p.grad = None  # so that Adam passes it by


def parameter_groups(model: nn.Module) -> tuple[list, list, list]:
    """(Conv2d weights, ConvTranspose2d weights, the rest) that need gradients.

    In the rest the square matrices of GDN come before all else.
    """
    kinds = {
        module.weight: type(module)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    transposed = [p for p in trained if issubclass(kinds.get(p, object), nn.ConvTranspose2d)]
    plain = [p for p in trained if issubclass(kinds.get(p, object), nn.Conv2d)]
    rest = [p for p in trained if p not in kinds]
    return plain, transposed, sorted(rest, key=lambda p: p.dim() != 2)


def build_optimizer(
    name: str, model: nn.Module, lr: float, rest_lr: float | None = None
) -> torch.optim.Optimizer:
    """The optimiser `name`, "adam" or "muon", for all trainable parameters of a model.

    lr: peak rate. rest_lr: rate of Adam on what Muon leaves out, twice `lr` where None.
    """
    plain, transposed, rest = parameter_groups(model)
    if name == "adam":
        return torch.optim.Adam(plain + transposed + rest, lr=lr)
    groups: list[dict] = [
        {"params": plain, "out_dim": 0},
        {"params": transposed, "out_dim": 1},
        {"params": rest, "lr": 2 * lr if rest_lr is None else rest_lr},
    ]
    return Muon([group for group in groups if group["params"]], lr=lr)
