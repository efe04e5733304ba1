"""BD-rates of whole curves and of every image, from CSVs made by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from evaluation import curves
from evaluation.tables import read, write
from models.errors import DataError
from models.presets import STUDIED
from tests.programs import ROOT

STATISTICS = ROOT / "statistics"


def write_model(folder: Path, model: str, factors: list[float]) -> None:
    """Results on images that need `factors` times the rates 0.2, 0.4, 0.8 and 1.6."""
    qualities = [30, 33, 36, 39]
    points = list(zip([0.2, 0.4, 0.8, 1.6], qualities, strict=True))
    images = [
        {"image": f"{k}.png", "bpp": bpp * factor, "psnr": psnr, "ms_ssim": ""}
        for k, factor in enumerate(factors)
        for bpp, psnr in points
    ]
    means = [
        {"bpp": bpp * np.mean(factors), "psnr": psnr, "ms_ssim": 1 - 10 ** (-psnr / 20)}
        for bpp, psnr in points
    ]
    write(folder / "per_image" / f"{model}.csv", images)
    write(folder / f"{model}.csv", means)
    write(folder / "searched" / f"{model}{curves.SEARCHED}.csv", means)


@pytest.fixture
def results(tmp_path) -> Path:
    """A folder with the published points and results of all models."""
    shutil.copytree(STATISTICS / "reference", tmp_path / "reference")
    shutil.copy(STATISTICS / "classical.csv", tmp_path)
    for model, factors in zip(STUDIED, ([1, 3], [0.5, 2.4], [0.5, 2.4], [0.6, 2.4]), strict=True):
        write_model(tmp_path, model, factors)
    return tmp_path


def test_the_table_has_the_values_of_known_curves(results):
    rows = {(r["curve"], r["against"], r["metric"]): r for r in curves.table(results)}
    assert len(rows) == 4 + 2 * (4 + 3 + 4 * 6) + 4 + 3 + 3
    assert {tuple(row) for row in rows.values()} == {curves.COLUMNS}
    row = rows["Hyperprior", "Factorized", "psnr"]
    assert float(row["bd_rate_percent"]) == pytest.approx(100 * (1.45 / 2 - 1))
    assert (row["range_low_db"], row["range_high_db"]) == ("30.000", "39.000")
    assert (row["points"], row["points_against"], row["images"]) == ("4", "4", "2")
    assert float(row["image_mean_percent"]) == pytest.approx((-50 - 20) / 2)
    assert (row["image_least_percent"], row["image_greatest_percent"]) == ("-50.000", "-20.000")
    interval = [float(row[f"image_interval_{end}_percent"]) for end in ("low", "high")]
    assert -50 <= interval[0] < -35 < interval[1] <= -20
    row = rows["JointAutoregressiveHierarchicalPriors", "Hyperprior", "psnr"]
    assert row["image_mean_percent"] == row["image_interval_high_percent"] == "0.000"
    row = rows["Hyperprior", "Factorized", "ms_ssim"]  # known of the means only
    assert (row["range_low_db"], row["images"], row["image_mean_percent"]) == ("15.000", "0", "")
    row = rows["Hyperprior-searched200", "Factorized-searched200", "psnr"]
    assert row["bd_rate_percent"] == rows["Hyperprior", "Factorized", "psnr"]["bd_rate_percent"]
    row = rows["Factorized", "Factorized (original study)", "psnr"]
    assert row["bd_rate_percent"] and row["images"] == ""


def test_a_curve_against_itself_is_zero():
    curve = curves.load_curve("bmshj2018-factorized", STATISTICS)
    for metric, low in (("psnr", 26.909), ("ms_ssim", 10.457)):
        row = curves.compare(curve, curve, metric)
        assert_allclose(float(row["bd_rate_percent"]), 0, atol=1e-9)
        assert float(row["range_low_db"]) == pytest.approx(low, abs=1e-3)
        assert row["points"] == "8"


def test_the_studys_table_is_that_of_its_results():
    assert read(STATISTICS / "bd_rate.csv") == curves.table(STATISTICS), "run 'make report'"
    values = curves.image_bd_rates("Hyperprior", "Factorized", STATISTICS, "psnr")
    assert len(values) == 24 and min(values) < np.mean(values) < max(values) < 0


def test_too_few_points_or_decibels_in_common_give_no_number():
    def curve(*qualities):
        rates = tuple(0.1 * 2**k for k in range(len(qualities)))
        return curves.Curve("c", rates, qualities, (float("nan"),) * len(qualities))

    long = curve(30.0, 31.0, 32.0, 33.0)
    assert curves.compare(long, curve(30.5, 31.0, 31.5), "psnr")["bd_rate_percent"]
    assert curves.compare(long, long, "ms_ssim")["reason"] == "c has no ms_ssim values"
    for other, reason in (
        (curve(30.0, 33.0), "2 of the 3 points"),
        (curve(32.1, 33.5, 34.0), "only 0.90 dB in common"),
        (curve(50.0, 51.0, 52.0), "do not overlap"),
    ):
        for pair in ((long, other), (other, long)):
            row = curves.compare(*pair, "psnr")
            assert "bd_rate_percent" not in row and reason in row["reason"]


@pytest.mark.parametrize(
    "name",
    ["Factorized.csv", "per_image/Hyperprior.csv", "reference/kodak_rd.csv",
     "reference/seminar_2022_results.csv"],
)  # fmt: skip
def test_a_missing_or_broken_csv_is_an_error_that_names_it(results, name):
    (results / name).write_text("lmbda,psnr\n0.01,30\n")
    with pytest.raises(DataError, match=f"{name} has no column"):
        curves.table(results)
    (results / name).unlink()
    with pytest.raises(DataError, match=f"{name} does not exist"):
        curves.table(results)


def test_a_curve_that_nobody_has_is_an_error():
    for name in ("nobody", "nobody (original study)"):
        with pytest.raises(DataError, match=r"\.csv has no rows for nobody\.$"):
            curves.load_curve(name, STATISTICS)


def test_the_interval_of_a_mean():
    """Of values alike it is a point; of 100 draws of N(0, 1) it is about 2 * 1.96 / 10 wide."""
    assert curves.mean_interval([2.0] * 5) == (2.0, 2.0, 2.0)
    values = np.random.default_rng(0).normal(size=100)
    mean, low, high = curves.mean_interval(values)
    assert mean == pytest.approx(values.mean()) and low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.1)
