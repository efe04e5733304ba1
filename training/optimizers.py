"""Optimisers that need fewer steps than Adam: Muon and SOAP, with Adam for what they leave out.

Both treat a convolution's weight as a matrix or a three-way array; vectors (biases, GDN's beta)
and the small matrices of the entropy density keep Adam. Everything that a step depends on is in
`state_dict()`, so that a resumed run goes on exactly.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

OPTIMIZERS = ("adam", "muon", "soap")

# The peak learning rates that worked best in short runs; Adam's is the report's.
DEFAULT_LR = {"adam": 1e-4, "muon": 1e-3, "soap": 2e-3}

# Quintic that moves singular values in (0, 1] to about 1 (K. Jordan et al., "Muon: An optimizer
# for hidden layers in neural networks", 2024): steep at 0, so that five steps are enough.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """U f(S) V' for matrix = U S V', with f(S) in about [0.7, 1.2]; (m, n) -> (m, n).

    Newton-Schulz iteration, matrix products only. All its factors are polynomials of the Gram
    matrix X X', so the iteration runs on that small square and meets X twice, not 2 x `steps`
    times: a third of the time for a 5 x 5 convolution. fp32, since the Gram matrix squares the
    condition number. Zero rows and columns (masked taps) stay zero.
    """
    a, b, c = QUINTIC
    x = matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.t() if tall else x  # the smaller Gram matrix
    x = x / (x.norm() + 1e-7)
    gram = x @ x.t()
    product = None
    for k in range(steps):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if k + 1 < steps:
            gram = factor @ gram @ factor
    x = product @ x
    return (x.t() if tall else x).to(matrix.dtype)


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


def adam_update(grad: Tensor, state: dict, betas: tuple[float, float], eps: float) -> Tensor:
    """The step direction of Adam (Kingma and Ba 2015, algorithm 1), like grad; updates `state`."""
    if "step" not in state:
        state["step"] = 0
        state["average"], state["square"] = torch.zeros_like(grad), torch.zeros_like(grad)
    state["step"] += 1
    average, square, (beta1, beta2) = state["average"], state["square"], betas
    average.lerp_(grad, 1 - beta1)
    square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    root = (square.sqrt() / (1 - beta2 ** state["step"]) ** 0.5).add_(eps)
    return average / root / (1 - beta1 ** state["step"])


class _Mixed(torch.optim.Optimizer):
    """Groups with `method` "adam" take Adam's step, the others that of `direction`.

    Options are those of `DEFAULTS` and `ADAM`, for all groups that do not say otherwise.
    """

    ADAM: ClassVar[dict[str, Any]] = {"adam_betas": (0.9, 0.999), "eps": 1e-8}
    DEFAULTS: ClassVar[dict[str, Any]]

    def __init__(self, groups, **options):
        super().__init__(groups, self.ADAM | self.DEFAULTS | options)

    def direction(self, parameter: nn.Parameter, state: dict, group: dict) -> Tensor | None:
        """The step, like parameter, to be multiplied by the learning rate; None for no step."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure=None):
        """One step on every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("This optimiser takes no closure.")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if group["method"] == "adam":
                    update = adam_update(parameter.grad, state, group["adam_betas"], group["eps"])
                else:
                    update = self.direction(parameter, state, group)
                if update is not None:
                    parameter.add_(update, alpha=-group["lr"])


class Muon(_Mixed):
    """Nesterov momentum, orthogonalised, times 0.2 sqrt(larger dimension) of the matrix.

    The factor gives an update the root mean square of a typical Adam step, whatever the shape
    (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2). Groups need `method`
    ("muon" or "adam") and, for Muon, `out_dim` (see `as_matrix`).
    """

    DEFAULTS = {"lr": DEFAULT_LR["muon"], "momentum": 0.95, "method": "muon", "out_dim": 0}

    def direction(self, parameter: nn.Parameter, state: dict, group: dict) -> Tensor:
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        ahead = parameter.grad.lerp(momentum, group["momentum"])
        update = orthogonalize(as_matrix(ahead, group["out_dim"]))
        update *= 0.2 * max(update.shape) ** 0.5
        return from_matrix(update, parameter.shape, group["out_dim"])


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

    def direction(self, parameter: nn.Parameter, state: dict, group: dict) -> Tensor | None:
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
            return None
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
                    bases[k] = torch.linalg.qr(gram @ bases[k])[0]
        return update.reshape(parameter.shape)


def _gram(x: Tensor, mode: int) -> Tensor:
    """(d, d): inner products of the slices of x along `mode`."""
    rows = x.movedim(mode, 0).flatten(1)
    return rows @ rows.t()


def _eigenbasis(gram: Tensor) -> Tensor:
    """Orthonormal eigenvectors, as columns, of a Gram matrix (d, d), of any rank and size.

    In single precision LAPACK gives NaN, or up, where many rows are zero, as those of the dead
    channels of a trained network are: hence double, a trace of 1 and a ridge below fp32's grain.
    """
    scaled = gram.double() / gram.double().trace().clamp(min=1e-300)
    scaled.diagonal().add_(1e-9)
    return torch.linalg.eigh(scaled)[1].to(gram.dtype)


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
