"""What a new model takes from a trained one: widened transforms, parts that stay as they are."""

import pytest
import torch

import models
from models import checkpoint
from models.training.errors import TrainingError
from models.training.inheritance import hold, take_weights, widened


@pytest.fixture
def narrow():
    """Hyperprior of 8 and 12 channels whose GDN layers mix their channels."""
    torch.manual_seed(0)
    model = models.build("Hyperprior", 8, 12)
    for name, value in model.named_parameters():
        if name.endswith("gamma"):
            value.data += 0.1 * torch.rand_like(value)
    return model


@pytest.fixture
def x():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("N", "M"), [(8, 12), (16, 12), (8, 20), (16, 20)])
@pytest.mark.parametrize("name", ["Factorized", "JointAutoregressive", "Checkerboard"])
def test_widened_transforms_compute_the_same(narrow, x, name, N, M):
    torch.manual_seed(2)
    wide = models.build(name, N, M)
    wide.load_state_dict({**wide.state_dict(), **widened(wide, narrow.state_dict())})
    y = narrow.g_a(x)
    assert torch.allclose(wide.g_a(x)[:, :12], y, atol=1e-6)
    more = torch.cat([y, torch.randn(1, M - 12, *y.shape[2:])], 1)
    assert torch.allclose(wide.g_s(more), narrow.g_s(y), atol=1e-6)


def test_added_channels_are_not_dead(narrow, x):
    wide = models.build("JointAutoregressive", 16, 12)
    wide.load_state_dict({**wide.state_dict(), **widened(wide, narrow.state_dict())})
    wide.g_s(wide.g_a(x)).square().sum().backward()
    assert wide.g_a[2].weight.grad[:8, 8:].abs().min() > 0  # read by a channel that was there
    assert wide.g_s[4].weight.grad[8:, :8].abs().min() > 0


def test_a_wider_parent_gives_nothing(narrow):
    assert widened(models.build("Hyperprior", 6, 12), narrow.state_dict()) == {}
    assert widened(models.build("Hyperprior", 16, 10), narrow.state_dict()) == {}


def test_take_weights_says_what_was_widened(narrow, tmp_path, x):
    checkpoint.save(tmp_path / "p.safetensors", narrow, config={}, provenance={})
    wide = models.build("JointAutoregressive", 16, 12)
    told = take_weights(wide, tmp_path / "p.safetensors")
    assert "Widened: g_a.0.bias, g_a.0.weight" in told
    assert "Left at random: context_prediction.bias" in told and "g_a" not in told.split("Left")[1]
    assert torch.allclose(wide.g_a(x), narrow.g_a(x), atol=1e-2)  # weights in fp16


def test_hold_excludes_parts_from_training(narrow):
    hold(narrow, ["g_a", "g_s"])
    trained = {name for name, value in narrow.named_parameters() if value.requires_grad}
    assert "h_a.0.weight" in trained and not any(name.startswith("g_") for name in trained)


@pytest.mark.parametrize(
    ("names", "why"), [(["g_b"], "has g_a, g_s, h_a"), (None, "nothing is left to train")]
)
def test_hold_refuses(narrow, names, why):
    names = names or [name for name, _ in narrow.named_children()]
    with pytest.raises(TrainingError, match=why):
        hold(narrow, names)
