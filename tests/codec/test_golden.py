"""Committed files decode to pinned symbols, on this machine and with this version of torch."""

import copy
import json

import numpy as np
import pytest
import torch

from models.coding.container import read_header, unpack
from models.coding.integer import FRACTION_BITS
from models.entropy.gaussian import scale_levels
from models.entropy.tables import gaussian_tables, scale_thresholds
from tests.golden import make
from tests.helpers import NAMES, uniform

PINNED = json.loads((make.FOLDER / "golden.json").read_text())

each_model = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def golden():
    """The frozen model of each golden stream, and the file."""
    tables = make.read_tables()
    return {n: (make.model_of(n, tables), (make.FOLDER / f"{n}.lic").read_bytes()) for n in NAMES}


@each_model
def test_weights_and_tables_are_the_pinned_integers(name, golden):
    model, data = golden[name]
    assert model.digest == PINNED[name]["integers"] == read_header(data).digest


@each_model
@pytest.mark.parametrize("threads", [1, 2])
def test_golden_streams_decode_to_pinned_digests(name, threads, golden):
    model, data = golden[name]
    torch.set_num_threads(threads)
    _, streams = unpack(data)
    y_hat = model.decode([[stream] for stream in streams], *make.PADDED)
    assert make.digest_of(y_hat) == PINNED[name]["y_hat"]


@each_model
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_golden_streams_decode_to_pinned_digests_on_a_gpu(name, golden):
    model, data = golden[name]
    there = copy.deepcopy(model).to("cuda")
    _, streams = unpack(data)
    y_hat = there.decode([[stream] for stream in streams], *make.PADDED)
    assert y_hat.is_cuda and make.digest_of(y_hat.cpu()) == PINNED[name]["y_hat"]
    latents = {k: v.cuda() for k, v in make.latents(model).items()}
    assert [stream[0] for stream in there.encode(latents)] == streams


@each_model
def test_encoding_writes_the_golden_bytes(name, golden):
    """The format's writer has not changed either."""
    model, data = golden[name]
    _, streams = unpack(data)
    assert [stream[0] for stream in model.encode(make.latents(model))] == streams


@each_model
def test_golden_files_decompress(name, golden):
    model, data = golden[name]
    assert len(data) == PINNED[name]["bytes"]
    assert model.decompress([data]).shape == (1, 3, make.HEIGHT, make.WIDTH)


def test_stored_tables_are_those_made_here_but_for_the_last_units():
    stored, made = make.read_tables()["gaussian"], gaussian_tables()
    assert np.array_equal(stored.lengths, made.lengths) and np.array_equal(stored.first, made.first)
    for one, other in zip(stored.rows(), made.rows(), strict=True):
        assert np.abs(one - other).max() <= len(one)


def test_no_machine_can_round_a_scale_threshold_otherwise():
    """The thresholds come from logarithms, but lie far from where rounding changes."""
    levels = scale_levels()
    exact = (levels[1:] * levels[:-1]).sqrt() * 2**FRACTION_BITS
    assert torch.equal(scale_thresholds(FRACTION_BITS), exact.round())
    assert ((exact - exact.floor() - 0.5).abs() > 1e-9 * exact).all()


def test_the_generator_of_weights_and_latents():
    """PCG64(1)'s first raw outputs, shifted right by 11 bits, as multiples of 2**-53."""
    expected = np.random.PCG64(1).random_raw(3) >> np.uint64(11)
    values = uniform(1, 3, low=0.0, high=1.0)
    assert (values.numpy() * 2**53).astype(np.uint64).tolist() == expected.tolist()
    assert values[0].item() == 0.5118216247002567  # as NumPy's documentation has it for seed 1
