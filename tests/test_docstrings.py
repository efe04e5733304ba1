"""What is public has a docstring, its own or its base class's; arrays have shapes."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import pytest

import evaluation
import models
import training

MODULES = [
    name
    for package in (models, training, evaluation)
    for name in (
        package.__name__,
        *(m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")),
    )
]
ARRAYS = re.compile(r"\bTensor\b|\bndarray\b|\bNDArray\b")
SHAPE = re.compile(r"\([^()]*,[^()]*\)|\bshape|scalar|any size|like \w", re.IGNORECASE)
# Python's and torch's own, whose meaning is fixed.
KNOWN = ("state_dict", "load_state_dict", "to", "train", "extra_repr", "mode")


def public(module):
    """(qualified name, object, class or None) of what the module itself defines."""
    for name, item in vars(module).items():
        if name.startswith("_") or getattr(item, "__module__", "") != module.__name__:
            continue
        if inspect.isclass(item):
            yield name, item, None
            for inner, member in vars(item).items():
                member = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if not inner.startswith("_") and inspect.isfunction(member):
                    yield f"{name}.{inner}", member, item
        elif inspect.isfunction(item):
            yield name, item, None


def said(name, item, owner) -> str:
    inherited = inspect.getdoc(getattr(owner, name.split(".")[-1])) if owner else None
    return inspect.getdoc(item) or inherited or ""


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_described(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    missing = [n for n, item, owner in public(module)
               if n.split(".")[-1] not in KNOWN and not said(n, item, owner)]  # fmt: skip
    assert not missing


@pytest.mark.parametrize("name", MODULES)
def test_functions_of_arrays_say_their_shapes(name):
    missing = []
    for label, item, owner in public(importlib.import_module(name)):
        if not inspect.isfunction(item) or label.split(".")[-1] in KNOWN:
            continue
        if not ARRAYS.search(" ".join(map(str, item.__annotations__.values()))):
            continue
        texts = [said(label, item, owner), inspect.getdoc(owner) or "" if owner else ""]
        if not any(SHAPE.search(text) for text in texts):
            missing.append(label)
    assert not missing
