"""What the tests of the command-line programs share: small checkpoints, images, checks."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from evaluation.tables import Row
from models import checkpoint
from models.images import to_uint8, write_image
from tests.helpers import NAMES, image, make

ROOT = Path(__file__).parents[1]
LAMBDAS = (0.0067, 0.0483)
SIZES = {"small.png": (70, 50), "odd.png": (161, 165)}  # height, width


def load_test_program():
    """test.py by its path: the standard library has a package `test` too."""
    spec = importlib.util.spec_from_file_location("test_program", ROOT / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class SecondCodec:
    """Stands in for the decoder process, whose imports take long: a codec loaded again."""

    def __init__(self, point):
        self.codec = point.load()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def decode(self, source):
        return self.codec.decode(source.read_bytes()), 0.1


def save_checkpoints(root: Path, names: Iterable[str] = NAMES) -> Path:
    """Of every model two lambdas at epoch 12, the larger at epoch 3 as well; returns root."""
    for name in names:
        for seed, lmbda in enumerate(LAMBDAS):
            model = make(name, seed, lmbda=lmbda)
            for epoch in (3, 12) if lmbda == LAMBDAS[1] else (12,):
                path = checkpoint.path_for(name, epoch, lmbda, root)
                checkpoint.save(path, model, config={}, provenance={})
    return root


def save_photographs(folder: Path) -> Path:
    """Images of `SIZES`; returns the folder."""
    for seed, (name, size) in enumerate(SIZES.items()):
        write_image(folder / name, to_uint8(image(*size, seed)))
    return folder


def result_row(lmbda: float, name: str = "a.png", bpp: float = 1.0, similarity: float = 0.9) -> Row:
    """A result of test.py on an image of 10 x 20 pixels."""
    return {
        "lmbda": lmbda, "image": name, "width": 10, "height": 20, "bits": int(bpp * 200),
        "bpp": bpp, "psnr": 30.0, "ms_ssim": similarity, "estimate_bpp": bpp,
        "time(enc)": 0.1, "time(dec)": 0.2,
    }  # fmt: skip


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files_in(folder: Path) -> list[str]:
    """Names of all files in and below a folder."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def one_line(capsys, *words: str) -> None:
    """Assert that the error output is a single line with these words."""
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    assert all(word in error for word in words), error
