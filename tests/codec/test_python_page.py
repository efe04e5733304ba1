"""docs/python.md: its code, as printed there, loads, computes, codes and extends; it installs."""

import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch

from models import checkpoint
from models.base import pad
from models.coding.container import read_header
from models.datasets import sample_photographs
from models.images import write_image
from tests.programs import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.fixture
def page(tmp_path, monkeypatch, registry_restored):
    """The names that the page's code leaves, run in a folder with a photograph."""
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "photo.png", sample_photographs()[0][1][:100, 100:270])
    names = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(block, "docs/python.md", "exec"), names)
    return names


def test_the_page_does_what_it_says(page, tmp_path):
    codec, x, height, width = (page[name] for name in ("codec", "x", "height", "width"))
    assert (codec.point.model, codec.point.lmbda) == ("Hyperprior", 0.013)
    assert page["x_hat"].shape == x.shape == (1, 3, 100, 170) and (height, width) == (100, 170)
    assert (page["x_hat"] - x).square().mean() < 0.005
    assert page["bits"]["y"].shape == (1, 8, 12) and page["bits"]["z"].shape == (1, 2, 3)

    files = [(tmp_path / f"{name}.lic").read_bytes() for name in ("photo", "mirrored")]
    assert files == codec.compress(page["batch"])
    torch.testing.assert_close(page["back"][:1], page["x_hat"], rtol=0, atol=1e-3)
    real = 8 * sum(read_header(files[0]).lengths)
    assert page["bpp"].item() * height * width == pytest.approx(real, rel=0.01, abs=128)
    assert torch.equal(page["same"], page["y_hat"])
    assert sum(len(stream[0]) for stream in page["streams"]) * 8 == real

    small = (tmp_path / "small.lic").read_bytes()
    assert 0.38 < 8 * len(small) / (height * width) <= 0.4
    assert page["small"].size == (170, 100)

    mine = page["mine"]
    assert page["rate"].item() > 0 and mine.g_a[0].weight.grad.abs().sum() > 0
    assert read_header(page["data"]).model == "PlainHyperprior"
    assert mine.decompress([page["data"]]).shape == x.shape
    assert read_header(page["coarse_data"]).model == "OneScale"
    latents = page["coarse"].analysis(pad(x, 64))
    y_hat = page["coarse"].likelihoods(latents, "round")[0]
    expected = page["coarse"].synthesis(y_hat)[:, :, :height, :width].clamp(0, 1)
    torch.testing.assert_close(page["coarse_x_hat"], expected, rtol=0, atol=1e-3)
    with torch.no_grad():  # random weights give no scale above the first threshold
        page["coarse"].h_s[-1].bias.fill_(2.0)
    page["coarse"].freeze()
    for gain in (1.0, 0.5):
        estimate = page["coarse"](pad(x, 64), "round", gain)["likelihoods"]["y"].log2().sum()
        real = 8 * read_header(page["coarse"].compress(x, gain)[0]).lengths[1]
        assert real == pytest.approx(-estimate.item(), rel=0.05)  # one level of scales for all
    path = checkpoint.path_for("PlainHyperprior", 0, 0.0, tmp_path)
    checkpoint.save(path, mine, config={}, provenance={})
    assert page["models"].load("PlainHyperprior", root=tmp_path).compress(x) != [b""]


def test_the_package_is_the_codecs_and_their_command(tmp_path):
    """Built of all the folders of the repository, as `pip install` does."""
    left_out = shutil.ignore_patterns(".*", "ckpts", "Image4md", "data", "outputs", "runs")
    shutil.copytree(ROOT, tmp_path / "clone", ignore=left_out)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path / "clone", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    own = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert own == {"models", "codec.py"}
    assert {"models/__init__.py", "models/coding/loop.py", "models/py.typed"} <= set(names)
    (commands,) = (name for name in names if name.endswith("entry_points.txt"))
    assert b"lic = codec:main" in archive.read(commands)
