"""The benchmark reconstructions: one photograph through every codec at one rate."""

import pytest
from PIL import Image

from benchmarks import reconstructions
from benchmarks.__main__ import main
from models.datasets import sample_photographs
from models.images import write_image
from tests.programs import read_csv


@pytest.fixture
def photograph(tmp_path, monkeypatch):
    """A photograph; of ours, one model stands for all, since trained weights take their time."""
    monkeypatch.setattr(reconstructions, "STUDIED", ("Hyperprior",))
    path = tmp_path / "cat.png"
    write_image(path, sample_photographs()[0][1][:256, :320])
    return path


def test_all_are_at_the_rate_and_ours_no_larger(photograph, tmp_path, capsys):
    flags = ["--bpp", "1.5", "--effort", "0", "--crop", "0", "0"]
    assert main(["reconstructions", str(photograph), *flags, "--outdir", str(tmp_path)]) == 0
    rows = {row["codec"]: row for row in read_csv(tmp_path / "reconstructions.csv")}
    assert list(rows) == ["Hyperprior", "JPEG", "WebP"]
    for name, row in rows.items():
        assert float(row["psnr"]) > 25
        if name == "Hyperprior":
            assert float(row["bpp"]) <= 1.5
        else:
            assert float(row["bpp"]) == pytest.approx(1.5, rel=0.1)
    assert Image.open(tmp_path / "reconstructions.png").width > 256


def test_a_rate_that_none_of_ours_reaches_leaves_them_out(photograph, tmp_path, capsys):
    flags = ["--bpp", "0.01", "--effort", "0"]
    assert main(["reconstructions", str(photograph), *flags, "--outdir", str(tmp_path)]) == 0
    assert [row["codec"] for row in read_csv(tmp_path / "reconstructions.csv")] == ["JPEG", "WebP"]
    assert "is left out" in capsys.readouterr().out
