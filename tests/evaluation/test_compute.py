"""Held-out loss against compute: what a lineage costs, the power law, and the committed CSVs."""

from __future__ import annotations

import csv
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import models
from benchmarks import compute, power_law
from benchmarks.report import compute as blocks
from benchmarks.report import tables, training_curves
from models import checkpoint
from models.files import csv_text, write_text
from models.images import read_image
from models.presets import OperatingPoint
from tests.programs import ROOT, read_csv

N, M, SIDE = 2, 3, 64
CROPS = 10_000_000  # of a step: columns have six decimals
TINY = {"model": "Factorized", "N": N, "M": M, "lmbda": 0.013, "lr": 0.001, "patch_size": SIDE}


def run(name: str, steps: int, **more) -> dict:
    return {"run_id": name * 12, "steps": steps, "images_seen": CROPS * steps, **TINY, **more}


def one_way() -> int:
    """MACs of g_a on one crop, by hand; those of g_s are as many."""
    outputs = [(SIDE // 2**k) ** 2 for k in (1, 2, 3, 4)]
    layers = [3 * N, N * N, N * N, N * M]
    convolutions = 25 * sum(n * c for n, c in zip(outputs, layers, strict=True))
    return convolutions + N * N * sum(outputs[:3])


@pytest.mark.parametrize(("fixed", "times"), [(None, 6), ([], 6), (["g_a"], 4), (["g_s"], 4)])
def test_a_trained_part_costs_three_times_its_forward_pass(fixed, times):
    found = compute.spent(run("a", 10, fixed=fixed))
    assert found == compute.Spent(10, 10 * CROPS * SIDE**2, 10 * CROPS * times * one_way())


def test_transforms_that_are_fixed_cost_what_ran(monkeypatch):
    monkeypatch.setattr(compute, "training_pixels", lambda: 10**9)
    analysed_once = one_way() * 10**9 / SIDE**2
    found = compute.spent(run("a", 10, fixed=["g_a", "g_s"]))
    assert found.macs == round(analysed_once)  # a factorized prior has no MACs


def test_what_is_not_counted_is_refused():
    with pytest.raises(ValueError, match="fixed h_a"):
        compute.spent(run("a", 10, fixed=["h_a"]))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A trunk that was left after 3 of its 8 steps, its branch, and their curves."""
    monkeypatch.setattr(compute, "STATISTICS", tmp_path)
    trunk = run("a", 8)

    def save(name: str, told: dict, ancestors: list[dict]) -> None:
        told = {**told, "ancestors": ancestors}
        model = models.build("Factorized", N, M)
        model.point = OperatingPoint("Factorized", 0.013, "low", N, M)
        checkpoint.save(tmp_path / name, model, config={}, provenance=told)

    def curve(name: str, rates: list[float]) -> None:
        rows = [
            {"step": k + 1, "images": CROPS * (k + 1), "lr": rate, "val_loss": 2 - 0.1 * k}
            for k, rate in enumerate(rates)
        ]
        write_text(tmp_path / "training" / name, csv_text(rows, rows[0]))

    save("trunks/Factorized/epoch_0_lmbda_0.013.safetensors", trunk, [])
    save("Factorized/epoch_1_lmbda_0.013.safetensors", run("b", 2), [run("a", 3)])
    curve("earlier/Factorized_lmbda_0.013_aaaaaa.csv", [0.001] * 8)
    curve("Factorized_lmbda_0.013.csv", [0.001, 0.0001])
    return tmp_path


def test_a_row_has_the_cost_of_all_that_came_before_it(study):
    rows = compute.measurements(study)
    steps = [(r["run"][0], int(r["step"]), int(r["lineage_steps"]), r["rate"]) for r in rows]
    assert steps == [
        *(("a", k, k, "constant") for k in range(1, 9)),
        ("b", 1, 4, "falling"), ("b", 2, 5, "falling"),
    ]  # fmt: skip
    assert [r["checkpoint"] for r in rows] == [""] * 9 + ["final"]
    step = CROPS * 6 * one_way() / 1e15
    for row in rows:
        assert float(row["lineage_petamacs"]) == pytest.approx(
            int(row["lineage_steps"]) * step, rel=1e-3
        )
    (path,) = study.glob("Factorized/*.safetensors")
    assert compute.lineage(path).cells().items() <= rows[-1].items()


def test_what_a_later_run_took_over_is_not_of_the_lineage_of_those_before():
    """a <- b <- c <- d; c also took from x <- y, d from z."""
    runs = [run(name, 1) for name in "dcbaxyz"]
    runs[4]["joined_by"], runs[6]["joined_by"] = runs[1]["run_id"], runs[0]["run_id"]
    found = ["".join(r["run_id"][0] for r in compute.lineage_of(runs, k)) for k in range(7)]
    assert found == ["dcbaxyz", "cbaxy", "ba", "a", "xy", "y", "z"]


def row(run_id: str, petamacs: float, loss: float, rate: str) -> dict:
    return {"run": run_id, "lineage_petamacs": petamacs, "val_loss": loss, "rate": rate}


def test_a_fit_takes_a_constant_rate_or_the_ends_of_runs():
    falling = [row("a", 1, 3, "falling"), row("a", 2, 2, "falling"), row("b", 3, 2.5, "falling"),
               row("c", 4, 1.5, "falling")]  # fmt: skip
    assert compute.points_of(falling) == ("ends of runs", [(2, 2), (4, 1.5)])  # b is undercut
    constant = [row("d", 2, 4, "constant"), row("d", 1, 5, "constant")]
    assert compute.points_of(falling + constant) == ("constant rate", [(1, 5), (2, 4)])


def test_the_zoo_is_met_where_kodak_would_be(tmp_path, monkeypatch):
    monkeypatch.setattr(compute, "STATISTICS", tmp_path)
    measured = [{"lmbda": 0.013, "bpp": 0.5, "psnr": 30.0, "ms_ssim": ""}]
    published = [
        {"codec": "mbt2018", "point": q, "bpp": 0.1 * q, "psnr_rgb_db": 28 + q, "ms_ssim_rgb": ""}
        for q in range(1, 9)
    ]
    model = "JointAutoregressiveHierarchicalPriors"
    assert compute.target(model, 0.013, 1.2) == {}  # nothing is there yet
    write_text(tmp_path / f"{model}.csv", csv_text(measured, measured[0]))
    write_text(tmp_path / "reference" / "kodak_rd.csv", csv_text(published, published[0]))
    ours, zoo = 0.013 * 65.025 + 0.5, 0.013 * 65025 / 10**3.2 + 0.4  # quality 4: 32 dB
    assert float(compute.target(model, 0.013, 1.2)["target"]) == pytest.approx(
        1.2 * zoo / ours, rel=1e-3
    )
    assert compute.target(model, 0.025, 1.2) == {}  # not tested
    assert compute.target("CheckerboardAutogressive", 0.013, 1.2) == {}  # not in the zoo


# The power law ------------------------------------------------------------------------------


def test_a_power_law_is_found_again():
    compute_of = np.geomspace(1, 100, 8)
    law = power_law.fit([(c, 0.9 + 0.5 * c**-0.4) for c in compute_of])
    assert law.floor == pytest.approx(0.9, abs=1e-3)
    assert (law.a, law.b) == (pytest.approx(0.5, abs=2e-3), pytest.approx(0.4, abs=3e-3))
    assert law.rms < 1e-4
    assert law.meets(1.0) == pytest.approx(5 ** (1 / 0.4), rel=0.02)
    assert law.meets(0.8) == math.inf
    assert law(law.meets(1.0)) == pytest.approx(1.0)


def test_noise_widens_what_is_known():
    compute_of = np.geomspace(1, 5, 10)
    noise = np.random.default_rng(0).normal(0, 0.01, 10)
    losses = 0.9 + 0.5 * compute_of**-0.4 + noise
    law = power_law.fit(list(zip(compute_of, losses, strict=True)))
    assert law.floors[0] < 0.9 < law.floors[-1]
    low, high = law.range_of_meeting(1.0)
    assert low < 5 ** (1 / 0.4) < high


def test_few_points_are_not_fitted():
    with pytest.raises(ValueError, match="needs 8 points, not 4"):
        power_law.fit([(k, 1 / k) for k in (1, 2, 3, 4)])


# What is committed --------------------------------------------------------------------------


def test_committed_compute_is_that_of_the_checkpoints(monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = compute.measurements()
    assert read_csv(ROOT / "statistics" / "compute.csv") == rows, "run 'make report'"
    assert read_csv(ROOT / "statistics" / "compute_fits.csv") == compute.fits(rows)
    curves = list(Path("statistics/training").rglob("*_lmbda_*.csv"))
    with_losses = sum(any(r["val_loss"] for r in csv.DictReader(p.open())) for p in curves)
    alone = sum(told is None for told in compute.SEEN.values())  # validated on no known set
    assert len({r["run"] for r in rows}) == with_losses - alone  # no curve belongs to no run
    for before, after in pairwise(rows):
        if before["run"] == after["run"]:
            assert int(before["lineage_steps"]) < int(after["lineage_steps"])
            assert float(before["lineage_petamacs"]) <= float(after["lineage_petamacs"])


def fitted(**more: str) -> dict:
    cells = {"model": "Hyperprior", "N": "128", "M": "192", "lmbda": "0.013", "points": "9"}
    cells |= {"through": "constant rate", "from_petamacs": "1", "to_petamacs": "20"}
    cells |= {"a": "0.5", "b": "0.4", "floor": "0.9", "floor_low": "0.8", "floor_high": "0.95"}
    cells |= {"rms": "0.01", "target": "1", "meets_petamacs": "56", "meets_low": "30"}
    return cells | {"meets_high": "inf"} | more


def test_a_sentence_says_how_far_a_fit_can_be_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "STATISTICS", tmp_path)
    assert blocks.laws() == "Not fitted.\n" and blocks.lineages() == "Not counted.\n"

    def laws(*rows: dict) -> str:
        write_text(tmp_path / "compute_fits.csv", csv_text(rows, rows[0]))
        return blocks.laws()

    text = laws(fitted(), fitted(lmbda="0.025", b="", points="3"))
    assert "`0.9 + 0.5 C^-0.40`" in text and "predicts nothing" not in text
    assert "meet the zoo, at 1, at 56 (from 30 to never)" in text
    assert "The other 1 pair of a model and a lambda: too few points (3) for a fit." in text
    assert "predicts nothing" in laws(fitted(to_petamacs="3"))
    assert "nothing tells the zoo's loss" in laws(fitted(target=""))
    assert "never: its floor is above that" in laws(fitted(meets_petamacs="inf"))


def test_the_figure_is_drawn_from_the_csvs(study, monkeypatch):
    monkeypatch.setattr(tables, "STATISTICS", study)
    monkeypatch.setattr(training_curves, "IMAGES", study)
    training_curves.main()
    assert not (study / "training_curves.png").exists()
    rows = compute.measurements(study)
    write_text(study / "compute.csv", csv_text(rows, rows[0]))
    fits = compute.fits(rows)
    assert fits[0]["points"] == "8" and fits[0]["b"]
    write_text(study / "compute_fits.csv", csv_text(fits, fits[0]))
    training_curves.main()
    assert read_image(study / "training_curves.png").std() > 5
