"""Muon and the schedules against closed forms and against PyTorch's own."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import models
from tests.training.runs import settings
from training.optimizers import (
    COSINE_END,
    QUINTIC,
    Muon,
    Schedule,
    build_optimizer,
    orthogonalize,
)
from training.settings import DEFAULT_LR


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 4, 3))


def descend(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> list:
    losses = []
    for step in range(first, first + steps):
        torch.manual_seed(step)
        x = torch.randn(4, 3, 8, 8)
        loss = (model(x) - x.mean()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("shape", [(48, 48), (32, 300), (300, 32)])
def test_orthogonalize_is_newton_schulz_at_any_scale(shape):
    """Against the iteration as Jordan writes it, in double precision; with tiny singular values."""
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u @ torch.diag(torch.logspace(0, -6, len(v))) @ v
    expected = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = expected @ expected.t()
        expected = QUINTIC[0] * expected + (QUINTIC[1] * gram + QUINTIC[2] * gram @ gram) @ expected
    for scale in (1, 1e4):
        result = orthogonalize([matrix * scale])[0].double()
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-3)
    assert (orthogonalize([torch.zeros(shape)])[0] == 0).all()


def test_orthogonalize_takes_matrices_of_all_shapes_together():
    torch.manual_seed(0)
    matrices = [torch.randn(shape) for shape in ((8, 20), (3, 4), (20, 8), (8, 9), (4, 4))]
    together = orthogonalize(matrices)
    for matrix, result in zip(matrices, together, strict=True):
        torch.testing.assert_close(result, orthogonalize([matrix])[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("layer", "out_dim", "size"), [(0, 0, 27), (2, 1, 54)])
def test_first_muon_step_is_the_scaled_orthogonal_factor(layer, out_dim, size):
    """Of the gradient as a matrix with a row for each output channel."""
    model = network()
    before = copy.deepcopy(model)
    descend(model, build_optimizer("muon", model, lr=0.01), 1)
    moved = (before[layer].weight - model[layer].weight).detach() / 0.01
    matrix = moved.movedim(out_dim, 0).flatten(1)  # (6, 27) and (4, 54)
    values = torch.linalg.svdvals(matrix / (0.2 * math.sqrt(size)))
    assert values.min() > 0.6 and values.max() < 1.25


def test_groups_that_are_not_muons_are_adams():
    ours = network()
    theirs = copy.deepcopy(ours)
    a = descend(ours, Muon([{"params": list(ours.parameters())}], lr=0.01), 15)
    assert a == descend(theirs, torch.optim.Adam(theirs.parameters(), lr=0.01), 15)


@pytest.mark.parametrize("name", DEFAULT_LR)
def test_every_parameter_that_trains_is_in_one_group(name):
    model = models.build("JointAutoregressiveHierarchicalPriors", 8, 12)
    optimizer = build_optimizer(name, model, lr=0.01)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    plain, transposed, rest = parameters[:12], parameters[12:18], parameters[18:]
    assert all(p.dim() == 4 for p in plain + transposed) and rest[0].dim() == 2
    assert {p.shape[1] for p in transposed} == {3, 8, 12, 18}
    assert [p.dim() for p in rest[:7]] == [2] * 6 + [1]  # GDN's gammas, then vectors


@pytest.mark.parametrize("name", DEFAULT_LR)
def test_state_round_trip_is_exact(name, tmp_path):
    torch.manual_seed(0)
    model = network().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(name, model, lr=0.01)
    descend(model, optimizer, 5)
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    expected = descend(model, optimizer, 5, first=5)

    torch.manual_seed(7)
    resumed = network().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(name, resumed, lr=0.01)
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.load_state_dict(weights)
    optimizer.load_state_dict(state)
    assert descend(resumed, optimizer, 5, first=5) == expected


def test_muon_leaves_masked_taps_alone():
    """Hidden taps have no gradient: no update may leak into them."""
    model = models.layers.MaskedConv2d(4, 6, models.layers.checkerboard_mask())
    before = model.weight.detach().clone()
    optimizer = build_optimizer("muon", model, lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(1, 4, 8, 8)).square().sum().backward()
        optimizer.step()
    hidden = model.mask.expand_as(before) == 0
    moved = (model.weight - before).abs()
    assert moved[~hidden].min() > 0
    assert moved[hidden].max() == 0


def schedule(kind: str, epoch: int, steps_per_epoch: int, *extra: str) -> Schedule:
    """Of a rate of 2."""
    sizes = ("--epoch", str(epoch), "--steps_per_epoch", str(steps_per_epoch))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    return Schedule(optimizer, settings("--scheduler", kind, *sizes, "--warmup", "0", *extra))


def rates(*words) -> list[float]:
    """Of every step."""
    made, seen = schedule(*words), []
    for step in range(made.settings.total):
        made.set(step)
        seen.append(made.optimizer.param_groups[0]["lr"])
    return seen


def test_cosine_warms_up_and_ends_near_zero():
    seen = rates("cosine", 1, 101, "--warmup", "10")
    assert seen[0] == pytest.approx(0.2) and seen[9] == pytest.approx(2.0)
    assert seen[-1] == pytest.approx(2.0 * COSINE_END)
    assert seen[55] == pytest.approx(2.0 * (1 + COSINE_END) / 2)
    assert all(a >= b for a, b in zip(seen[10:], seen[11:], strict=False))


def test_multistep_falls_at_the_epochs_given():
    seen = rates("multistep", 10, 10, "--milestones", "4", "9")
    assert seen[39] == 2.0 and seen[40] == pytest.approx(1.0)
    assert seen[89] == pytest.approx(1.0) and seen[90] == pytest.approx(0.5)


def test_plateau_follows_torch():
    ours = schedule("plateau", 400, 1)
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, factor=0.5, patience=10)
    losses = [2.0, 1.5, 1.5, 1.49999, *[1.6] * 9, 1.4, *[1.41] * 25]
    for epoch, loss in enumerate(losses):
        ours.end_epoch(loss)
        reference.step(loss)
        ours.set(epoch)
        rate = ours.optimizer.param_groups[0]["lr"]
        assert rate == pytest.approx(theirs.param_groups[0]["lr"])
    again = schedule("plateau", 400, 1)
    again.load_state_dict(ours.state_dict())
    assert again.factor(0) == ours.factor(0) < 0.3
