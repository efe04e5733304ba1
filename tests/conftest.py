"""What every test shares: one CPU thread, fixed seeds, no time limit of its own per example."""

from __future__ import annotations

import os
import random
import shutil

# Before torch starts its thread pools, and inherited by the processes that tests start: the
# models under test are so small that threads only get in each other's way. A caller's own
# setting wins.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where a test asks for two, and others run beside it, a thread that waits by spinning takes ten
# times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Figures are drawn to files, also where there is a display.
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import numpy as np
import pytest
import torch

from models import registry
from tests.programs import save_checkpoints, save_photographs

# The same examples on every run; a slow machine is not a failure.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest first: one that starts last leaves the other process with nothing to do."""
    slow = ("test_commands.py", "test_notebooks.py", "test_processes.py")
    items.sort(key=lambda item: item.path.name not in slow)


@pytest.fixture(autouse=True)
def seeded() -> int:
    """Seed every generator before each test, so that no test depends on those before it."""
    seed = 0
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed


@pytest.fixture(autouse=True)
def threads_restored():
    """Give the next test the number of threads that this one found."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def registry_restored():
    """For tests that register models: afterwards the registry is as before."""
    tables = registry.MODELS, registry._ALIASES
    before = [dict(table) for table in tables]
    yield
    for table, then in zip(tables, before, strict=True):
        table.clear()
        table.update(then)


@pytest.fixture(scope="session")
def saved_ckpts(tmp_path_factory):
    return save_checkpoints(tmp_path_factory.mktemp("ckpts"))


@pytest.fixture(scope="module")
def ckpts(saved_ckpts, tmp_path_factory):
    """Small checkpoints of all models, see `save_checkpoints`: a copy for each module."""
    return shutil.copytree(saved_ckpts, tmp_path_factory.mktemp("ckpts") / "ckpts")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two small images, see `save_photographs`."""
    return save_photographs(tmp_path_factory.mktemp("photographs"))
