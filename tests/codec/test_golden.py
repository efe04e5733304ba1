"""Committed files decode to pinned symbols, on this machine and with this version of torch."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.coding.container import pack, unpack
from models.coding.integer import FRACTION_BITS
from models.entropy.gaussian import scale_levels
from models.entropy.tables import gaussian_tables, scale_thresholds
from tests.golden import make
from tests.helpers import digest, grid

PINNED = json.loads((make.FOLDER / "golden.json").read_text())

each_file = pytest.mark.parametrize("file", make.FILES)


@pytest.fixture(scope="module")
def golden():
    """Of each golden file: the frozen model, the header, and the streams of one image."""
    tables = make.read_tables()
    parts = {}
    for file, (name, _) in make.FILES.items():
        header, streams = unpack((make.FOLDER / f"{file}.lic").read_bytes())
        parts[file] = make.model_of(name, tables), header, streams
    return parts


def decoded(model, header, streams):
    return model.decode([[stream] for stream in streams], *make.PADDED, header.gain)


@each_file
@pytest.mark.parametrize("threads", [1, 2])
def test_golden_streams_decode_to_pinned_digests(file, threads, golden):
    torch.set_num_threads(threads)
    assert digest(grid(decoded(*golden[file]))) == PINNED[file]["y_hat"]


@each_file
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_golden_streams_decode_to_pinned_digests_on_a_gpu(file, golden):
    model, header, streams = golden[file]
    there = copy.deepcopy(model).to("cuda")
    y_hat = decoded(there, header, streams)
    assert y_hat.is_cuda and digest(grid(y_hat.cpu())) == PINNED[file]["y_hat"]
    latents = {k: v.cuda() for k, v in make.latents(model).items()}
    assert [stream[0] for stream in there.encode(latents, header.gain)] == streams


@each_file
def test_encoding_writes_the_golden_bytes(file, golden):
    """Weights and tables give the pinned integers, and these the file, to the last byte.

    Files without a gain are of the first version, what they have always been.
    """
    model, header, streams = golden[file]
    name, gain = make.FILES[file]
    data = (make.FOLDER / f"{file}.lic").read_bytes()
    assert model.digest == PINNED[file]["integers"] == header.digest
    assert (header.model, header.gain) == (name, round(gain * 4096) / 4096)
    assert data[3] == (1 if gain == 1 else 2) and len(data) == PINNED[file]["bytes"]
    assert [s[0] for s in model.encode(make.latents(model), header.gain)] == streams
    assert pack(replace(header, lengths=()), streams) == data
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
