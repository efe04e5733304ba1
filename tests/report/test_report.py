"""The report: generated blocks, links, figures, anchors and commands, and what generates them."""

from __future__ import annotations

import importlib.util
import re
import shlex
import unicodedata
from pathlib import Path

import pytest

import models
from benchmarks import complexity
from benchmarks.report import original, pages, study, tables, trust
from benchmarks.report.checkpoints import training_runs
from evaluation.curves import Curve
from models import checkpoint
from models.files import csv_text, write_text
from models.presets import OPERATING_POINTS, STUDIED
from tests.programs import ROOT

FILLED = ("README.md", "report.md")
PAGES = (*FILLED, *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))
FENCE = re.compile(r"^```.*?^```[ ]*$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`[^`\n]+`")


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def prose(page: str) -> str:
    """A page without code."""
    return INLINE.sub("", FENCE.sub("", Path(page).read_text("utf-8")))


# Generated blocks ---------------------------------------------------------------------------


def test_blocks_are_those_of_the_csvs():
    made = pages.filled()
    stale = [str(path) for path, text in made.items() if path.read_text("utf-8") != text]
    assert not stale, f"{', '.join(stale)}: run 'make report'"


@pytest.mark.parametrize("page", FILLED)
def test_markers_are_in_pairs_and_have_a_table(page):
    text = Path(page).read_text("utf-8")
    begins, ends = (re.findall(rf"^<!-- (\w+):{side} -->$", text, re.MULTILINE)
                    for side in ("begin", "end"))  # fmt: skip
    assert begins == ends == [m[2] for m in pages.MARKERS.finditer(text)]
    assert len(set(begins)) == len(begins)
    assert set(begins) <= set(pages.TABLES)


def test_a_block_is_made_anew_between_its_markers():
    text = "a\n<!-- complexity:begin -->\nold\n<!-- complexity:end -->\nb\n"
    lines = pages.fill(text).splitlines()
    assert lines[2].startswith("| model") and "old" not in lines
    assert lines[:2] + lines[-2:] == [text.splitlines()[k] for k in (0, 1, 3, 4)]


# Links, anchors, equations ------------------------------------------------------------------


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    kept = (
        c for c in heading.strip().lower() if c in " -_" or unicodedata.category(c)[0] in "LNM"
    )  # fmt: skip
    return "".join(kept).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text("utf-8"))
    return {slug(title.replace("`", "")) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_figures_lead_somewhere(page):
    text = prose(page)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[\w+\]: (\S+)", text, re.M)
    broken = []
    for target in targets:
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        place = Path(page).parent / path if path else Path(page)
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert not broken
    named = set(re.findall(r"^\[(\w+)\]: ", text, re.MULTILINE))
    used = set(re.findall(r"\]\[(\w+)\]", text))
    assert used <= named, f"references without an address: {used - named}"


def test_equations_are_such_as_github_renders():
    text = Path("report.md").read_text("utf-8")
    assert r"\operatorname" not in text  # refused there
    for line in prose("report.md").splitlines():
        assert line.count("$") % 2 == 0, f"inline mathematics goes over the end of: {line}"
    for equation in re.findall(r"```math\n(.*?)```", text, re.DOTALL):
        assert equation.count("{") == equation.count("}")
        assert equation.count(r"\left") == equation.count(r"\right")


# Commands -----------------------------------------------------------------------------------


def commands(page: str) -> list[list[str]]:
    """The words of every command in a page's code: python, torchrun, make and bash."""
    text = Path(page).read_text("utf-8")
    blocks = [m[0].strip("`") for m in FENCE.finditer(text)]
    rest = FENCE.sub("", text)
    blocks += ["\n".join(re.findall(r"^ {4}(.+)$", rest, re.MULTILINE))]
    blocks += [m[0].strip("`") for m in INLINE.finditer(rest)]
    found = []
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words and words[0] in ("python", "torchrun", "make", "bash") and len(words) > 1:
            found.append(words)
    return found


def source(words: list[str]) -> tuple[str, list[str]]:
    """The file that a command runs and its flags; ('', []) for one that is not of this project."""
    if words[0] == "make" or words[1] == "-c":
        return "", []
    if words[1] == "-m":
        name = words[2]
        assert importlib.util.find_spec(name), f"there is no module {name}"
        inside = Path(*name.split(".")).with_suffix(".py")
        return (str(inside), words[3:]) if inside.exists() else ("", [])
    scripts = [k for k, word in enumerate(words) if word.endswith((".py", ".sh"))]
    return (words[scripts[0]], words[scripts[0] + 1 :]) if scripts else ("", [])


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_with_their_flags(page):
    targets = set(re.findall(r"^(\w+):", Path("Makefile").read_text("utf-8"), re.MULTILINE))
    for words in commands(page):
        if words[0] == "make":
            assert words[1] in targets, f"there is no 'make {words[1]}'"
        path, rest = source(words)
        if not path or page.startswith("docs/") and not Path(path).exists():
            continue  # the page on custom models has the reader write files
        assert Path(path).exists(), f"there is no {path}"
        text = Path(path).read_text("utf-8")
        for flag in (word for word in rest if word.startswith("--") and word != "--help"):
            assert f'"{flag}"' in text, f"{path} has no {flag}"


@pytest.mark.parametrize("page", FILLED)
def test_flags_in_running_text_exist(page):
    names = ("train.py", "test.py", "codec.py", "tests/fuzz/__main__.py")
    programs = [Path(p).read_text("utf-8") for p in names]
    programs += [p.read_text("utf-8") for p in Path("benchmarks").glob("*.py")]
    text = Path(page).read_text("utf-8")
    flags = set(re.findall(r"(?<![\w-])--[a-z]\w*", text)) - {"--help"}
    assert not [f for f in flags if not any(f'"{f}"' in program for program in programs)]


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
    assert original.rate_at(curve, 32.0) == pytest.approx(0.5)
    assert original.rate_at(curve, 29.0) != original.rate_at(curve, 29.0)  # nan


@pytest.fixture()
def statistics(tmp_path, monkeypatch):
    """A function that writes <name>.csv into a statistics folder of the test's own."""
    monkeypatch.setattr(tables, "STATISTICS", tmp_path)

    def write(name: str, rows: list[dict]) -> None:
        write_text(tmp_path / f"{name}.csv", csv_text(rows, rows[0]))

    return write


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


def test_the_status_follows_the_checkpoints(statistics):
    assert study.status().startswith("**Preliminary.** 0 of the 16")
    statistics("checkpoints", trained(20_000)[:15])
    assert "Not trained yet: Checkerboard 0.0483." in study.status()
    statistics("checkpoints", trained(20_000))
    statistics("training_runs", [*trained(20_000), *trained(400)[:2]])
    assert study.status().startswith("**Complete.** 16 of the 16")
    assert "18 runs" in study.status() and "9.0 hours in all, on: a CPU" in study.status()


def test_the_sentences_take_their_numbers_from_the_csvs(statistics):
    assert "none yet" in study.learned()
    pair = {"metric": "psnr", "curve": STUDIED[1]}
    statistics("bd_rate", [
        {**pair, "against": f"{STUDIED[1]} (original study)", "bd_rate_percent": "-12.345"},
        {**pair, "against": STUDIED[0], "bd_rate_percent": "-23.4"},
    ])  # fmt: skip
    statistics(STUDIED[2], [{"time(dec)": "0.904"}, {"time(dec)": "1.3"}])
    text = study.learned()
    assert "Hyperprior -12.3 %" in text
    assert "Hyperprior / Factorized -23.4 %" in text
    assert "0.90-1.30 s" in text


def test_the_gap_is_that_of_the_mean_bits(statistics):
    rows = [
        {"lmbda": "0.013", "width": 100, "height": 80, "bits": 8080, "estimate_bpp": "1.0"},
        {"lmbda": "0.013", "width": 50, "height": 80, "bits": 4040, "estimate_bpp": "1.0"},
    ]
    statistics("per_image/Factorized", rows)
    line = "| Factorized | 0.013 | 757.5 | 750.0 | +7.5 | +1.00 % |"
    assert line in study.gap().splitlines()


def test_damaged_files_are_counted_and_failures_listed(statistics):
    assert trust.fuzz() == "Not measured.\n"
    counts = {"cases": 5000, "refused": 4800, "decoded": 199, "failures": 1, "seconds": "2.5"}
    statistics("fuzz", [{"model": model, **counts} for model in STUDIED])
    found = {"found_by": "found", "failure": "NaN came out", "test": "tests/test_a.py::test_b"}
    statistics("failures_found", [found])
    lines = trust.fuzz().splitlines()
    assert "| all | 20,000 | 19,200 | 796 | 4 | 10.0 |" in lines
    assert "* found: NaN came out (`tests/test_a.py::test_b`)" in lines


def test_the_tests_of_the_failures_found_are_there():
    for found in tables.rows_of("failures_found"):
        path, name = found["test"].split("::")
        assert f"def {name}(" in Path(path).read_text("utf-8")


def test_figures_are_found_by_their_beginning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "not committed yet" in study.figures("rd_curves")()
    Path("Image4md").mkdir()
    for name in ("rd_curves_psnr.png", "rd_curves_ms_ssim.png", "other.png"):
        Path("Image4md", name).touch()
    assert study.figures("rd_curves")() == (
        "![rd curves ms ssim](Image4md/rd_curves_ms_ssim.png)\n\n"
        "![rd curves psnr](Image4md/rd_curves_psnr.png)\n"
    )
    assert "(Image4md/rd_curves_psnr.png)" in study.first_figure()
