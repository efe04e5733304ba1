"""README and report: their tables, links, figures, anchors and commands."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shlex
import unicodedata
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks.report import __main__ as program
from benchmarks.report import figures
from benchmarks.report.markdown import MARKERS
from benchmarks.report.tables import TABLES
from evaluation.tables import read
from models import checkpoint
from models.datasets import natural_order
from models.images import read_image
from tests.programs import ROOT
from training.settings import Settings

FILLED = ("README.md", "report.md", "docs/measurements.md")
PAGES = (*FILLED[:2], *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))
FENCE = re.compile(r"^```.*?^```[ ]*$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`[^`\n]+`")


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def prose(page: str) -> str:
    """A page without code."""
    return INLINE.sub("", FENCE.sub("", Path(page).read_text("utf-8")))


# Tables -------------------------------------------------------------------------------------


def test_tables_are_those_of_the_csvs():
    stale = [str(path) for path, text in program.texts() if path.read_text("utf-8") != text]
    assert not stale, f"{', '.join(stale)}: run 'make report'"


def test_every_marker_has_a_table_and_every_table_a_marker():
    named = set()
    for page in FILLED:
        text = Path(page).read_text("utf-8")
        begins, ends = (re.findall(rf"^<!-- (\w+):{side} -->$", text, re.MULTILINE)
                        for side in ("begin", "end"))  # fmt: skip
        assert begins == ends == [m[2] for m in MARKERS.finditer(text)]
        assert len(set(begins)) == len(begins)
        named |= set(begins)
    assert named == TABLES.keys()


@pytest.mark.parametrize("page", FILLED)
def test_numbers_in_tables_come_from_csvs(page):
    """A table with columns set right stands between markers, but for a first column of numbers."""
    by_hand = MARKERS.sub("", Path(page).read_text("utf-8"))
    assert not re.findall(r"^\|[^|\n]+\|.*---:.*$", by_hand, re.MULTILINE)


def test_every_csv_has_its_line_and_every_line_its_csv():
    page = Path("statistics/README.md").read_text("utf-8")
    lines = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    names = [name for line in lines for name in re.findall(r"`([^`]+)`", line)]
    patterns = {re.sub("<.*?>", "*", name) for name in names}
    folder = Path("statistics")
    listed = {pattern: set(folder.glob(pattern)) for pattern in patterns}
    assert not [pattern for pattern, paths in listed.items() if not paths]
    there = {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"}
    assert there == set().union(*listed.values())


# Links, anchors, equations ------------------------------------------------------------------


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    letters = (
        c for c in heading.strip().lower() if c in " -_" or unicodedata.category(c)[0] in "LNM"
    )
    return "".join(letters).replace(" ", "-")


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


# Figures and CSVs ----------------------------------------------------------------------------

FIGURE = re.compile(r"^!\[([^\]]*)\]\((Image4md/[^)]+)\)\n\n(.*?)\n\n", re.DOTALL | re.MULTILINE)


def test_every_figure_has_its_words_and_its_caption():
    figures = FIGURE.findall(Path("report.md").read_text("utf-8"))
    for number, (words, path, caption) in enumerate(figures, 1):
        assert len(words.split()) >= 5, f"{path} has no text for those who do not see it"
        assert caption.startswith(f"**Figure {number}.** "), path
    pages = "".join(Path(page).read_text("utf-8") for page in PAGES)
    notebooks = tuple(p.stem for p in Path("notebooks").glob("*.ipynb"))  # show their own
    unused = [p for p in Path("Image4md").iterdir() if f"{p})" not in pages]
    assert not [p for p in unused if not p.name.startswith(notebooks)]


def test_figures_are_drawn_from_the_csvs(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "IMAGES", tmp_path)
    figures.main()
    for name in figures.FIGURES:
        assert (ROOT / f"Image4md/{name}.png").exists()
        assert read_image(tmp_path / f"{name}.png").std() > 5


def test_the_list_of_images_is_that_of_every_checkpoint():
    rows = read(Path("statistics/training/images.csv"))
    assert all(re.fullmatch("[0-9a-f]{64}", r["sha256"]) and r["licence"] for r in rows)
    sets = {}
    for column, name in (("use", str), ("use_in_one_folder", lambda file: Path(file).name)):
        named = sorted(((name(r["file"]), r) for r in rows), key=lambda n: natural_order(n[0]))
        used = [(n, r) for n, r in named if r[column] == "training"]
        sizes = [f"{n} {r['height']} {r['width']} 1" for n, r in used]
        sets[hashlib.sha256("\n".join(sizes).encode()).hexdigest()[:16]] = len(used)
        names = sorted((n for n, _ in named), key=lambda n: hashlib.sha256(n.encode()).digest())
        held_out = {n for n, r in named if r[column] == "validation"}
        assert held_out == set(names[: len(held_out)])
    fingerprints = {row["data_fingerprint"] for row in read(Path("statistics/held_out.csv"))}
    assert sets.keys() == fingerprints
    for path in Path("ckpts").rglob("epoch_*.safetensors"):
        run = checkpoint.read_metadata(path)["provenance"]
        assert sets[run["data_fingerprint"]] == run["images"]


# Commands -----------------------------------------------------------------------------------


def commands(page: str) -> list[list[str]]:
    """The words of every command in a page's code: python, torchrun, make and bash."""
    text = Path(page).read_text("utf-8")
    blocks = [m[0].strip("`") for m in FENCE.finditer(text)]
    rest = FENCE.sub("", text)
    blocks += ["\n".join(re.findall(r"^ {4}(.+)$", rest, re.MULTILINE))]
    blocks += [m[0].strip("`") for m in INLINE.finditer(rest)]
    listed = []
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words and words[0] in ("python", "torchrun", "make", "bash") and len(words) > 1:
            listed.append(words)
    return listed


def source(words: list[str]) -> tuple[str, list[str]]:
    """The file that a command runs and its flags; ('', []) for one that is not of this project."""
    if words[0] == "make" or words[1] == "-c":
        return "", []
    if "tests.conformance" in words:  # what follows is the command of a decoder
        return "", []
    if words[1] == "-m":
        name = words[2]
        if name == "benchmarks" and len(words) > 3:
            module = importlib.import_module(f"benchmarks.{words[3]}")
            return str(Path(module.__file__).relative_to(Path.cwd())), words[4:]
        assert importlib.util.find_spec(name), f"there is no module {name}"
        inside = Path(*name.split(".")).with_suffix(".py")
        return (str(inside), words[3:]) if inside.exists() else ("", [])
    scripts = [k for k, word in enumerate(words) if word.endswith((".py", ".sh"))]
    return (words[scripts[0]], words[scripts[0] + 1 :]) if scripts else ("", [])


def program_text(path: str) -> str:
    """The source of a program, and train.py's flags, which are the fields of its settings."""
    flags = [f'"--{field.name}"' for field in fields(Settings)] if path == "train.py" else []
    return " ".join([Path(path).read_text("utf-8"), *flags])


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
        text = program_text(path)
        if path.startswith("benchmarks/"):
            text += Path("benchmarks/__main__.py").read_text("utf-8")
        for flag in (word for word in rest if word.startswith("--") and word != "--help"):
            assert f'"{flag}"' in text, f"{path} has no {flag}"


@pytest.mark.parametrize("page", FILLED)
def test_flags_in_running_text_exist(page):
    names = ("train.py", "test.py", "codec.py", "tests/fuzz/__main__.py")
    programs = [program_text(name) for name in names]
    programs += [p.read_text("utf-8") for p in Path("benchmarks").glob("*.py")]
    text = re.sub(r"`(git|--filter)[^`]+`", "", Path(page).read_text("utf-8"))
    flags = set(re.findall(r"(?<![\w-])--[a-z]\w*", text)) - {"--help"}
    assert not [f for f in flags if not any(f'"{f}"' in program for program in programs)]


def test_every_failure_found_has_its_test():
    for row in read(ROOT / "statistics/failures_found.csv"):
        path, _, name = row["test"].partition("::")
        assert f"def {name.partition('[')[0]}(" in Path(path).read_text("utf-8"), row
