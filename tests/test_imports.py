"""Imports run one way: each room of the house knows only the rooms on the floors below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.programs import ROOT

# From the ground up; rooms of one floor do not know each other. A package stands for all its
# modules but those that are rooms themselves; `models` is the front door, its __init__.py.
FLOORS = (
    ("models.errors", "models.files", "models.presets"),
    ("models.layers", "models.cli", "models.datasets"),
    ("models.entropy", "models.images"),
    ("models.coding",),
    ("models.base",),
    ("models.factorized", "models.hyperprior", "models.joint_autoregressive", "models.checkerboard",
     "models.search"),
    ("models.registry",),
    ("models.checkpoint",),
    ("models", "models.convert"),
    ("training", "evaluation"),
    ("train", "test", "codec"),
    ("benchmarks",),
    ("notebooks",),
    ("tests",),
)  # fmt: skip
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PROGRAMS = [ROOT / f"{name}.py" for name in ("train", "test", "codec")]
PACKAGES = ("models", "training", "evaluation", "benchmarks", "notebooks")
FILES = PROGRAMS + [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]


def room_of(module: str) -> str | None:
    """The room of a module or of a name in one; None for what is not the repository's."""
    while module and module not in FLOOR:
        module = module.rpartition(".")[0]
    return module or None


def module_of(path: Path) -> str:
    """models/base.py -> models.base; a package's __init__.py -> the package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(text: str) -> set[str]:
    """The rooms that a module imports, at its top or in a function."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {room for name in names if (room := room_of(name))}


def upward(room: str, imported: set[str]) -> set[str]:
    """Those of the imported rooms that a room may not know."""
    return {other for other in imported - {room} if FLOOR[other] >= FLOOR[room]}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_module_imports_only_from_floors_below(path):
    assert not upward(room_of(module_of(path)), imports_of(path.read_text(encoding="utf-8")))


def test_every_module_of_models_has_a_room():
    modules = [module_of(path) for path in FILES if path.parent == ROOT / "models"]
    assert [name for name in modules if name not in FLOOR] == []


@pytest.mark.parametrize(
    ("room", "text", "expected"),
    [
        ("training", "from evaluation.metrics import psnr", {"evaluation"}),
        (
            "models.hyperprior",
            "def f():\n    from models.factorized import F",
            {"models.factorized"},
        ),
        ("models.coding", "import models", {"models"}),
        ("benchmarks", "from notebooks import common", {"notebooks"}),
        ("evaluation", "import models\nimport numpy\nfrom models import checkpoint", set()),
    ],
)
def test_imports_from_above_are_found(room, text, expected):
    assert upward(room, imports_of(text)) == expected
