"""Optimisers that need fewer steps than Adam: Muon and SOAP, with Adam for what they leave out.

Both treat a convolution's weight as a matrix or a three-way array; vectors (biases, GDN's beta)
and the small matrices of the entropy density keep Adam. Everything that a step depends on is in
`state_dict()`, so that a resumed run goes on exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

OPTIMIZERS = ("adam", "muon", "soap")

# The peak learning rates that worked best in short runs; Adam's is the report's.
DEFAULT_LR = {"adam": 1e-4, "muon": 1e-3, "soap": 2e-3}

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
    by_size: dict[int, list[int]] = {}
    for i, x in enumerate(wide):
        by_size.setdefault(len(x), []).append(i)
    done: dict[int, Tensor] = {}
    for indices in by_size.values():
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


def as_matrix(weight: Tensor, out_dim: int) -> Tensor:
    """A convolution weight as (outputs, inputs * k * k).

    `out_dim` is 0 for Conv2d, whose weight is (outputs, inputs, k, k), and 1 for
    ConvTranspose2d, whose weight is (inputs, outputs, k, k).
    """
    return weight.movedim(out_dim, 0).flatten(1)


def from_matrix(matrix: Tensor, shape: torch.Size, out_dim: int) -> Tensor:
    """The inverse of `as_matrix` for a weight of `shape`."""
    outputs, inputs = shape[out_dim], shape[1 - out_dim]
    return matrix.view(outputs, inputs, *shape[2:]).movedim(0, out_dim)


def adam_updates(
    grads: list[Tensor], states: list[dict], betas: tuple[float, float], eps: float
) -> list[Tensor]:
    """The steps of Adam (Kingma and Ba 2015, algorithm 1), like grads; updates `states`."""
    for grad, state in zip(grads, states, strict=True):
        if "step" not in state:
            state["step"] = 0
            state["average"], state["square"] = torch.zeros_like(grad), torch.zeros_like(grad)
        state["step"] += 1
    averages, squares = [s["average"] for s in states], [s["square"] for s in states]
    beta1, beta2 = betas
    torch._foreach_lerp_(averages, grads, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
    roots = torch._foreach_sqrt(squares)
    torch._foreach_div_(roots, [(1 - beta2 ** s["step"]) ** 0.5 for s in states])
    torch._foreach_add_(roots, eps)
    updates = torch._foreach_div(averages, roots)
    torch._foreach_div_(updates, [1 - beta1 ** s["step"] for s in states])
    return updates


class _Mixed(torch.optim.Optimizer):
    """Groups with `method` "adam" take Adam's step, the others that of `direction`.

    Options are those of `DEFAULTS` and `ADAM`, for all groups that do not say otherwise.
    """

    ADAM: ClassVar[dict[str, Any]] = {"adam_betas": (0.9, 0.999), "eps": 1e-8}
    DEFAULTS: ClassVar[dict[str, Any]]

    def __init__(self, groups, **options):
        super().__init__(groups, self.ADAM | self.DEFAULTS | options)

    def directions(self, parameters: list, states: list[dict], group: dict) -> list[Tensor]:
        """The steps, like parameters, to be multiplied by the learning rate."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure=None):
        """One step on every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("This optimiser takes no closure.")
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            states = [self.state[p] for p in parameters]
            if group["method"] == "adam":
                grads = [p.grad for p in parameters]
                updates = adam_updates(grads, states, group["adam_betas"], group["eps"])
            else:
                updates = self.directions(parameters, states, group)
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])


class Muon(_Mixed):
    """Nesterov momentum, orthogonalised, times 0.2 sqrt(larger dimension) of the matrix.

    The factor gives an update the root mean square of a typical Adam step, whatever the shape
    (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2). Groups need `method`
    ("muon" or "adam") and, for Muon, `out_dim` (see `as_matrix`).
    """

    DEFAULTS = {"lr": DEFAULT_LR["muon"], "momentum": 0.95, "method": "muon", "out_dim": 0}

    def directions(self, parameters: list, states: list[dict], group: dict) -> list[Tensor]:
        for parameter, state in zip(parameters, states, strict=True):
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
        grads, momenta = [p.grad for p in parameters], [s["momentum"] for s in states]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        ahead = torch._foreach_lerp(grads, momenta, group["momentum"])
        updates = orthogonalize([as_matrix(x, group["out_dim"]) for x in ahead])
        torch._foreach_mul_(updates, [0.2 * max(u.shape) ** 0.5 for u in updates])
        return [
            from_matrix(u, p.shape, group["out_dim"])
            for u, p in zip(updates, parameters, strict=True)
        ]


class SOAP(_Mixed):
    """Adam in the eigenbasis of Shampoo's preconditioner.

    N. Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam" (arXiv 2409.11321),
    algorithm 3, for arrays of any number of modes: a convolution weight counts as
    (d0, d1, k * k) and every mode of at most `max_dim` entries has a basis of its own; larger
    modes are left as they are (section 7.1, "one-sided"). The first step only initialises.
    """

    DEFAULTS = {
        "lr": DEFAULT_LR["soap"],
        "betas": (0.95, 0.95),
        "frequency": 10,
        "max_dim": 1024,
        "method": "soap",
    }

    def directions(self, parameters: list, states: list[dict], group: dict) -> list[Tensor]:
        return [self.direction(p, s, group) for p, s in zip(parameters, states, strict=True)]

    def direction(self, parameter: nn.Parameter, state: dict, group: dict) -> Tensor:
        """The step of one parameter; zero at first."""
        grad = parameter.grad.flatten(2) if parameter.dim() > 2 else parameter.grad
        beta1, beta2 = group["betas"]
        if "step" not in state:
            state["step"] = 0
            state["average"], state["square"] = torch.zeros_like(grad), torch.zeros_like(grad)
            state["grams"] = [
                _gram(grad, k) if 1 < d <= group["max_dim"] else None
                for k, d in enumerate(grad.shape)
            ]
            state["bases"] = [g if g is None else _eigenbasis(g) for g in state["grams"]]
            return torch.zeros_like(parameter)
        state["step"] += 1
        step, bases = state["step"], state["bases"]
        average = state["average"].lerp_(grad, 1 - beta1)
        rotated = _rotate(grad, bases, back=False)
        square = state["square"].mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
        root = (square.sqrt() / (1 - beta2**step) ** 0.5).add_(group["eps"])
        update = _rotate(average, bases, back=False) / root / (1 - beta1**step)
        update = _rotate(update, bases, back=True)
        for k, gram in enumerate(state["grams"]):
            if gram is not None:
                gram.lerp_(_gram(grad, k), 1 - beta2)
                if step % group["frequency"] == 0:  # one step of orthogonal iteration
                    # which sorts the directions, largest first: their squares go with them
                    power = gram @ bases[k]
                    order = (bases[k] * power).sum(0).argsort(descending=True)
                    bases[k] = torch.linalg.qr(power[:, order])[0]
                    square = state["square"] = square.index_select(k, order)
        return update.reshape(parameter.shape)


def _gram(x: Tensor, mode: int) -> Tensor:
    """(d, d): inner products of the slices of x along `mode`."""
    rows = x.movedim(mode, 0).flatten(1)
    return rows @ rows.t()


def _eigenbasis(gram: Tensor) -> Tensor:
    """Orthonormal eigenvectors, as columns, of a Gram matrix (d, d) of any rank and size, the
    largest eigenvalue first.

    In single precision LAPACK gives NaN, or up, where many rows are zero, as those of the dead
    channels of a trained network are: hence double, a trace of 1 and a ridge below fp32's grain.
    """
    scaled = gram.double() / gram.double().trace().clamp(min=1e-300)
    scaled.diagonal().add_(1e-9)
    return torch.linalg.eigh(scaled)[1].flip(1).to(gram.dtype)


def _rotate(x: Tensor, bases: list[Tensor | None], back: bool) -> Tensor:
    """x with every mode multiplied by its basis (transposed), or back; like x.

    Each product takes the first mode away and appends the rotated one; after all modes the
    order is the old one.
    """
    for basis in bases:
        if basis is None:
            x = x.movedim(0, -1)
        else:
            x = torch.tensordot(x, basis, dims=([0], [1 if back else 0]))
    return x


def parameter_groups(model: nn.Module) -> tuple[list, list, list, list]:
    """(Conv2d weights, ConvTranspose2d weights, square matrices, the rest) that need gradients."""
    plain: list[nn.Parameter] = []
    transposed: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    kinds: dict[nn.Parameter, list[nn.Parameter]] = {}
    for module in model.modules():
        if isinstance(module, nn.ConvTranspose2d):
            kinds[module.weight] = transposed
        elif isinstance(module, nn.Conv2d):
            kinds[module.weight] = plain
    for parameter in model.parameters():
        if parameter.requires_grad:
            other = matrices if parameter.dim() == 2 else rest
            kinds.get(parameter, other).append(parameter)
    return plain, transposed, matrices, rest


def build_optimizer(
    name: str, model: nn.Module, lr: float | None = None, rest_lr: float | None = None
) -> torch.optim.Optimizer:
    """The optimiser `name` for all trainable parameters of a model.

    lr: peak rate, `DEFAULT_LR` where None. rest_lr: rate of Adam on what Muon and SOAP leave
    out, twice `lr` for Muon and `lr` for SOAP where None. ValueError for an unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"Unknown optimizer {name!r}; choose one of: {', '.join(OPTIMIZERS)}.")
    lr = DEFAULT_LR[name] if lr is None else lr
    plain, transposed, matrices, rest = parameter_groups(model)
    if name == "adam":
        return torch.optim.Adam(plain + transposed + matrices + rest, lr=lr)
    if name == "muon":
        rest_lr = 2 * lr if rest_lr is None else rest_lr
        return Muon(
            _present(
                {"params": plain, "method": "muon", "out_dim": 0},
                {"params": transposed, "method": "muon", "out_dim": 1},
                {"params": matrices + rest, "method": "adam", "lr": rest_lr},
            ),
            lr=lr,
        )
    rest_lr = lr if rest_lr is None else rest_lr
    return SOAP(
        _present(
            {"params": plain + transposed + matrices, "method": "soap"},
            {"params": rest, "method": "adam", "lr": rest_lr},
        ),
        lr=lr,
    )


def _present(*groups: dict[str, Any]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]
