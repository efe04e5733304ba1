"""What a new model takes from a trained one: widened transforms, parts that stay as they are."""

import pytest
import torch

import models
from models import checkpoint
from models.errors import CheckpointError, TrainingError
from models.presets import OperatingPoint
from tests.helpers import NAMES, latents_of, make
from training.inheritance import (
    fix,
    latent_factor,
    narrowed,
    rescaled,
    take_weights,
    widened,
)


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
@pytest.mark.parametrize("name", ["Factorized", "Checkerboard"])
def test_widened_transforms_compute_the_same(narrow, x, name, N, M):
    torch.manual_seed(2)
    wide = models.build(name, N, M)
    wide.load_state_dict({**wide.state_dict(), **widened(wide, narrow.state_dict())})
    y = narrow.g_a(x)
    assert torch.allclose(wide.g_a(x)[:, :12], y, atol=1e-6)
    more = torch.cat([y, torch.randn(1, M - 12, *y.shape[2:])], 1)
    assert torch.allclose(wide.g_s(more), narrow.g_s(y), atol=1e-6)
    # The channels that are new are not dead.
    if N > 8:
        wide.g_s(wide.g_a(x)).square().sum().backward()
        assert wide.g_a[2].weight.grad[:8, 8:].abs().min() > 0  # read by one that was there
        assert wide.g_s[4].weight.grad[8:, :8].abs().min() > 0


def test_widened_hyperprior_predicts_the_same(narrow, x):
    wide = models.build("Hyperprior", 16, 20)
    wide.load_state_dict({**wide.state_dict(), **widened(wide, narrow.state_dict())})
    z = narrow.analysis(x)["z"]
    assert torch.allclose(wide.analysis(x)["z"][:, :8], z, atol=1e-6)
    more = torch.cat([z, torch.randn(1, 8, *z.shape[2:])], 1)
    assert torch.allclose(wide.h_s(more)[:, :12], narrow.h_s(z), atol=1e-6)
    _, likelihoods = wide.entropy_bottleneck(more, "round")
    assert torch.allclose(likelihoods[:, :8], narrow.entropy_bottleneck(z, "round")[1], atol=1e-6)


def test_take_weights_says_what_was_widened(narrow, tmp_path, x):
    checkpoint.save(tmp_path / "p.safetensors", narrow, config={}, provenance={})
    wide = models.build("JointAutoregressive", 16, 12)
    told = take_weights(wide, tmp_path / "p.safetensors")
    assert "Widened: g_a.0.bias, g_a.0.weight" in told
    assert "Left as they were: context_prediction.bias" in told
    assert "g_a" not in told.split("Left")[1]
    assert torch.allclose(wide.g_a(x), narrow.g_a(x), atol=1e-2)  # weights in fp16


def test_narrowed_transforms_and_prior_are_those_of_the_strongest_channels(narrow, tmp_path, x):
    power = narrow.g_a(x).square().mean((0, 2, 3))
    chosen = power.argsort(descending=True)[:5].sort().values
    for tensors, M in ((narrow.state_dict(), 12), ({"g_a.6.bias": torch.zeros(12)}, 5)):
        assert narrowed(tensors, M, lambda: x) is tensors  # no more channels, another g_a

    small = models.build("Hyperprior", 8, 5)
    small.load_state_dict(narrowed(narrow.state_dict(), 5, lambda: x))
    y = narrow.g_a(x)[:, chosen]
    padded = torch.zeros_like(narrow.g_a(x)).index_copy_(1, chosen, y)
    assert torch.allclose(small.g_a(x), y, atol=1e-6)
    assert torch.allclose(small.g_s(y), narrow.g_s(padded), atol=1e-6)
    z = narrow.h_a(padded.abs())
    assert torch.allclose(small.h_a(y.abs()), z, atol=1e-6)
    assert torch.allclose(small.h_s(z), narrow.h_s(z)[:, chosen], atol=1e-6)

    path = tmp_path / "p.safetensors"
    checkpoint.save(path, narrow, config={}, provenance={})
    taken = models.build("Hyperprior", 8, 5)
    assert "the 5 latent channels of most power" in take_weights(taken, path, 2, images=lambda: x)
    assert torch.allclose(taken.g_a(x), 2 * y, atol=2e-2)  # weights in fp16
    with pytest.raises(CheckpointError):
        take_weights(models.build("Factorized", 6, 5), path)  # nothing to choose by


FACTOR = 0.6


def moved(name):
    """A tiny model, and the same with its latents multiplied by FACTOR."""
    model, twin = make(name), make(name, seed=1)
    twin.load_state_dict(rescaled(model.state_dict(), FACTOR))
    return model, twin


@pytest.mark.parametrize("name", NAMES)
def test_rescaled_latents_give_the_same_image(name, x):
    model, twin = moved(name)
    y = model.analysis(x)["y"]
    assert torch.allclose(twin.analysis(x)["y"], FACTOR * y, rtol=1e-4, atol=1e-5)
    assert torch.allclose(twin.g_s(FACTOR * y), model.g_s(y), rtol=1e-4, atol=1e-5)
    if "z" in model.streams:
        assert torch.allclose(twin.analysis(x)["z"], model.analysis(x)["z"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "Factorized"])
def test_rescaled_priors_are_as_much_wider(name):
    model, twin = moved(name)
    latents = latents_of(model, 64, 64)
    psi, again = model.h_s(latents["z"]), twin.h_s(latents["z"])
    if name != "Hyperprior":  # scales and means, with the context
        context, of_twin = (m.context_prediction for m in (model, twin))
        psi = model.entropy_parameters(torch.cat([psi, context(latents["y"])], 1))
        again = twin.entropy_parameters(torch.cat([again, of_twin(FACTOR * latents["y"])], 1))
    assert torch.allclose(again, FACTOR * psi, rtol=1e-4, atol=1e-4)


def test_rescaled_factorized_prior_is_the_density_of_the_scaled_latent():
    # The mass of an interval around y under the old density is that of the interval FACTOR
    # times as wide around FACTOR * y under the new one.
    model, twin = moved("Factorized")
    old, new = model.entropy_bottleneck, twin.entropy_bottleneck
    v = torch.linspace(-9, 9, 12 * 7).view(12, 1, 7)
    assert torch.allclose(
        new.logits_cumulative(FACTOR * v), old.logits_cumulative(v), rtol=1e-4, atol=1e-4
    )
    new.solve_quantiles()
    solved = new.quantiles.clone()
    new.quantiles.data = FACTOR * old.quantiles
    assert torch.allclose(new.quantiles, solved, rtol=1e-3, atol=1e-3)


def test_latent_factor_follows_lambda_and_is_used(narrow, tmp_path, x):
    narrow.point = OperatingPoint("Hyperprior", 0.0125, "low", 8, 12)
    path = tmp_path / "p.safetensors"
    checkpoint.save(path, narrow, config={}, provenance={})
    assert latent_factor(path, 0.05, "mse") == pytest.approx(2)
    assert latent_factor(path, 0.05, "ms-ssim") == 1
    assert latent_factor(tmp_path / "other.pth", 0.05, "mse") == 1
    model = models.build("Hyperprior", 8, 12)
    assert "Multiplied the latents by 2." in take_weights(model, path, 2.0)
    assert torch.allclose(model.g_a(x), 2 * narrow.g_a(x), atol=2e-2)  # weights in fp16


def test_weights_of_another_width_are_refused(narrow, tmp_path):
    """One tensor fits: the bias of the last layer, which has three numbers in any model."""
    checkpoint.save(tmp_path / "p.safetensors", narrow, config={}, provenance={})
    model = models.build("Factorized", 6, 10)
    before = model.g_s[6].bias.clone()
    assert widened(model, narrow.state_dict()) == {}
    with pytest.raises(CheckpointError, match="has 1 of .* tensors .* half of no part of it"):
        take_weights(model, tmp_path / "p.safetensors")
    assert torch.equal(model.g_s[6].bias, before)


def test_fix_excludes_parts_from_training(narrow):
    fix(narrow, ["g_a", "g_s"])
    trained = {name for name, value in narrow.named_parameters() if value.requires_grad}
    assert "h_a.0.weight" in trained and not any(name.startswith("g_") for name in trained)
    with pytest.raises(TrainingError, match="has g_a, g_s, h_a"):
        fix(narrow, ["g_b"])
    with pytest.raises(TrainingError, match="nothing is left to train"):
        fix(narrow, [name for name, _ in narrow.named_children()])
