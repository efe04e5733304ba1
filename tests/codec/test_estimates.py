"""What training sees of all codecs: `forward`, `estimate`, their modes and gradients."""

import pytest
import torch

import models
from tests.helpers import CHECKERBOARD, JOINT, each_model, image, latents_of, make


@pytest.mark.parametrize(
    "name,channels,count",
    [
        ("Factorized", (128, 192), 2_998_147),
        ("Hyperprior", (128, 192), 5_075_843),
        (JOINT, (192, 192), 14_130_467),
        (CHECKERBOARD, (192, 192), 14_130_467),
    ],
)
def test_parameter_counts_are_the_papers(name, channels, count):
    made = models.build(name, *channels)
    assert sum(p.numel() for p in made.parameters()) == count


@each_model
@pytest.mark.parametrize("mode", ["noise", "round", "ste"])
def test_forward_shapes_and_gradients(name, mode):
    made = make(name)
    x = image(64, 128, batch=2)
    out = made(x, mode)
    assert out["x_hat"].shape == x.shape
    expected = made.latent_shapes(2, 64, 128)
    assert {k: tuple(v.shape) for k, v in out["likelihoods"].items()} == expected
    for values in out["likelihoods"].values():
        assert (values >= 0.99e-9).all() and (values <= 1 + 1e-6).all()
    rate = sum(-v.log2().sum() for v in out["likelihoods"].values())
    (rate / x.numel() + (out["x_hat"] - x).square().mean()).backward()
    for parameter_name, parameter in made.named_parameters():
        if parameter.requires_grad and mode == "ste":
            assert parameter.grad is not None, parameter_name
            assert torch.isfinite(parameter.grad).all(), parameter_name


@each_model
def test_modes_of_quantisation(name):
    made = make(name)
    x = image(64, 64)
    assert torch.equal(made.eval()(x)["x_hat"], made(x, "round")["x_hat"])
    torch.manual_seed(3)
    noisy = made.train()(x)["x_hat"]
    torch.manual_seed(3)
    assert torch.equal(noisy, made(x, "noise")["x_hat"])
    with pytest.raises(ValueError, match="noise, round or ste"):
        made(x, "ceil")


@each_model
def test_forward_names_the_multiple_that_sides_must_have(name):
    made = make(name)
    step = made.downsampling
    assert made(image(step, 2 * step), "round")["x_hat"].shape == (1, 3, step, 2 * step)
    with pytest.raises(ValueError, match=f"multiples of {step}, not 100 x 64;.*any size"):
        made(image(100, 64))


@pytest.mark.parametrize(
    "name,mode,distance,share",
    [
        ("Factorized", "round", 1 / 64, 0.98),
        ("Hyperprior", "round", 0, 1),
        ("Hyperprior", "ste", 0, 1),
        (CHECKERBOARD, "round", 1 / 32, 0.95),
        (CHECKERBOARD, "ste", 1 / 32, 0.95),
        (JOINT, "ste", 0.1, 0.85),  # the second pass of many that would be needed
    ],
)
def test_rounded_latents_are_those_that_coding_arrives_at(name, mode, distance, share):
    """Up to integer means, which now and then round a latent to the other side."""
    made = make(name).freeze()
    latents = {k: v.clamp(-20, 20) for k, v in latents_of(made, 128, 192).items()}
    coded = made.decode(made.encode(latents), 128, 192)
    made.g_s = torch.nn.Identity()
    with torch.no_grad():
        y_hat = made.estimate(latents, mode)["x_hat"]
    near = (y_hat - coded).abs() <= distance + 1e-4
    assert near.float().mean() >= share
