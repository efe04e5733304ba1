"""Stages with fixed transforms: kept latents where both are, rounded latents where g_a is."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from models import checkpoint
from models.base import Codec, pad
from models.errors import TrainingError
from models.images import to_tensor, to_uint8
from tests.helpers import M, each_model, image, make
from tests.training import runs
from tests.training.runs import PAUSE, rows, state
from training.crops import CropsOnDevice
from training.data import ImageSet, Source
from training.inheritance import fix
from training.latents import Latents, RateModel
from training.loop import Trainer
from training.loss import rate_distortion


def images(*shapes: tuple[int, int]) -> ImageSet:
    sources = [
        Source(f"image{k}", *shape, pixels=to_uint8(image(*shape, k)))
        for k, shape in enumerate(shapes)
    ]
    return ImageSet("in memory", tuple(sources))


def settings(patch: int = 128, *extra: str):
    words = ("--model_name", "Factorized", "--fixed", "g_a", "g_s", "--patch_size", str(patch))
    return runs.settings(*words, *extra)


def gradients(model: Codec, output: dict, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


class Half(nn.Module):
    """To fp16 and back."""

    def forward(self, y):
        return y.half().float()


@each_model
@pytest.mark.parametrize("mode", ["noise", "ste"])
def test_the_prior_learns_from_kept_latents_what_it_learns_from_images(name, mode):
    """Where the crop is the whole image; that y is kept in fp16 is all that lies between."""
    model = make(name).train()
    model.g_a.append(Half())
    fix(model, ["g_a", "g_s"])
    pictures = images((128, 128))
    y = Latents(model, pictures, settings(128)).crops(settings(128)).batch(0, 1)
    x = to_tensor(pictures.sources[0].pixels)
    x, y = (t.contiguous(memory_format=torch.channels_last) for t in (x, y))  # as in training

    torch.manual_seed(1)
    output = model(x, mode)
    expected = gradients(model, output, rate_distortion(output, x, 0.01)[0])
    torch.manual_seed(1)
    output = RateModel(model)(y, mode)
    loss, _, mse = rate_distortion(output, y, 0.01)
    found = gradients(model, output, loss)

    assert found.keys() == expected.keys() and mse.isnan()
    assert any(name.startswith("entropy_bottleneck") for name in found)
    for key, gradient in expected.items():
        assert (found[key] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, key


@each_model
def test_crops_are_those_of_the_whole_images_latents_on_the_grid_of_the_coarsest(name):
    model, pictures = make(name), images((200, 250), (128, 192))
    kept = Latents(model, pictures, settings(64), copies=2)
    crops = kept.crops(settings(64))
    with torch.no_grad():
        padded = (pad(to_tensor(s.pixels), model.downsampling) for s in pictures.sources)
        whole = [model.analysis(x)["y"] for x in padded]
    grid = model.downsampling // 16
    places = set()
    for crop in crops.batch(3, 40):
        found = [
            (k, row, column)
            for k, y in enumerate(whole)
            for row in range(0, y.shape[2] - 3, grid)
            for column in range(0, y.shape[3] - 3, grid)
            if (crop - y[0, :, row : row + 4, column : column + 4]).abs().max() < 0.02
        ]
        assert len(found) == 1
        places |= set(found)
    assert {place[0] for place in places} == {0, 1} and len(places) > 8
    again = Latents(model, pictures, settings(64)).crops(settings(64))
    assert torch.equal(again.batch(3, 40), crops.batch(3, 40))
    assert torch.equal(again.batch(3, 40, rank=1, world_size=2), crops.batch(3, 40)[1::2])
    assert torch.equal(CropsOnDevice(crops, torch.device("cpu")).batch(3, 40), crops.batch(3, 40))
    assert f"2 images in 1 views, {kept.bytes / 1e6:,.0f} MB" in kept.report()
    assert kept.bytes == sum(y.nbytes for y in kept.kept.values())


def test_views_are_latents_of_the_image_mirrored_and_shifted():
    """Each view is that of one shift by hand; crops come from all of them."""
    model, pictures = make("Factorized"), images((96, 112))
    latents = Latents(model, pictures, settings(64, "--latent_views", "4"))
    assert "1 images in 4 views" in latents.report()
    pixels, shifts = pictures.sources[0].pixels, []
    for view in range(4):
        kept = torch.from_numpy(latents.kept[0, view]).permute(2, 0, 1).float()
        for top, left in np.ndindex(33, 49):  # a crop of 64 must be left
            part = pixels[top:, left:]
            part = np.ascontiguousarray(part[:, ::-1] if view % 2 else part)
            x = pad(to_tensor(part), 16)
            if x.shape[2] == 16 * kept.shape[1] and x.shape[3] == 16 * kept.shape[2]:
                with torch.no_grad():
                    y = model.analysis(x)["y"][0]
                if (y - kept).abs().max() < 0.02:
                    shifts.append((view, top, left))
    assert [shift[0] for shift in shifts] == [0, 1, 2, 3] and shifts[0] == (0, 0, 0)
    assert len({shift[1:] for shift in shifts}) == 4
    drawn = latents.crops(settings(64)).batch(0, 64).permute(0, 2, 3, 1).half().numpy()
    seen = {
        view
        for crop in drawn
        for (_, view), y in latents.kept.items()
        for row, column in np.ndindex(y.shape[0] - 3, y.shape[1] - 3)
        if np.array_equal(y[row : row + 4, column : column + 4], crop)
    }
    assert seen == {0, 1, 2, 3}


def test_an_unreadable_image_is_left_out(capsys):
    pictures = images((64, 64))
    broken = replace(pictures.sources[0], name="b.png", pixels=None, files=("b.png",))
    both = replace(pictures, sources=(broken, *pictures.sources))
    kept = Latents(make("Factorized"), both, settings(64))
    assert kept.crops(settings(64)).batch(0, 6).shape == (6, M, 4, 4)
    assert "b.png" in capsys.readouterr().err and list(kept.kept) == [(1, 0)]


def changed(before: Codec, after: dict[str, torch.Tensor]) -> set[str]:
    """The parts of a model, such as g_a, of which a weight is another."""
    return {
        key.partition(".")[0]
        for key, value in before.state_dict().items()
        if not key.endswith("quantiles") and not torch.equal(value, after[key])
    }


@pytest.fixture
def start(run):
    """Runs train.py from a tiny trained model; returns that and the state."""

    def start(name: str, *extra: str) -> tuple[Codec, dict]:
        model, parent = make(name), run.folder / f"{name}.safetensors"
        checkpoint.save(parent, model, config={}, provenance={})
        words = f"--model_name {name} --init_ckpt {parent} --patch_size 64 --steps_per_epoch 2 \
            --log_every 1 --ema 0 --ste_fraction 0 --exp_version a --resume"
        assert run(*words.split(), *extra) == 0
        return checkpoint.load(parent), state(run.folder, "a", name)

    return start


@each_model
def test_steps_on_kept_latents_do_without_the_transforms(start, run, name, monkeypatch, capsys):
    take_step = Trainer.gradients

    def without_transforms(trainer, y):
        transforms = trainer.model.g_a, trainer.model.g_s
        trainer.model.g_a = trainer.model.g_s = nn.Module()  # fails when it is called
        try:
            return take_step(trainer, y)
        finally:
            trainer.model.g_a, trainer.model.g_s = transforms

    monkeypatch.setattr(Trainer, "gradients", without_transforms)
    before, after = start(name, "--fixed", "g_a", "g_s")
    assert "Kept the latents of 5 images" in capsys.readouterr().out
    parts = changed(before, after["model"])
    assert "entropy_bottleneck" in parts and not parts & {"g_a", "g_s"}
    curve = rows(run.folder, "a", name)
    assert len(curve) == 4 and not any(row["psnr"] for row in curve)
    assert all(row["loss"] == row["bpp"] for row in curve)
    # Validation is that of every other run: rate and distortion of the held-out images.
    loss, bpp, psnr = (float(curve[-1][f"val_{key}"]) for key in ("loss", "bpp", "psnr"))
    assert loss == pytest.approx(bpp + 0.013 * 255**2 * 10 ** (-psnr / 10), rel=1e-4)
    if name == "Hyperprior":  # and it resumes exactly
        shutil.rmtree(run.folder / "runs")
        for limit in (PAUSE, ()):
            _, again = start(name, "--fixed", "g_a", "g_s", *limit)
        assert all(torch.equal(v, again["model"][k]) for k, v in after["model"].items())


def test_latents_that_do_not_fit_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 10)  # pages, and bytes of each
    with pytest.raises(TrainingError, match="memory has .* leave g_s out of --fixed"):
        Latents(make("Factorized"), images((64, 64)), settings(64))


def test_the_last_stage_rounds_with_g_a_as_it_is(start, monkeypatch):
    modes = set()
    estimate = Codec.estimate

    def noted(model, latents, quantization, *gain):
        modes.add((model.training, quantization))
        return estimate(model, latents, quantization, *gain)

    monkeypatch.setattr(Codec, "estimate", noted)
    name = "CheckerboardAutogressive"
    before, after = start(name, "--fixed", "g_a", "--quantization", "ste")
    assert modes == {(True, "ste"), (False, "round")}
    parts = changed(before, after["model"])
    assert "g_a" not in parts and {"g_s", "entropy_bottleneck"} <= parts
