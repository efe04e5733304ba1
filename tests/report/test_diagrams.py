"""The diagrams: complete, the same bytes every time, well laid out, true to the models."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import pytest

from models.coding import orders
from models.layers import causal_mask, checkerboard_mask
from notebooks.diagram_coding import step_numbers
from notebooks.diagram_networks import NETWORKS, Layer
from notebooks.diagram_style import ROLES, UNITS_PER_INCH, Diagram
from notebooks.diagrams import DIAGRAMS
from tests.programs import ROOT

SVG = "{http://www.w3.org/2000/svg}"
PARAMETERS = (  # model, N, M, all parameters of the published networks
    ("Factorized", 128, 192, 2_998_147),
    ("Hyperprior", 128, 192, 5_075_843),
    ("JointAutoregressiveHierarchicalPriors", 192, 192, 14_130_467),
)
# Non-parametric density with filters (3, 3, 3, 3): matrices, biases, factors, quantiles.
DENSITY = (3 + 3 * 9 + 3) + (4 * 3 + 1) + 4 * 3 + 3


@pytest.fixture(scope="module")
def drawn() -> dict[str, Diagram]:
    return {name: draw() for name, draw in DIAGRAMS.items()}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, Path]:
    """The files of the command, run in a process of its own, by diagram."""
    folder = tmp_path_factory.mktemp("diagrams")
    command = [sys.executable, "-m", "notebooks.diagrams", "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return {path.stem: path for path in folder.iterdir()}


def _texts(path: Path) -> list[str]:
    """What a picture says: each text precedes its outlines as a comment."""
    return re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_every_diagram_is_an_svg_that_shows_all_its_text(written, drawn):
    assert set(written) == set(DIAGRAMS)
    for name, path in written.items():
        root = ElementTree.parse(path).getroot()
        assert root.tag == f"{SVG}svg"
        groups = [g.get("id", "") for g in root.iter(f"{SVG}g")]
        texts = [g for g in groups if re.fullmatch(r"text_\d+", g)]
        assert len(texts) == len(drawn[name].texts) >= 8
        assert next(root.iter(f"{SVG}text"), None) is None  # paths, no font of the reader
        assert path.stat().st_size < 300_000


def test_another_process_draws_the_same_bytes(written, drawn):
    for name, path in written.items():
        assert path.read_bytes() == drawn[name].render("svg"), name


def test_the_committed_pictures_are_up_to_date(written):
    for name, path in written.items():
        committed = ROOT / "Image4md" / f"{name}.svg"
        assert _texts(committed) == _texts(path), f"run: python -m notebooks.diagrams ({name})"
        assert len(_texts(path)) >= 8


def _extents(d: Diagram) -> list[tuple[str, float, float, float, float]]:
    """(text, left, top, right, bottom) of every text in units."""
    out = []
    factor = UNITS_PER_INCH / d.figure.dpi
    for text in d.texts:
        b = text.get_window_extent()
        top, bottom = d.height - b.y1 * factor, d.height - b.y0 * factor
        out.append((text.get_text(), b.x0 * factor, top, b.x1 * factor, bottom))
    return out


def _faults(d: Diagram) -> list[str]:
    """Texts outside the panel or their box, on one another, or crossed by an arrow."""
    faults = []
    extents = _extents(d)
    for text, left, top, right, bottom in extents:
        if left < 1 or top < 0.5 or right > d.width - 1 or bottom > d.height - 0.5:
            faults.append(f"{text!r} leaves the panel")
    for first, second in combinations(extents, 2):
        if _overlap(first[1:], second[1:]):
            faults.append(f"{first[0]!r} and {second[0]!r} overlap")
    where = {id(text): extent for text, extent in zip(d.texts, extents, strict=True)}
    for text, node in d.boxed:
        name, left, top, right, bottom = where[id(text)]
        inside = node.x - node.width / 2 < left and right < node.x + node.width / 2
        if not (inside and node.top[1] < top and bottom < node.bottom[1]):
            faults.append(f"{name!r} leaves its box")
    for line in d.lines:
        for (x0, y0), (x1, y1) in zip(line[:-1], line[1:], strict=True):
            piece = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
            faults += [f"an arrow crosses {e[0]!r}" for e in extents if _overlap(piece, e[1:])]
    return faults


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("name", DIAGRAMS)
def test_no_text_is_hidden_or_crossed(drawn, name):
    assert _faults(drawn[name]) == []


def test_the_layout_check_finds_faults():
    d = Diagram(40, 20, "Title")
    d.box(20, 10, 6, 3, "far too long for its box", "data")
    d.text(20, 10, "on top of it")
    d.text(39, 16, "out of the panel")
    d.arrow((2, 10), (38, 10))
    found = " ".join(_faults(d))
    for fault in ("leaves its box", "overlap", "leaves the panel", "crosses"):
        assert fault in found


def test_text_is_legible_in_size_and_contrast(drawn):
    for name, d in drawn.items():
        assert min(text.get_size() for text in d.texts) >= 8.5, name
    for fill, _ in ROLES.values():
        assert _luminance(fill) > 0.6  # dark ink on every fill, whatever the page's mode


def _luminance(colour: str) -> float:
    """WCAG relative luminance of '#rrggbb'."""
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _count(expression: str, n: int, m: int) -> int:
    """'10M/3' with M = 192 -> 640."""
    factor, letter, divisor = re.fullmatch(r"(\d*)([NM]?)(?:/(\d+))?", expression).groups()
    value = Fraction(int(factor or 1), int(divisor or 1)) * {"N": n, "M": m, "": 1}[letter]
    return int(value)  # rounded down, as in the models


def _parameters(layer: Layer, n: int, m: int) -> int:
    inputs, outputs = _count(layer.inputs, n, m), _count(layer.outputs, n, m)
    if layer.kind in ("GDN", "IGDN"):
        return outputs * outputs + outputs
    return layer.kernel**2 * inputs * outputs + outputs if layer.has_kernel else 0


@pytest.mark.parametrize(("model", "n", "m", "expected"), PARAMETERS)
def test_the_layers_drawn_have_the_published_parameter_counts(model, n, m, expected):
    towers = NETWORKS[model]
    total = sum(_parameters(layer, n, m) for tower in towers for layer in tower)
    total += DENSITY * (m if model == "Factorized" else n)
    assert total == expected


def test_layers_follow_one_another():
    for towers in NETWORKS.values():
        for tower in towers:
            for first, second in zip(tower[:-1], tower[1:], strict=True):
                assert first.outputs == second.inputs


@pytest.mark.parametrize(
    ("order", "mask"),
    [
        (orders.raster, causal_mask()),
        (orders.wavefront, causal_mask()),
        (orders.checkerboard, checkerboard_mask()),
    ],
)
def test_what_a_position_sees_has_a_smaller_step_number(order, mask):
    rows, columns = 6, 8
    steps = step_numbers(order, rows, columns)
    assert min(map(min, steps)) == 0
    for row in range(rows):
        for column in range(columns):
            if order is orders.checkerboard and steps[row][column] == 0:
                continue  # anchors have no context
            for i, j in mask.nonzero().tolist():
                r, c = row + i - 2, column + j - 2
                if 0 <= r < rows and 0 <= c < columns:
                    assert steps[r][c] < steps[row][column]


def test_wavefront_numbers_are_column_plus_three_rows():
    steps = step_numbers(orders.wavefront, 6, 8)
    assert steps == [[column + 3 * row for column in range(8)] for row in range(6)]
