"""docs/decoder.py, written from docs/format.md alone: it reads what ours reads, as ours does."""

from __future__ import annotations

import importlib.util
import random
import re
import sys
from dataclasses import replace

import numpy as np
import pytest

from models import checkpoint
from models.datasets import sample_photographs
from models.errors import StreamError
from models.images import read_image, to_tensor, to_uint8
from models.presets import short
from tests import conformance
from tests.conformance import GOLDEN
from tests.fuzz.cases import MAX_PIXELS
from tests.fuzz.damage import mutate, put_together, stream_content, take_apart
from tests.golden.vectors import read
from tests.helpers import NAMES, digest, each_model, peak_memory
from tests.programs import ROOT

PAGE = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
SOURCE = ROOT / "docs" / "decoder.py"
VECTORS = conformance.vectors()


@pytest.fixture(scope="module")
def decoder():
    spec = importlib.util.spec_from_file_location("decoder", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def file_of(vector: str):
    """The bytes of a vector's file and the path of its checkpoint."""
    return (GOLDEN / f"{vector}.lic").read_bytes(), GOLDEN / VECTORS[vector]["checkpoint"]


def levels_apart(one: np.ndarray, other: np.ndarray) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("vector", VECTORS)
def test_both_decoders_read_the_vectors(vector, decoder):
    data, path = file_of(vector)
    model = checkpoint.load(path)
    ours = *read(model, data), to_uint8(model.decompress([data]))
    for symbols, y_hat, levels in (ours, decoder.decode(data, path)):
        assert digest(symbols) == VECTORS[vector]["symbols"]
        assert digest(y_hat) == VECTORS[vector]["y_hat"]
        assert levels_apart(levels, read_image(GOLDEN / f"{vector}.png")) <= 1


@pytest.mark.parametrize("name, gain", [*zip(NAMES, (0.72, 1.0, 1.39, 1.0), strict=True)])
def test_the_second_decoder_reads_files_of_trained_checkpoints(name, gain, decoder):
    pixels = dict(sample_photographs())["coffee"][100:164, 150:246]
    path = checkpoint.find(name)[0]
    model = checkpoint.load(path)
    (data,) = model.compress(to_tensor(pixels), gain)
    symbols, y_hat, levels = decoder.decode(data, path)
    ours = read(model, data)
    assert np.array_equal(symbols, ours[0]) and np.array_equal(y_hat, ours[1])
    assert levels_apart(levels, to_uint8(model.decompress([data]))) <= 1


@each_model
def test_both_decoders_say_the_same_of_damaged_files(name, decoder):
    """Refused by both, or the same integers; where these give no image, floats may disagree."""
    rng, path = random.Random(7), GOLDEN / f"{short(name)}.safetensors"
    files = [file_of(vector)[0] for vector in VECTORS if vector.startswith(short(name))]
    model, decoded, refused = checkpoint.load(path), 0, 0
    before = peak_memory()
    for _ in range(80):
        damage = rng.choice((mutate, stream_content))
        data = damage(rng, rng.choice(files), rng.choice(files))
        try:
            symbols, y_hat, _ = decoder.decode(data, path, MAX_PIXELS)
        except decoder.Refused as refusal:
            refused += 1
            assert str(refusal).endswith(".") and "\n" not in str(refusal)
            if "no image" not in str(refusal):
                with pytest.raises(StreamError):
                    model.decompress([data], MAX_PIXELS)
        else:
            decoded += 1
            ours = read(model, data)
            same = np.array_equal(*(np.clip(s, -(2**52), 2**52) for s in (symbols, ours[0])))
            assert same and np.array_equal(y_hat, ours[1])
    assert decoded > 1 and refused > 40 and peak_memory() - before < 64 << 20


def test_a_claim_is_refused_before_it_costs_memory(decoder):
    data, path = file_of("Hyperprior-plain")
    before = peak_memory()
    for height, width in ((65535, 65535), (1, 2**35 - 1), (2**20, 129)):
        lie = put_together(replace(take_apart(data), height=height, width=width))
        with pytest.raises(decoder.Refused):
            decoder.decode(lie, path)
    assert peak_memory() - before < 16 << 20


def test_the_second_decoder_needs_numpy_and_safetensors_only():
    imported = re.findall(r"^\s*(?:import|from) (\w+)", SOURCE.read_text(encoding="utf-8"), re.M)
    assert set(imported) - sys.stdlib_module_names == {"numpy", "safetensors"}


def test_the_examples_of_the_page(decoder):
    data, path = file_of("Hyperprior-plain")
    shown = next(line for line in PAGE.splitlines() if line.startswith("    4c 49 43"))
    shown = bytes.fromhex(shown.replace("|", "").replace(".", ""))
    assert data.startswith(shown) and len(shown) > 25
    codec = decoder.Codec("Hyperprior", decoder.load_file(path))
    first, z_hat = codec.h_s[0], np.array([98.0, 85, -92, 139, 13, 38])[None, None]
    hidden, scales = first(decoder.transposed(z_hat, first.weight)), codec.features(z_hat)
    numbers = [*decoder.THRESHOLDS[:5], *decoder.THRESHOLDS[-2:], *first.weight[1, :, 2, 2]]
    numbers += [first.bias[1], np.abs(first.weight[1]).sum(), hidden[0, 0, 1], *scales[0, 0]]
    coder, table = decoder.RangeDecoder(data[23:27]), codec.tables[1].sums[0]
    assert coder.entry(table) == 6
    numbers += [table[6], table[7] - table[6], coder.D, coder.R]
    tables = decoder.Tables(decoder.load_file(GOLDEN / "Factorized.safetensors"), "y", 8)
    decoder.scale(tables, 0, 1638)
    numbers += np.diff(tables.sums[0])[[0, 1, 2, -2, -1]].tolist()
    assert [number for number in numbers if f"{int(number)}" not in PAGE] == []


def test_the_program_of_conformance(monkeypatch, capsys):
    wrong = VECTORS["Factorized-odd"] | {"symbols": "0", "y_hat": "0"}
    some = {"Factorized-odd": wrong, conformance.DAMAGED: VECTORS[conformance.DAMAGED]}
    monkeypatch.setattr(conformance, "vectors", lambda: some)
    monkeypatch.setattr(conformance, "LIES", {})
    monkeypatch.setattr(conformance, "DAMAGES", {"cut": lambda data: data[:-1]})
    assert conformance.main([sys.executable, str(SOURCE), "--digest"]) == 1
    out = capsys.readouterr().out
    assert "FAILS  Factorized-odd: other symbols and y_hat" in out and "2 of 3 passed" in out
    assert conformance.main(["true"]) == 1  # neither images nor refusals
    assert "0 of 3 passed" in capsys.readouterr().out
    assert conformance.main([]) == 2
