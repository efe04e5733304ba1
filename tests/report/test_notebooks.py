"""The notebooks run from top to bottom, and the densities that they fit are densities."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from benchmarks.densities import PiecewiseLinearDensity, divergence, fit, log_density
from benchmarks.side_information import correlation
from models.entropy.density import NonParametricDensity
from notebooks import common
from tests.programs import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
assert NOTEBOOKS


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """A kernel for all notebooks, whose imports take longer than their cells; and its figures."""
    figures, empty = tmp_path_factory.mktemp("figures"), nbformat.v4.new_notebook()
    own = {"NOTEBOOK_FIGURES": str(figures), "NOTEBOOK_QUICK": "1"}
    folder = {"metadata": {"path": str(ROOT / "notebooks")}}
    client = NotebookClient(empty, timeout=600, kernel_name="python3", resources=folder)
    client.execute(cleanup_kc=False, env=os.environ | own)
    yield client, figures
    client.nb = empty
    client.execute()  # and ends the kernel


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, kernel):
    """With no names of the others, on the built-in photographs, outside the repository."""
    client, figures = kernel
    client.nb = read(path)
    client.nb.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    before = set(figures.iterdir())
    client.execute(cleanup_kc=False)
    for file in set(figures.iterdir()) - before:
        assert file.name.startswith(path.stem) and file.suffix == ".png"
        assert (ROOT / "Image4md" / file.name).is_file(), f"{file.name} is not committed"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs(path):
    """Every code cell has been run, once and in order; no output names a machine's folder."""
    notebook = read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    text = str([{k: v for k, v in o.get("data", o).items() if "image" not in k} for o in outputs])
    assert not re.search(r"/(home|root|Users|tmp|work|mnt)/", text)
    assert len(notebook.cells) - len(code) >= 4  # explained


def test_figures_of_the_report_are_written_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOTEBOOK_FIGURES", raising=False)
    assert common.figure_path("a") == Path("outputs/notebooks/a.png")
    monkeypatch.setenv("NOTEBOOK_FIGURES", "Image4md")
    assert common.figure_path("a") == Path("Image4md/a.png")


def test_correlation_of_a_wave_by_hand():
    """A wave of four positions across: -1 two positions on, 1 four on, and 1 downwards."""
    wave = torch.sin(torch.arange(40) * torch.pi / 2).repeat(2, 16, 1)
    values = correlation(wave)
    assert values.shape == (9, 9) and values[4, 4] == pytest.approx(1)
    assert values[4, 6] == values[4, 2] == pytest.approx(-1)
    assert values[4, 8] == values[0, 4] == pytest.approx(1)
    assert values[4, 5] == pytest.approx(0, abs=1e-3)


# The densities of univariate_density.ipynb ---------------------------------------------------


def test_log_density_is_the_derivative_of_the_cumulative():
    density = NonParametricDensity(3, filters=(3, 3, 3))
    for factor in density.factors:
        torch.nn.init.normal_(factor)
    v = torch.linspace(-4, 4, 101).repeat(3, 1).requires_grad_()
    cumulative = torch.sigmoid(density.logits_cumulative(v[:, None, :]))
    (slope,) = torch.autograd.grad(cumulative.sum(), v)
    torch.testing.assert_close(log_density(density, v).exp(), slope, rtol=1e-4, atol=1e-6)
    far = torch.tensor([[-1e3, 1e3]]).repeat(3, 1)  # the cumulative rounds to 0 and 1
    assert torch.isfinite(log_density(density, far)).all()


def test_piecewise_linear_density_by_hand():
    """Heights 0+, 1, 0+ over [0, 4] make a triangle: p(2) = 1/2, p(1) = p(3) = 1/4."""
    density = PiecewiseLinearDensity(torch.tensor([0.0]), torch.tensor([4.0]), knots=3)
    with torch.no_grad():
        density.heights.copy_(torch.tensor([[-40.0, math.log(math.e - 1), -40.0]]))
    p = density.log_density(torch.tensor([[-1.0, 1.0, 2.0, 3.0, 5.0]])).exp()
    torch.testing.assert_close(p, torch.tensor([[0.0, 0.25, 0.5, 0.25, 0.0]]))


def test_piecewise_linear_density_integrates_to_one():
    low, high = torch.tensor([-3.0, 0.5]), torch.tensor([2.0, 9.0])
    density = PiecewiseLinearDensity(low, high, knots=11)
    torch.nn.init.normal_(density.heights)
    v = torch.stack([torch.linspace(-4, 3, 70001), torch.linspace(0, 10, 70001)])
    integral = torch.trapezoid(density.log_density(v).exp(), v)
    torch.testing.assert_close(integral, torch.ones(2), rtol=1e-3, atol=0)


def normal_points(n: int = 4096) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantiles of N(0, 1) and its log density there."""
    standard = torch.distributions.Normal(0.0, 1.0)
    points = standard.icdf((torch.arange(n) + 0.5) / n)[None]
    return points, standard.log_prob(points)


def test_divergence_of_two_normals():
    """KL(N(0, 1) || N(m, s^2)) = log s + (1 + m^2) / (2 s^2) - 1/2, in nats."""
    points, log_target = normal_points()
    other = torch.distributions.Normal(0.5, 2.0)
    expected = (math.log(2.0) + (1 + 0.25) / 8 - 0.5) / math.log(2)
    kl = divergence(other.log_prob, points, log_target).item()
    assert kl == pytest.approx(expected, abs=1e-3)


def test_fit_reaches_a_normal_and_reports_on_its_way():
    points, log_target = normal_points()
    density = NonParametricDensity(1, filters=(3, 3))
    log_p = lambda v: log_density(density, v)  # noqa: E731
    fitting = fit(density, log_p, points, log_target, steps=150, lr=0.1, batch=128)
    losses = [divergence(log_p, points, log_target).item() for step in fitting if step in (0, 150)]
    assert len(losses) == 2 and losses[1] < 0.1 < losses[0]
