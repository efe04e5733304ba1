"""benchmarks.full_grids: the original's way of coding the checkerboard, on tiny random weights."""

import pytest
import torch

from benchmarks.full_grids import bits_of, code_full_grids, main, row_of
from benchmarks.integer_rate import Counter
from models.coding.loop import Coder
from models.coding.priors import code_factorized, to_grid
from models.coding.range_coder import Writer
from models.layers import parity
from tests.helpers import image, make
from tests.programs import read_csv, save_checkpoints, save_photographs


@pytest.fixture(scope="module")
def model():
    return make("CheckerboardAutogressive", 0).freeze()


def test_both_ways_decode_alike_and_the_holes_cost(model):
    once, grids = bits_of(model, image(128, 192))
    assert grids > once > 0


@torch.no_grad()
def test_the_holes_cost_what_the_tables_say_of_zeros(model):
    """The two grids without their holes are the stream that holds each position once."""
    latents = model.analysis(image(128, 192))
    shapes = {name: v.shape for name, v in latents.items()}
    frozen = model.frozen
    z_writer = Writer(frozen.coding["z"], 1)
    z_hat = to_grid(code_factorized(z_writer, latents["z"], shapes["z"], frozen.offsets["z"]))

    def counter():
        return Counter(Writer(frozen.coding["y"], 1), frozen.tables["y"])

    class Own(Coder):
        """Counts the bits of one half of the positions only."""

        def __init__(self, half):
            self.own, self.counter = parity(*shapes["y"][2:]).flatten() == half, counter()

        def code(self, symbols, indexes):
            self.counter.code(symbols[:, self.own], indexes[:, self.own])
            return symbols

    halves, once = [Own(0), Own(1)], counter()
    y_hat = code_full_grids(model, halves, latents["y"], shapes["y"], z_hat)
    assert torch.equal(y_hat, model.code_y(once, latents["y"], shapes["y"], z_hat))
    assert sum(h.counter.bits for h in halves) == pytest.approx(once.bits)


def test_a_row_has_the_means(model):
    x = image(64, 64)
    once, grids = (bits / 4096 for bits in bits_of(model, x))
    row = row_of(model, [x, x])
    assert (row["images"], row["once_bpp"], row["full_grids_bpp"]) == (
        "2", f"{once:.6f}", f"{grids:.6f}",
    )  # fmt: skip
    assert float(row["ratio"]) == pytest.approx(grids / once, abs=1e-4)


def test_the_command_writes_a_row_for_each_checkpoint(tmp_path):
    save_checkpoints(tmp_path / "ckpts", ["CheckerboardAutogressive"])
    images = save_photographs(tmp_path / "images")
    paths = sorted(map(str, (tmp_path / "ckpts").rglob("epoch_12_*.safetensors")))
    words = ["--dataset_path", str(images), "--outdir", str(tmp_path), "--checkpoints", *paths]
    assert main(words) == 0
    rows = read_csv(tmp_path / "full_grids.csv")
    assert [row["lmbda"] for row in rows] == ["0.0067", "0.0483"]
    assert all(float(row["ratio"]) > 1 for row in rows)
