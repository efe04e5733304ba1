"""Names of models and the operating points of the study."""

import pytest

import models
from models.coding.container import read_header
from models.factorized import Factorized
from models.presets import OPERATING_POINTS, OperatingPoint, operating_point, points, zoo_point
from tests.helpers import NAMES, M, N, image, make

JOINT, CHECKERBOARD = "JointAutoregressiveHierarchicalPriors", "CheckerboardAutogressive"


@pytest.mark.parametrize(
    "alias,name",
    [(name, name) for name in NAMES]
    + [(name.upper(), name) for name in NAMES]
    + [
        ("FactorizedPrior", "Factorized"),
        ("ScaleHyperprior", "Hyperprior"),
        ("JointAutoregressive", JOINT),
        ("jointautoregressive", JOINT),
        ("Checkerboard", CHECKERBOARD),
        ("CheckerboardAutoregressive", CHECKERBOARD),
    ],
)
def test_names(alias, name):
    assert models.canonical_name(alias) == name


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=", ".join(NAMES)):
        models.build("Hyperpriors", N, M)
    with pytest.raises(ValueError, match="at least 1"):
        models.build("Hyperprior", 0, 12)


@pytest.fixture
def registry():
    """The registry, put back afterwards."""
    before = dict(models.MODELS), dict(models._ALIASES)
    yield
    for now, then in zip((models.MODELS, models._ALIASES), before, strict=True):
        now.clear()
        now.update(then)


def test_a_custom_model_codes_under_its_own_name(registry):
    @models.register
    class Mine(Factorized):
        pass

    made = make("mine").freeze()
    x = image(20, 30)
    (data,) = made.compress(x)
    assert read_header(data).model == "Mine"
    assert made.decompress([data]).shape == x.shape
    with pytest.raises(ValueError, match="taken"):
        models.register(type("Other", (Factorized,), {}), "Mine")


def test_operating_points():
    assert len(OPERATING_POINTS) == 16
    for name in NAMES:
        assert [p.lmbda for p in points(name)] == [0.0067, 0.013, 0.025, 0.0483]
        assert [p.code_rate for p in points(name)] == ["low", "low", "high", "high"]
        assert {(p.N, p.M) for p in points(name, "high")} == {(192, 320)}
    assert {(p.N, p.M) for p in points("Hyperprior", "low")} == {(128, 192)}
    assert {(p.N, p.M) for p in points(JOINT, "low")} == {(192, 192)}
    assert operating_point("Factorized", 0.013).code_rate == "low"
    with pytest.raises(ValueError, match="0.0067, 0.013, 0.025, 0.0483"):
        operating_point("Factorized", 0.02)
    assert zoo_point("Hyperprior", 5) == OperatingPoint("Hyperprior", 0.025, "low", 128, 192)
    assert zoo_point(JOINT, 5, "ms-ssim").M == 320 and zoo_point(JOINT, 4).M == 192
    for arguments in (("Hyperprior", 9), ("Hyperprior", 1, "vmaf"), ("Mine", 1)):
        with pytest.raises(ValueError):
            zoo_point(*arguments)
