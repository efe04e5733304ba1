"""What the generated blocks are made of: curves compared, and rows of the CSVs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import models
from benchmarks import complexity
from benchmarks.report import blocks, claims, comparisons, compute, speed, study, tables, trust
from benchmarks.report.checkpoints import checkpoints, training_runs
from evaluation.curves import Curve
from models import checkpoint
from models.files import csv_text, write_text
from models.presets import OPERATING_POINTS, STUDIED
from tests.programs import ROOT


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


# Comparisons ---------------------------------------------------------------------------------


def line(*points: tuple[float, float]) -> Curve:
    rates, qualities = zip(*points, strict=True)
    return Curve("c", rates, qualities, (float("nan"),) * len(points))


def test_rates_are_compared_where_both_curves_reach():
    other = line((0.25, 30.0), (1.0, 34.0))
    found = comparisons.rates_against(line((0.4, 32.0), (0.1, 29.0), (1.2, 34.0)), other)
    assert found == pytest.approx([-20, 20])


@pytest.mark.parametrize(
    ("differences", "compute", "expected"),
    [
        ([], 1.0, "not tested"),
        ([-1.0, -2.0], 1.0, "holds"),
        ([-1.0, -2.0], 3.0, "holds in part"),  # after more training
        ([-1.0, 2.0], 1.0, "holds in part"),
        ([1.0], 1.0, "does not hold"),
        ([1.0], 0.5, "not tested"),  # after less training
    ],
)
def test_verdicts(differences, compute, expected):
    assert comparisons.verdict(differences, compute) == expected


def test_every_claim_has_a_verdict_without_any_numbers(statistics, monkeypatch):
    monkeypatch.setattr(comparisons, "STATISTICS", tables.STATISTICS)
    known = {"holds", "holds in part", "does not hold", "not tested"}
    verdicts = [re.match(r"\[(.*?)\]", row[-1])[1] for row in claims.rows()]
    assert set(verdicts) <= known and verdicts.count("not tested") >= 8


@pytest.mark.parametrize(
    ("value", "shown"),
    [("0.418553", "0.419"), ("30", "30.0"), ("1425", "1,420"), ("0.5", "0.500"), ("", "-")],
)
def test_three_significant_digits(value, shown):
    assert tables.three(value) == shown


def test_no_checkpoint_is_its_own_parent():
    own = {r["digest"]: r["parent"] for r in checkpoints()}
    runs = {r["run_id"]: r for r in training_runs()}
    assert all(not parent or parent in runs for parent in own.values())
    assert all(r["parent"] != run_id for run_id, r in runs.items())


# What the blocks are made of ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "channels", "macs"),
    [  # statistics/macs_num.csv of the original study, one image of 512x768
        ("Factorized", (128, 192), 72351744000),
        ("Hyperprior", (128, 192), 74014261248),
        ("JointAutoregressiveHierarchicalPriors", (192, 192), 162231877632),
        ("CheckerboardAutogressive", (192, 192), 163792158720),
    ],
)
def test_thops_convention_gives_the_originals_counts(name, channels, macs):
    assert complexity.count(name, *channels, complexity.KODAK).thop_macs == macs


def test_true_macs_of_a_small_model_by_hand():
    N, M, side = 2, 3, 64
    found = complexity.count("Factorized", N, M, (1, side, side))
    outputs = [(side // 2**k) ** 2 for k in (1, 2, 3, 4)]
    layers = [3 * N, N * N, N * N, N * M]
    one_way = 25 * sum(n * c for n, c in zip(outputs, layers, strict=True))
    gdn = 2 * N * N * sum(outputs[:3])
    assert found.true == {"transforms": 2 * one_way, "gdn": gdn}
    assert found.thop_macs == one_way + 4 * one_way  # the synthesis four times over


def test_committed_counts_are_those_of_the_models():
    row = tables.rows_of("macs")[0]
    size = tuple(int(row[name]) for name in ("batch", "height", "width"))
    found = complexity.count(row["model"], int(row["N"]), int(row["M"]), size)
    assert (row["parameters"], row["thop_macs"], row["total_macs"]) == (
        str(found.parameters), str(found.thop_macs), str(found.true.total()),
    )  # fmt: skip


def test_rate_at_a_psnr_is_the_geometric_mean_half_way():
    curve = Curve("c", (0.25, 1.0), (30.0, 34.0), (float("nan"),) * 2)
    assert comparisons.rate_at(curve, 32.0) == pytest.approx(0.5)
    assert comparisons.rate_at(curve, 29.0) != comparisons.rate_at(curve, 29.0)  # nan


@pytest.fixture()
def statistics(tmp_path, monkeypatch):
    """A function that writes <name>.csv into a statistics folder of the test's own."""
    monkeypatch.setattr(tables, "STATISTICS", tmp_path)

    def write(name: str, rows: list[dict]) -> None:
        write_text(tmp_path / f"{name}.csv", csv_text(rows, rows[0]))

    return write


def test_rows_of_bf16_tell_which_checkpoints_were_replaced(statistics):
    row = {"model": "Hyperprior", "psnr": 32.8, "reader_db": 0, "both_db": 0, "rate_percent": 0}
    row |= {"symbols_percent": 0.1, "largest_level": 2}
    points = (0.013, "a"), (0.025, "b"), (1, "c")
    measured = [row | {"lmbda": lmbda, "run_id": run} for lmbda, run in points]
    runs = {"a": "", "b": "Hyperprior/file", "d": "Hyperprior/other"}
    statistics("precision", measured)
    statistics("training_runs", [{"run_id": k, "checkpoint": v} for k, v in runs.items()])
    assert speed.precision().endswith("since: Hyperprior 0.013, Hyperprior 1.\n")
    statistics("precision", measured[1:2])
    assert "replaced" not in speed.precision()


def trained(steps: int) -> list[dict]:
    return [
        {"model": p.model, "lmbda": p.lmbda, "steps": steps, "hours": 0.5, "hardware": "a CPU"}
        for p in OPERATING_POINTS
    ]


def test_training_runs_are_listed_once_parents_first(tmp_path):
    def run(number: int) -> dict:
        return {"run_id": str(number), "steps": number, "hours": 0.5, "hardware": "a CPU"}

    def save(name: str, number: int, ancestors: list[dict]) -> None:
        path = tmp_path / "Factorized" / f"epoch_{name}.safetensors"
        told = {**run(number), "ancestors": ancestors}
        checkpoint.save(path, models.build("Factorized", 8, 12), config={}, provenance=told)

    save("0_lmbda_1", 3, [run(2), run(1)])
    save("0_lmbda_2", 4, [run(2), run(1)])
    save("0_lmbda_3", 2, [run(1)])
    rows = training_runs(tmp_path)
    found = [(r["run_id"], r["parent"], bool(r["checkpoint"])) for r in rows]
    assert found == [("1", "", False), ("2", "1", True), ("3", "2", True), ("4", "2", True)]


def test_a_run_that_went_on_after_it_was_left_is_listed_at_its_longest(tmp_path):
    left, longest = ({"run_id": "1", "steps": steps, "hours": steps} for steps in (2, 5))
    for name, told in (("a/epoch_0", left), ("b/epoch_1", longest), ("c/epoch_2", left)):
        child = {"run_id": name, "steps": 1, "ancestors": [told]}
        path = tmp_path / f"{name}_lmbda_1.safetensors"
        checkpoint.save(path, models.build("Factorized", 8, 12), config={}, provenance=child)
    (row,) = (r for r in training_runs(tmp_path) if r["run_id"] == "1")
    assert (row["steps"], row["hours"]) == ("5", "5")


def test_a_run_that_joined_a_lineage_has_the_parent_that_its_own_checkpoint_tells(tmp_path):
    first, second, third = ({"run_id": name, "steps": 1} for name in "123")
    joined = third | {"joined_by": "4"}  # its own parent, 1, is listed before it
    for name, told in (
        ("a/epoch_0", {"run_id": "4", "steps": 1, "ancestors": [second, first, joined]}),
        ("b/epoch_0", third | {"ancestors": [first]}),
    ):
        path = tmp_path / f"{name}_lmbda_1.safetensors"
        checkpoint.save(path, models.build("Factorized", 8, 12), config={}, provenance=told)
    parents = {r["run_id"]: r["parent"] for r in training_runs(tmp_path)}
    assert parents == {"1": "", "2": "1", "3": "1", "4": "2"}


def test_the_status_follows_the_checkpoints(statistics):
    assert study.status().startswith("**Preliminary.** 0 of the 16")
    statistics("checkpoints", trained(20_000)[:15])
    assert "Not trained yet: Checkerboard 0.0483." in study.status()
    statistics("checkpoints", trained(20_000))
    statistics("training_runs", [*trained(20_000), *trained(400)[:2]])
    assert study.status().startswith("**Complete.** 16 of the 16")
    assert "18 runs and 9.0 hours" in study.status() and "Hardware: a CPU." in study.status()


def test_the_sentences_take_their_numbers_from_the_csvs(statistics):
    theirs = {"lmbda": "0.013", "psnr_rgb_db": "30.6"}
    printed = [
        {**theirs, "model": m, "bpp": r} for m, r in zip(STUDIED[2:], (0.4, 0.8), strict=True)
    ]
    statistics("reference/seminar_2022_results", printed)
    assert "none yet" in study.learned() and "needs 2.00 times the rate" in study.learned()
    pair = {"metric": "psnr", "curve": STUDIED[1], "points": 4}
    rows = [
        {**pair, "against": f"{STUDIED[1]} (original study)", "bd_rate_percent": "-12.345"},
        {**pair, "against": STUDIED[0], "bd_rate_percent": "-23.4"},
    ]
    statistics("bd_rate", rows)
    speed = {"model": STUDIED[2], "direction": "decode", "N": 192}
    measured = [(192, "fp32", 11.1), (320, "fp32", 13.8), (320, "bf16", 21.9), (64, "fp32", 50.0)]
    statistics("codec_speed", [
        {**speed, "M": M, "precision": p, "compressai_over_ours": n} for M, p, n in measured
    ])  # fmt: skip
    statistics("full_grids", [{"lmbda": 0.013, "ratio": "1.5"}])
    text = study.learned()
    assert "Hyperprior -12.3 %" in text
    assert "Hyperprior against Factorized -23.4 %" in text
    assert (
        "11.1 to 13.8 times (fp32) and 21.9 times (bf16) as fast" in text
        and "by a factor of 1.50" in text
    )
    statistics("bd_rate", [row | {"points": 3} for row in rows])
    assert "-12.3" not in study.learned()  # of a curve that is not complete
    gains = [
        {"model": m, "effort": effort, "bd_rate_percent": gain, "seconds": "9.8"}
        for effort, gain, models in (("50", "-5.04", STUDIED), ("200", "-8", STUDIED[:3]))
        for m in models
    ]
    statistics("search", gains)
    assert "50 steps of descent" in study.learned() and "-5.0 % (BD-rates" in study.learned()
    assert "for 10 s of two cores" in study.learned()


def test_the_gap_is_that_of_the_mean_bits(statistics):
    rows = [
        {"lmbda": "0.013", "width": 100, "height": 80, "bits": 8080, "estimate_bpp": "1.0"},
        {"lmbda": "0.013", "width": 50, "height": 80, "bits": 4040, "estimate_bpp": "1.0"},
    ]
    statistics("per_image/Factorized", rows)
    line = "| Factorized | 0.013 | 757.5 | 750.0 | +7.5 | +1.00 % |"
    assert line in blocks.gap().splitlines()


def test_damaged_files_are_counted_and_failures_listed(statistics):
    assert trust.fuzz() == "Not measured.\n"
    counts = {"cases": 5000, "refused": 4800, "decoded": 199, "failures": 1, "seconds": "2.5"}
    statistics("fuzz", [{"model": model, **counts} for model in STUDIED])
    found = {"found_by": "found", "failure": "NaN came out", "test": "tests/test_a.py::test_b"}
    statistics("failures_found", [found])
    lines = trust.fuzz().splitlines()
    assert "| all | 20,000 | 19,200 | 796 | 4 | 10.0 |" in lines
    assert lines[-1].startswith("1 failures were found on the way and mended (found 1).")


def test_the_tests_of_the_failures_found_are_there():
    for found in tables.rows_of("failures_found"):
        path, name = found["test"].split("::")
        assert f"def {name}(" in Path(path).read_text("utf-8")


def test_rounding_is_compared_where_it_begins(statistics):
    def curve(steps: list[int]) -> list[dict]:
        losses = {k: 2 - 0.001 * k for k in steps}
        return [
            {
                "step": k,
                "lr": 1 - k / 200,
                "val_loss": v,
                "val_bpp": v / 2,
                "val_psnr": 30 + k / 100,
            }
            for k, v in losses.items()
        ]

    assert compute.rounding() == "Not measured yet.\n"
    statistics("training/Factorized_lmbda_0.013", curve([50, 90, 100]))
    statistics("training/Hyperprior_lmbda_0.013", curve([50, 100]))  # not validated there
    statistics(f"training/{STUDIED[2]}_lmbda_0.013", curve([50, 90, 100]))  # a prior alone
    prior = {"model": STUDIED[2], "lmbda": "0.013", "fixed": "g_a g_s", "checkpoint": "a file"}
    statistics("training_runs", [prior])
    expected = (
        "| Factorized | 0.013 | 0.73 | 1.910 to 1.900 | 0.955 to 0.950 | 30.90 to 31.00 | -0.5 % |"
    )
    assert compute.rounding().splitlines()[2:] == [expected]


def test_more_views_are_compared_with_the_run_before(statistics):
    def curve(*losses: float) -> list[dict]:
        return [
            {"step": 100 * (k + 1), "val_loss": v, "val_bpp": v / 2} for k, v in enumerate(losses)
        ]

    run = {"model": STUDIED[2], "lmbda": "0.013", "fixed": "g_a g_s", "checkpoint": ""}
    first = {**run, "run_id": "abcdefgh", "latent_views": "", "steps": 200, "parent": ""}
    more = {**run, "run_id": "bbbbbbbb", "latent_views": "3", "steps": 100, "parent": "abcdefgh"}
    fewer = {**more, "run_id": "c", "latent_views": "2", "parent": "bbbbbbbb"}
    final = {"checkpoint": "a file"}
    assert compute.views() == "Not measured yet.\n"
    statistics("training_runs", [first, {**more, **final}, {**more, "run_id": "d", "lmbda": "1"}])
    statistics(f"training/earlier/{STUDIED[2]}_lmbda_0.013_abcdef", curve(1.2, 1.1, 1.0))
    statistics(f"training/{STUDIED[2]}_lmbda_0.013", curve(0.9))
    expected = ["| Joint | 0.013 | 1 | 200 | 0.5500 | 1.100 | 3 | 100 | 0.4500 | 0.900 |"]
    assert compute.views().splitlines()[2:] == expected
    # A run that went on from there, with no more views, leaves the row as it was.
    statistics("training_runs", [first, more, {**fewer, **final}])
    statistics(f"training/earlier/{STUDIED[2]}_lmbda_0.013_bbbbbb", curve(0.9))
    statistics(f"training/{STUDIED[2]}_lmbda_0.013", curve(0.8))
    assert compute.views().splitlines()[2:] == expected
