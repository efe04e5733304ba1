"""The front door of the benchmarks, and the timing ones on tiny sizes: what no clock decides."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from benchmarks import any_rate, complexity, orders, speed
from benchmarks.__main__ import NAMES, main
from codec import parser
from models import checkpoint
from models.datasets import sample_photographs
from models.errors import UsageError
from models.images import read_image, to_tensor, to_uint8
from models.presets import TWINS
from tests.helpers import CHECKERBOARD, JOINT, codec, image
from tests.helpers import NAMES as MODELS
from tests.programs import LAMBDAS, ROOT, read_csv

CPU = torch.device("cpu")


# The front door


def test_the_list_names_every_benchmark_in_one_line(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()[-len(NAMES) :]
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert all(line.endswith((".", "`.")) and len(line) < 120 for line in lines)
    assert main(["sped"]) == 2
    assert "classical" in capsys.readouterr().err


def test_every_benchmark_has_a_name():
    places = [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("benchmarks/*/__init__.py")]
    names = {p.parent.name if p.stem == "__init__" else p.stem for p in places}
    assert names - {"__main__", "benchmarks", "records", "report"} == set(NAMES)
    assert all(hasattr(importlib.import_module(f"benchmarks.{name}"), "run") for name in NAMES)


def test_results_go_to_outputs_and_the_studys_only_if_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(complexity, "run", lambda options: [{"model": "x", "N": 128}])
    for flags, folder in (("", "outputs"), ("--record", "statistics"), ("--outdir x", "x")):
        assert main(["complexity", *flags.split()]) == 0
        assert read_csv(tmp_path / folder / "macs.csv") == [{"model": "x", "N": "128"}]
        assert "128" in capsys.readouterr().out


# Timing


def test_tasks_take_turns_and_the_first_round_is_left_out():
    calls: list[str] = []
    tasks = {name: lambda n=name: calls.append(n) or len(calls) for name in "ab"}
    steps: list[int] = []
    assert speed.alternate(tasks, 2, lambda: steps.append(1)) == {"a": [3, 5], "b": [4, 6]}
    assert calls == ["a", "b"] * 3 and len(steps) == 6


@pytest.mark.parametrize("sides", [(4, 6), (9, 6), (4, 20), (25, 31)])
def test_a_picture_is_the_middle_or_mirrored(sides):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
    cut = speed.picture(pixels, *sides)
    assert cut.shape == (*sides, 3)
    if sides == (4, 6):
        assert np.array_equal(cut, pixels[2:6, 2:8])
    if sides == (25, 31):
        assert np.array_equal(cut[:8, :10], pixels)
        assert np.array_equal(cut[8:16, 10:20], pixels[::-1, ::-1])


def test_the_parts_of_coding_are_those_of_the_model(monkeypatch):
    """A clock that each stage advances: 5 s in analysis, 2 s before and after it."""
    now = [0.0]
    monkeypatch.setattr(speed, "clock", lambda device: now[0])
    model = codec("Factorized")

    def advance(seconds, result=None):
        now[0] += seconds
        return result

    monkeypatch.setattr(type(model), "analysis", lambda self, x: advance(5, x))
    work = lambda: advance(2) or model.analysis(1) and advance(2)  # noqa: E731
    assert speed.split(work, model, "analysis", CPU) == (9, 5)
    assert "analysis" not in vars(model)


# Ours beside CompressAI's


@pytest.mark.parametrize("name", TWINS)
@torch.no_grad()
def test_a_twin_codes_alike(name):
    """Trained weights: the same latents up to a few roundings, as large a file, the same image."""
    model = checkpoint.load(checkpoint.find(name)[0])
    x = to_tensor(sample_photographs()[0][1][100:228, 100:292])
    ours, theirs = speed.coder(model, "fp32"), speed.coder(model, speed.COMPRESSAI)
    files = ours["encode"](x), theirs["encode"](x)
    sizes = [speed.bits(file) for file in files]
    assert sizes[0] == 8 * len(files[0][0])
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01, abs=8 * 64)
    images = [c["decode"](file).clamp(0, 1) for c, file in zip((ours, theirs), files, strict=True)]
    errors = [(decoded - x).square().mean().item() for decoded in images]
    assert errors[1] == pytest.approx(errors[0], rel=0.02)
    assert (images[0] - images[1]).square().mean().item() < 0.25 * errors[0]


def test_speed_on_tiny_images(ckpts, photographs, tmp_path, capsys):
    words = ["--sizes", "64x128", "40x50", "--rounds", "2", "--no_memory", "--precision", "fp32"]
    words += ["--lmbda", str(LAMBDAS[0]), "--ckpt_dir", str(ckpts), "--image", str(photographs)]
    assert main(["speed", *words, "--outdir", str(tmp_path)]) == 0
    rows = read_csv(tmp_path / "speed.csv")
    expected = [
        (height, name, which, direction)
        for height, name, which, direction in product(
            ("64", "40"), MODELS, ("fp32", "CompressAI"), ("encode", "decode"))
        if which == "fp32" or name in TWINS
    ]  # fmt: skip
    assert [(r["height"], r["model"], r["codec"], r["direction"]) for r in rows] == expected
    for row in rows:
        least, middle, most = (float(row[name]) for name in ("least", "seconds", "most"))
        assert 0 < least <= middle <= most
        assert float(row["bpp"]) > 0 and row["lmbda"] == f"{LAMBDAS[0]:g}" and row["peak_mb"] == ""
        ours, twin = row["codec"] == "fp32", row["model"] in TWINS
        assert bool(row["compressai_over_ours"]) == (ours and twin)
        assert bool(row["transforms_s"]) == bool(row["entropy_s"]) == ours
        if ours:
            assert 0 < float(row["transforms_s"]) < most and 0 < float(row["entropy_s"]) < most
    assert list(json.loads((tmp_path / "machine.json").read_text())) == ["speed.csv"]


def test_memory_is_measured_in_a_process_of_its_own(ckpts):
    path = next((ckpts / "Hyperprior").glob(f"*_{LAMBDAS[0]:g}.safetensors"))
    pixels = to_uint8(image(64, 128))
    work = partial(speed.peak_memory, path, "fp32", "encode", pixels, "cpu")
    assert 50 < speed.alone(work) < 1e4
    with pytest.raises(UsageError, match="was killed.*--no_memory"):
        speed.alone(partial(os._exit, 9))


# Coding orders


def test_orders_on_tiny_images(ckpts, tmp_path, monkeypatch):
    words = ["--sizes", "128x192", "64x128", "--rounds", "1", "--lmbda", str(LAMBDAS[1])]
    words += ["--ckpt_dir", str(ckpts)]
    assert main(["orders", *words, "--outdir", str(tmp_path)]) == 0
    rows = read_csv(tmp_path / "orders.csv")
    assert [(r["order"], r["model"], r["height"], r["steps"]) for r in rows] == [
        ("wavefront", JOINT, "128", str(12 + 3 * 7)), ("checkerboard", CHECKERBOARD, "128", "2"),
        ("raster", JOINT, "64", "32"), ("wavefront", JOINT, "64", str(8 + 3 * 3)),
        ("checkerboard", CHECKERBOARD, "64", "2"),
    ]  # fmt: skip
    for row in rows:
        assert 0 < float(row["least"]) <= float(row["seconds"]) <= float(row["most"])
        each = float(row["seconds_per_megapixel"]) * int(row["height"]) * int(row["width"]) / 1e6
        assert each == pytest.approx(float(row["seconds"]), rel=1e-2)

    sizes = iter([rows[:2]])  # then the command is stopped
    monkeypatch.setattr(orders, "measure", lambda *_: next(sizes, None) or signal.raise_signal(2))
    assert main(["orders", *words, "--outdir", str(tmp_path / "stopped")]) == 130
    assert read_csv(tmp_path / "stopped" / "orders.csv") == rows[:2]


# Any rate


def test_any_rate_on_tiny_images(ckpts, photographs, tmp_path, monkeypatch):
    """Five lambdas of two checkpoints; sizes; rows of other models stay."""
    monkeypatch.setattr(any_rate, "TARGETS", (0.8,))
    words = ["any_rate", "--ckpt_dir", str(ckpts), "--dataset_path", str(photographs)]
    words += ["--outdir", str(tmp_path), "--models"]
    assert main([*words, "Factorized"]) == 0
    first = read_csv(tmp_path / "any_rate.csv")
    assert main([*words, "Hyperprior"]) == 0
    rows = read_csv(tmp_path / "any_rate.csv")
    assert rows[:10] == first
    both, one = rows[10:15], rows[15:]
    low, high = LAMBDAS
    for row, lmbda in zip(both, any_rate.lambdas(LAMBDAS), strict=True):
        assert float(row["lmbda"]) == pytest.approx(lmbda, rel=1e-3)
        own = float(row["checkpoint"])
        assert float(row["gain"]) == pytest.approx(math.sqrt(lmbda / own), abs=1e-4)
        assert (row["gain"] == "1.0000") == (lmbda in LAMBDAS)
    assert {row["checkpoint"] for row in both} == {str(low), str(high)}
    assert {row["checkpoint"] for row in one} == {str(high)} and one[-1]["bpp"] == both[-1]["bpp"]
    rates, errors = ([float(row[name]) for row in both] for name in ("bpp", "loss_percent"))
    assert errors[0] == errors[-1] == 0 and all(errors[1:-1])

    images = [read_image(path) for path in sorted(photographs.iterdir())]
    model = checkpoint.load(checkpoint.find("Hyperprior", ckpts)[0])
    files = [model.compress(to_tensor(pixels))[0] for pixels in images]
    areas = [pixels.shape[0] * pixels.shape[1] for pixels in images]
    bpp = [8 * len(file) / area for file, area in zip(files, areas, strict=True)]
    assert rates[0] == pytest.approx(sum(bpp) / 2, abs=1e-6)
    expected = 0.0
    for pixels, file, rate in zip(images, files, bpp, strict=True):
        difference = to_uint8(model.decompress([file])).astype(float) - pixels
        expected += (low * (difference**2).mean() + rate) / 2
    assert float(both[0]["loss"]) == pytest.approx(expected, rel=1e-6)
    losses = [float(row["loss"]) for row in both]
    middle = 100 * (losses[2] / math.sqrt(losses[0] * losses[-1]) - 1)
    assert errors[2] == pytest.approx(middle, abs=2e-3)

    (factorized, hyperprior) = read_csv(tmp_path / "any_size.csv")
    assert (factorized["model"], hyperprior["model"]) == MODELS[:2]
    assert 50 < float(hyperprior["least_percent"]) <= float(hyperprior["mean_percent"]) <= 100


def test_times_of_bpp_are_those_of_codec_py(ckpts, photographs, tmp_path, monkeypatch):
    """Commands that codec.py takes, each in turn."""
    commands: list[list[str]] = []
    monkeypatch.setattr(any_rate.subprocess, "run", lambda words, **_: commands.append(words))
    words = ["--dataset_path", str(photographs), "--ckpt_dir", str(ckpts), "--rounds", "2"]
    assert (
        main(["any_rate", "--times", "--models", "Joint", *words, "--outdir", str(tmp_path)]) == 0
    )
    asked = [parser().parse_args(command[2:]) for command in commands]
    assert [(flags.lmbda, flags.bpp) for flags in asked] == [
        (LAMBDAS[1], None), (None, 0.3), (None, 0.5), (None, 0.8)
    ] * 3  # fmt: skip
    rows = read_csv(tmp_path / "any_rate_times.csv")
    assert [row["flags"] for row in rows][:2] == ["--lmbda 0.0483", "--bpp 0.3"]
    assert rows[0]["over_plain"] == "1"
