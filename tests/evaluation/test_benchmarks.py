"""The timing benchmarks on tiny sizes: that they run, and what does not depend on the clock."""

from __future__ import annotations

import argparse
import itertools
import json

import numpy as np
import pytest
import torch

from benchmarks import (
    ablations,
    codec_speed,
    integer_rate,
    range_coder,
    records,
    scaling,
    search_speed,
    timing,
    train_speed,
    worker,
)
from benchmarks.calibration import calibrated
from models import MODELS, checkpoint
from models.images import to_uint8
from models.layers.bf16 import computes_in_bf16
from tests.programs import read_csv


@pytest.mark.parametrize("name", MODELS)
def test_calibrated_latents_look_trained(name):
    x = timing.photograph(128, 192)
    model = calibrated(name, 8, 24, x)
    y = model.analysis(x)["y"]
    assert y.mean((0, 2, 3)).abs().max() < 1e-2
    deviations = y.std((0, 2, 3))
    assert torch.all(deviations[:-1] > deviations[1:])  # few large channels, many small ones
    (file,) = model.compress(x)
    estimate = sum(-p.log2().sum().item() for p in model(x)["likelihoods"].values())
    assert 8 * len(file) < 1.1 * estimate + 8 * 64  # the predictions fit: few escapes
    assert torch.isfinite(model.decompress([file])).all()


def test_spread_and_ratio_by_hand():
    assert timing.spread([4.0, 1.0, 3.0, 2.0, 5.0]) == (3.0, 2.0, 4.0)
    assert timing.spread([7.0]) == (7.0, 7.0, 7.0)
    assert timing.ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == 3.0


def test_only_what_the_study_measured_goes_to_statistics():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", default=["a", "b"])
    parser.add_argument("--quick", action="store_true")
    records.add_outdir(parser)

    def folder(words: str, **about) -> str:
        return str(records.outdir(parser, parser.parse_args(words.split()), **about))

    assert folder("") == folder("--sizes a b") == "statistics"
    assert folder("--rounds 3", free=["rounds"]) == "statistics"
    assert folder("--quick") == folder("--rounds 3") == folder("--sizes a") == "outputs"
    assert folder("", study=False) == "outputs"
    assert folder("--quick --outdir x") == "x"


MEASURED = {
    codec_speed: ("codec_speed.csv", "--no-memory --models Factorized"),
    integer_rate: ("integer_rate.csv", ""),
    range_coder: ("range_coder.csv", ""),
    scaling: ("scaling.csv", "--models Factorized"),
    search_speed: ("search_speed.csv", ""),
    train_speed: ("train_speed.csv", ""),
}


@pytest.mark.parametrize("module", MEASURED, ids=lambda module: module.__name__)
def test_a_trial_leaves_the_results_of_the_study(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        scaling, "run_worker", lambda *_: {"seconds": 2.0, "peak_mb": 500.0, "bytes": 1024}
    )
    name, words = MEASURED[module]
    module.main(["--quick", *words.split()])
    assert read_csv(tmp_path / "outputs" / name)
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_tasks_alternate():
    calls: list[str] = []
    tasks = {name: lambda n=name: calls.append(n) for name in "ab"}
    seconds = timing.alternate(tasks, rounds=2, warmup=1)
    assert calls == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_codec_speed(tmp_path):
    names = ["Hyperprior", "Checkerboard"]
    codec_speed.main(["--quick", "--no-memory", "--models", *names, "--outdir", str(tmp_path)])
    rows = read_csv(tmp_path / "codec_speed.csv")
    precisions = ("fp32", "bf16") if computes_in_bf16(torch.device("cpu")) else ("fp32",)
    models = ("Hyperprior", "CheckerboardAutogressive")
    assert [(r["model"], r["precision"], r["direction"]) for r in rows] == list(
        itertools.product(models, precisions, ("encode", "decode"))
    )
    for row in rows:
        assert bool(row["compressai_over_ours"]) == (row["model"] == "Hyperprior")
    assert all(r["over_our_hyperprior"] for r in rows)
    stages = read_csv(tmp_path / "codec_stages.csv")
    assert len(stages) == len(rows)
    assert all(bool(r["g_a_s"]) == (r["direction"] == "encode") for r in stages)
    assert all(bool(r["g_s_s"]) == (r["direction"] == "decode") for r in stages)
    assert all(r["h_s_s"] for r in stages)
    assert set(json.loads((tmp_path / "machine.json").read_text())) == {
        "codec_speed.csv",
        "codec_stages.csv",
    }


def test_original_times_are_means_of_the_study(tmp_path):
    folder = tmp_path / "reference"
    folder.mkdir()
    lines = ["model,lmbda,encode_s,decode_s", "Factorized,0.0067,1,10", "Factorized,0.013,2,20",
             "Factorized,0.025,100,100", "Hyperprior,0.013,7,7"]  # fmt: skip
    (folder / "seminar_2022_results.csv").write_text("\n".join(lines))
    found = codec_speed.original_seconds("Factorized", 128, 192, tmp_path)
    assert found == {"encode": "1.5", "decode": "15"}
    assert codec_speed.original_seconds("Factorized", 8, 12, tmp_path)["encode"] == ""


def test_stages_leave_the_model_as_it_was():
    x = timing.photograph(64, 128)
    model = calibrated("Hyperprior", 8, 12, x)
    network = model.frozen.networks["h_s"]
    codec_speed.stage_seconds(model, x, 1)
    assert "forward" not in vars(model.g_a)
    assert model.frozen.networks["h_s"] is network


def test_range_coder(tmp_path):
    range_coder.main(["--quick", "--outdir", str(tmp_path)])
    rows = read_csv(tmp_path / "range_coder.csv")
    assert [(r["coder"], r["calls"]) for r in rows] == [
        ("ours", "1"), ("compressai", "1"), ("ours", "15"), ("compressai", "15"),
    ]  # fmt: skip


def test_range_coder_is_close_to_the_entropy_of_its_tables():
    tables = range_coder.gaussian_tables()
    symbols, indexes, ideal = range_coder.draw(tables, 16, 16, 192)
    coder = range_coder.Ours(tables, symbols, indexes, list(torch.arange(256).split(8)))
    assert ideal <= 8 * len(coder.encode()) <= 1.001 * ideal + 64


def test_integer_rate(tmp_path):
    integer_rate.main(["--quick", "--outdir", str(tmp_path)])
    assert len(read_csv(tmp_path / "integer_rate.csv")) == len(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_integer_rate_is_small(name):
    x = timing.photograph(256, 384)
    bits = integer_rate.bits_of(calibrated(name, 8, 24, x), x)
    assert bits["tables"] <= bits["streams"] <= 1.001 * bits["tables"] + 2 * 64
    assert abs(bits["tables"] / bits["float"] - 1) < 0.01


@pytest.mark.parametrize("codec", ["fp32", "compressai"])
def test_worker_reports_memory(tmp_path, capsys, codec):
    x = timing.photograph(64, 64)
    weights, image, file = (tmp_path / n for n in ("w.safetensors", "image.npy", "file"))
    checkpoint.save(weights, calibrated("Factorized", 8, 12, x), config={}, provenance={})
    np.save(image, to_uint8(x))
    for direction in ("compress", "decompress"):
        worker.main([codec, direction, str(weights), str(image), str(file)])
        report = json.loads(capsys.readouterr().out)
        assert report["peak_mb"] >= report["base_mb"] > 10
        assert report["bytes"] == file.stat().st_size


def test_large_photograph_is_mirrored():
    pixels = scaling.large_photograph(900, 1300)
    assert pixels.shape == (900, 1300, 3)
    assert np.array_equal(pixels[800], pixels[799])
    assert np.array_equal(pixels[:, 1200:1300], pixels[:, 1199:1099:-1])
    assert scaling.large_photograph(64, 128).shape == (64, 128, 3)


def test_scaling_table_and_figure(tmp_path, monkeypatch):
    report = {"seconds": 2.0, "peak_mb": 500.0, "base_mb": 200.0, "bytes": 1024}
    monkeypatch.setattr(scaling, "run_worker", lambda *arguments: report)
    figure = tmp_path / "scaling.svg"
    scaling.main(["--quick", "--models", "Factorized", "--outdir", str(tmp_path),
                  "--figure", str(figure)])  # fmt: skip
    compress, decompress = read_csv(tmp_path / "scaling.csv")
    assert (compress["direction"], decompress["direction"]) == ("compress", "decompress")
    assert compress["bpp"] == "1"
    drawn = figure.read_bytes()
    figure.unlink()
    scaling.main(["--draw", "--outdir", str(tmp_path), "--figure", str(figure)])
    assert len(figure.read_bytes()) == len(drawn)


def test_scaling_keeps_what_is_not_measured_again(tmp_path):
    def row(model, height, seconds):
        return {"model": model, "height": height, "width": 8, "seconds": seconds}

    first = [row("Hyperprior", 64, 1), row("Factorized", 64, 2), row("Factorized", 8, 3)]
    records.write_csv(tmp_path / "scaling.csv", first)
    rows = scaling.merged(tmp_path / "scaling.csv", [row("Factorized", 64, 9)])
    found = [(r["model"], int(r["height"]), int(r["seconds"])) for r in rows]
    assert found == [("Factorized", 8, 3), ("Factorized", 64, 9), ("Hyperprior", 64, 1)]
    assert scaling.merged(tmp_path / "none.csv", first) == first


TINY = "--steps 6 --batch_size 1 --patch_size 64 --N 8 --M 12 --threads 1"


@pytest.mark.parametrize("name", ablations.ABLATIONS)
def test_ablations_differ_in_what_they_name(name, tmp_path, ckpts):
    (parent,) = checkpoint.find("Hyperprior", ckpts, lmbda=0.0483)
    words = [name, *TINY.split(), "--init_ckpt", str(parent), "--outdir", str(tmp_path)]
    assert ablations.main(words) == 0
    rows = read_csv(tmp_path / f"{name}.csv")
    runs = [[int(r["step"]) for r in rows if r["run"] == run] for run in ablations.ABLATIONS[name]]
    assert runs == [[1, 2, 3, 4, 5, 6]] * len(runs)
    losses = [float(r["val_loss"]) for r in rows if int(r["step"]) == 6]
    assert len(set(losses)) == len(losses) == len(runs)


def test_train_speed(tmp_path):
    train_speed.main(["--quick", "--outdir", str(tmp_path)])
    rows = read_csv(tmp_path / "train_speed.csv")
    assert [r["step"] for r in rows] == ["CompressAI fp32", "ours fp32", "ours bf16"]
    assert rows[0]["times_faster"] == "1"


def test_training_steps_of_both_libraries_learn():
    x = timing.photograph(64, 64).repeat(2, 1, 1, 1)
    for step in (
        train_speed.our_step("Hyperprior", 8, 12, x, half=False),
        train_speed.their_step("Hyperprior", 8, 12, x),
    ):
        losses = [step() for _ in range(3)]
        assert losses[-1] < losses[0]
