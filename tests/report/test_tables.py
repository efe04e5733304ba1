"""What fills the pages' tables: formats, joins, missing numbers; and the checkpoints' CSVs."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

import models
from benchmarks import complexity
from benchmarks.report import __main__ as program
from benchmarks.report import checkpoints, markdown
from benchmarks.report.markdown import Table
from benchmarks.report.tables import TABLES, equal_terms
from evaluation.tables import read, write
from models import checkpoint
from models.errors import DataError
from models.presets import OperatingPoint
from tests.programs import ROOT, one_line

FIRST, SECOND = ("model", "{model:short}"), ("rate", "{bpp:three}")


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture()
def statistics(tmp_path, monkeypatch):
    """A function that writes <name>.csv into a statistics folder of the test's own."""
    monkeypatch.setattr(markdown, "STATISTICS", tmp_path)
    return lambda name, rows: write(tmp_path / f"{name}.csv", rows)


def cells(table: Table) -> list[list[str]]:
    """The rows of a table, its header aside."""
    return [line.strip("| ").split(" | ") for line in table.markdown().splitlines()[2:]]


# Entries of the list --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.418553, "0.419"), (30, "30.0"), (1425, "1,420"), (0.5, "0.500"), (99.96, "100")],
)
def test_three_significant_digits(value, shown):
    assert markdown.three(value) == shown


def test_csvs_are_joined_filtered_paired_and_computed(statistics):
    values = ("Hyperprior", 1, 0.5), ("Hyperprior", 2, 0.25), ("x", 1, 2), ("y", 3, 9)
    statistics("a", [dict(zip(("model", "side", "bpp"), row, strict=True)) for row in values])
    statistics("b", [{"model": "Hyperprior", "bpp": "7.125"}])
    columns = [FIRST, SECOND, ("theirs", "{bpp_2}"), ("half", "{half:+.2f} %")]
    table = Table("a b", columns, on=["model"], where="side < 3", computed={"half": "bpp / 2"})
    assert cells(table) == [
        ["Hyperprior", "0.500", "7.125", "+0.25 %"],
        ["Hyperprior", "0.250", "7.125", "+0.12 %"],
        ["x", "2.00", "-", "+1.00 %"],
    ]
    table = Table("a", columns[:3], on=["model"], beside=("side", 1, 2), words=2)
    assert cells(table) == [["Hyperprior", "0.500", "0.25"], ["x", "2.00", "-"]]
    assert table.markdown().splitlines()[:2] == [
        "| model | rate | theirs |", "| --- | --- | ---: |",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (Table("a nowhere", [FIRST]), r"^\S+nowhere.csv does not exist.$"),
        (Table("a", [FIRST, ("PSNR", "{psnr:.2f}")]), "'psnr'"),
        (Table("a", [FIRST], where="psnr > 3"), "'psnr'"),
        (Table("a", [FIRST], computed={"ratio": "bpp / psnr"}), "'psnr'"),
        (Table("a", [FIRST], beside=("psnr", 1, 2)), "'psnr'"),
        (Table("a", [("model", "{model:.2f}")]), "Unknown format code"),
    ],
)
def test_what_is_missing_is_said(table, words, statistics):
    statistics("a", [{"model": "Hyperprior", "bpp": 1}])
    with pytest.raises(DataError, match=words):
        table.markdown()


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_a_missing_csv_ends_the_program_in_a_sentence(arguments, tmp_path, monkeypatch, capfd):
    page = tmp_path / "page.md"
    page.write_text(before := "<!-- t:begin -->\n<!-- t:end -->\n", "utf-8")
    monkeypatch.setattr(program, "TABLES", {"t": Table("nowhere", [FIRST])})
    monkeypatch.setattr(program, "PAGES", (str(page),))
    assert program.main(arguments) == 1 and page.read_text("utf-8") == before
    one_line(capfd, "report: statistics/nowhere.csv does not exist.")


def test_a_marker_without_a_table_is_refused():
    with pytest.raises(DataError, match="'unknown'"):
        markdown.fill("<!-- unknown:begin -->\n<!-- unknown:end -->\n", TABLES)


def test_a_page_that_differs_is_told_and_mended(tmp_path, monkeypatch, capfd):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- fuzz:begin -->\nold\n<!-- fuzz:end -->\nb\n", "utf-8")
    monkeypatch.setattr(program, "PAGES", (str(page),))
    assert program.main(["--check"]) == 1 and "old" in page.read_text("utf-8")
    assert program.main([]) == 0
    table = TABLES["fuzz"].markdown()
    assert page.read_text("utf-8") == f"a\n<!-- fuzz:begin -->\n{table}<!-- fuzz:end -->\nb\n"
    assert program.main(["--check"]) == 0 and str(page) in capfd.readouterr().out


# The committed tables, some of their cells computed once more ----------------------------------


def rows(name: str) -> list[dict[str, str]]:
    return read(ROOT / "statistics" / f"{name}.csv")


def test_cells_are_those_of_the_csvs():
    own = rows("Hyperprior")[1]
    rate, loudness = float(own["bpp"]), -10 * math.log10(1 - float(own["ms_ssim"]))
    assert cells(TABLES["results"])[5][:5] == [
        "Hyperprior", own["lmbda"], f"{rate:.3g}", f"{float(own['psnr']):.2f}", f"{loudness:.2f}",
    ]  # fmt: skip

    images = [r for r in rows("per_image/Factorized") if r["lmbda"] == "0.0483"]
    files = sum(int(r["bits"]) for r in images) / 8 / len(images)
    areas = [float(r["estimate_bpp"]) * int(r["width"]) * int(r["height"]) for r in images]
    estimate = sum(areas) / 8 / len(images)
    assert cells(TABLES["rates"])[1][2:5] == [
        f"{files:,.0f}", f"{estimate:,.0f}", f"{100 * (files / estimate - 1):+.2f} %",
    ]  # fmt: skip

    joint, checkerboard = (rows("reference/seminar_2022_results")[k] for k in (8, 12))
    ratio, loss = float(checkerboard["bpp"]) / float(joint["bpp"]), rows("full_grids")[0]["ratio"]
    shown = cells(TABLES["original_checkerboard"])[0]
    assert (shown[0], shown[3], shown[6]) == ("0.0067", f"{ratio:.2f}", f"{float(loss):.2f}")
    assert cells(TABLES["fuzz"])[-1][1] == f"{sum(int(r['cases']) for r in rows('fuzz')):,}"


def test_priors_are_compared_by_the_files_of_each_image_and_seed():
    run = {"lmbda": 0.013, "steps": 600, "bpp": 0.5, "psnr": 33.0, "held_out_bpp": 0.4}
    sizes = {"scale": (100, 200, 100, 100), "causal context": (110, 200, 90, 140)}
    runs = [(seed, image) for seed in (0, 1) for image in ("a", "b")]
    rows = pd.DataFrame(
        {**run, "prior": prior, "seed": seed, "image": image, "bytes": size}
        for prior, own in sizes.items()
        for (seed, image), size in zip(runs, own, strict=True)
    )
    scale, causal = equal_terms(rows).to_dict("records")
    assert causal["seeds"] == 2 and math.isnan(scale["scale"])
    # Images: (10 - 10) / 2 and (0 + 40) / 2 percent; seeds: (10 + 0) / 2 and (-10 + 40) / 2.
    found = [causal[f"scale{end}"] for end in ("", "_low", "_high", "_least", "_most")]
    assert found == pytest.approx([10, 0, 20, 5, 15])


# What training has cost -----------------------------------------------------------------------

N, M, SIDE = 2, 3, 64
OUTPUTS = [(SIDE // 2**k) ** 2 for k in (1, 2, 3, 4)]
CONVOLUTIONS = sum(n * c for n, c in zip(OUTPUTS, (3 * N, N * N, N * N, N * M), strict=True))
GDN = N * N * sum(OUTPUTS[:3])
ONE_WAY = 25 * CONVOLUTIONS + GDN  # MACs of g_a on one crop; g_s has as many


def run(name: str, steps: int, **more) -> dict:
    about = {"model": "Factorized", "lmbda": 0.013, "N": N, "M": M, "patch_size": SIDE}
    return {"run_id": name, "steps": steps, "images_seen": 8 * steps, **about, **more}


def save(path: Path, provenance: dict) -> None:
    model = models.build("Factorized", N, M)
    model.point = OperatingPoint("Factorized", 0.013, "low", N, M)
    checkpoint.save(path, model, config={}, provenance=provenance)


def test_true_macs_of_a_small_model_by_hand():
    counts = complexity.count("Factorized", N, M, (1, SIDE, SIDE))
    true = counts["transforms_macs"], counts["gdn_macs"], counts["total_macs"]
    assert true == (50 * CONVOLUTIONS, 2 * GDN, 50 * CONVOLUTIONS + 2 * GDN)
    assert counts["thop_macs"] == 25 * (CONVOLUTIONS + 4 * CONVOLUTIONS)  # synthesis four times


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
    counts = complexity.count(name, *channels, complexity.KODAK)
    (row,) = (r for r in rows("macs") if r["model"] == name and r["thop_macs"] == str(macs))
    assert (counts["thop_macs"], str(counts["total_macs"])) == (macs, row["total_macs"])


@pytest.mark.parametrize(("fixed", "times"), [(None, 6), ([], 6), (["g_a"], 4), (["g_s"], 4)])
def test_a_trained_part_costs_three_times_its_forward_pass(fixed, times):
    assert checkpoints.macs(run("a", 10, fixed=fixed)) == 80 * times * ONE_WAY


def test_transforms_that_are_fixed_cost_one_analysis_of_each_view(monkeypatch):
    monkeypatch.setattr(checkpoints, "training_pixels", lambda: 100 * SIDE**2)
    both = {"fixed": ["g_a", "g_s"], "latent_views": 3}
    assert checkpoints.macs(run("a", 10, **both)) == 300 * ONE_WAY  # the density has no MACs
    with pytest.raises(DataError, match="fixed h_a"):
        checkpoints.macs(run("a", 10, fixed=["h_a"]))


def test_a_checkpoint_costs_what_its_whole_lineage_did(tmp_path):
    path = tmp_path / "Factorized" / "epoch_0_lmbda_0.013.safetensors"
    save(path, {**run("b", 20_000), "ancestors": [run("a", 30_000)]})
    (row,) = checkpoints.checkpoints(tmp_path)
    assert (row["parent"], row["lineage_runs"], row["lineage_steps"]) == ("a", "2", "50000")
    assert float(row["lineage_megapixels"]) == pytest.approx(0.4 * SIDE**2, rel=1e-3)
    petamacs = 8 * 50_000 * 6 * ONE_WAY / 1e15
    assert float(row["lineage_petamacs"]) == pytest.approx(petamacs, rel=1e-3)
