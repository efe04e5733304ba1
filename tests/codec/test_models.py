"""All codecs by the same tests: files, and streams that nothing can change."""

import copy
import hashlib
import json
import pickle
import subprocess
import sys

import pytest
import torch

from models.coding.container import read_header
from models.coding.orders import raster
from models.coding.range_coder import Writer
from models.layers import tiles
from tests.helpers import NAMES, codec, grid, image, latents_of, make
from tests.programs import ROOT

each_model = pytest.mark.parametrize("name", NAMES)


@each_model
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (65, 33), (64, 64), (100, 130), (140, 7)])
def test_any_size_comes_back(name, size):
    made = codec(name)
    x = image(*size, batch=2)
    files = made.compress(x)
    assert made.compress(x) == files
    header = read_header(files[0])
    assert (header.model, header.height, header.width) == (name, *size)
    assert header.digest == made.digest and len(made.digest) == 16
    out = made.decompress(files)
    assert out.shape == x.shape and out.dtype == torch.float32
    assert out.min() >= 0 and out.max() <= 1
    assert torch.equal(made.decompress(files[1:])[0].round(decimals=4), out[1].round(decimals=4))


@each_model
def test_decoded_latents_are_the_rounded_ones(name):
    made = codec(name)
    x = image(128, 192)
    with torch.no_grad():
        latents = made.analysis(x)
    y_hat = made.decode(made.encode(latents), 128, 192)
    assert (y_hat - latents["y"]).abs().max() <= 0.5 + 1e-4
    assert y_hat.unique().numel() > 20
    with torch.no_grad():
        x_hat = made.synthesis(y_hat).clamp(0, 1)
    torch.testing.assert_close(made.decompress(made.compress(x)), x_hat)


def encode_y_hat(made, latents):
    """Streams, and the y_hat that the encoder itself arrives at."""
    batch = latents["y"].shape[0]
    writers = {k: Writer(made.frozen.coding[k], batch) for k in made.streams}
    with torch.no_grad():
        y_hat = made.code(writers, latents, {k: v.shape for k, v in latents.items()})
    return [writers[k].finish() for k in made.streams], y_hat


@each_model
def test_decoder_has_the_encoders_latents_on_any_number_of_threads(name):
    made = codec(name)
    latents = latents_of(made, 192, 128, batch=2)
    torch.set_num_threads(1)
    streams, y_hat = encode_y_hat(made, latents)
    assert grid(y_hat).any()
    for threads in (2, 1):
        torch.set_num_threads(threads)
        assert made.encode(latents) == streams
        assert torch.equal(made.decode(streams, 192, 128), y_hat)


@each_model
@pytest.mark.parametrize("size", [1e4, 1e11])
def test_huge_latents_decode_as_they_were_coded(name, size):
    """Beyond every table, and beyond the range that integer networks work in."""
    made = codec(name)
    latents = {k: v * size for k, v in latents_of(made, 64, 64).items()}
    streams, y_hat = encode_y_hat(made, latents)
    assert torch.equal(made.decode(streams, 64, 64), y_hat)
    with pytest.raises(ValueError, match="latents"):
        made.encode({k: v * 1e30 for k, v in latents.items()})


@each_model
def test_a_batch_has_the_bytes_of_its_images(name):
    made = codec(name)
    latents = latents_of(made, 64, 128, batch=3)
    together = made.encode(latents)
    for k in range(3):
        alone = made.encode({name: v[k : k + 1] for name, v in latents.items()})
        assert [s[0] for s in alone] == [s[k] for s in together]
        assert torch.equal(made.decode(alone, 64, 128)[0], made.decode(together, 64, 128)[k])


@pytest.mark.parametrize("size", [(64, 64), (192, 320), (64, 320), (320, 64)])
def test_wavefront_gives_the_symbols_of_the_raster_order(size):
    made = make("JointAutoregressiveHierarchicalPriors").freeze()
    latents = latents_of(made, *size)
    streams, y_hat = encode_y_hat(made, latents)
    made.order = raster
    other, raster_y_hat = encode_y_hat(made, latents)
    assert torch.equal(raster_y_hat, y_hat)
    assert other[0] == streams[0] and len(other[1][0]) == pytest.approx(len(streams[1][0]), abs=8)
    assert torch.equal(made.decode(other, *size), y_hat)


def test_streams_decode_in_another_process(tmp_path):
    """Written with one thread here, read with two there, with tables made there anew."""
    script = """
import hashlib, json, sys, torch
from tests.helpers import codec, grid
torch.set_num_threads(2)
found = {}
for name, streams in json.load(open(sys.argv[1])).items():
    y_hat = codec(name).decode([[bytes.fromhex(s)] for s in streams], 128, 192)
    found[name] = [codec(name).digest, hashlib.sha256(grid(y_hat).tobytes()).hexdigest()]
print(json.dumps(found))
"""
    torch.set_num_threads(1)
    written, expected = {}, {}
    for name in NAMES:
        streams, y_hat = encode_y_hat(codec(name), latents_of(codec(name), 128, 192))
        written[name] = [s[0].hex() for s in streams]
        digest = hashlib.sha256(grid(y_hat).tobytes()).hexdigest()
        expected[name] = [codec(name).digest, digest]
    path = tmp_path / "streams.json"
    path.write_text(json.dumps(written))
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == expected


@each_model
def test_tiles_are_not_seen_in_the_result(name):
    """Transforms of large images run tile by tile; small tiles here. Up to float noise."""
    made = codec(name)
    x = image(192, 320)
    with torch.no_grad():
        y = made.g_a(x)
        torch.testing.assert_close(tiles.analyse(made.g_a, x, tile=64), y, rtol=1e-4, atol=1e-4)
        whole = made.g_s(y.round())
        tiled = tiles.synthesise(made.g_s, y.round(), tile=64)
    torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=1e-4)


@each_model
def test_coding_needs_a_frozen_model(name):
    made = make(name)

    def check_refusal() -> None:
        for use in (lambda: made.digest, lambda: made.compress(image(64, 64))):
            with pytest.raises(RuntimeError, match=r"train\(\).*call freeze\(\)"):
                use()

    check_refusal()
    assert made.freeze() is made and not made.training
    digest = made.digest
    made.eval()
    assert made.digest == digest
    made.train().eval()
    check_refusal()
    assert made.freeze().digest == digest
    made.load_state_dict(made.state_dict())
    check_refusal()


@each_model
def test_digest_names_tables_and_integer_weights(name):
    digest = codec(name).digest
    assert make(name).freeze().digest == digest
    assert make(name, seed=1).freeze().digest != digest
    other = make(name)
    with torch.no_grad():
        other.g_a[0].weight.add_(1)  # the transforms may change: symbols do not depend on them
        other.g_s[0].weight.add_(1)
    assert other.freeze().digest == digest
    with torch.no_grad():
        other.entropy_bottleneck.biases[0].add_(1)
    other.solve_quantiles()
    assert other.freeze().digest != digest
    if name != "Factorized":
        other = make(name)
        with torch.no_grad():
            other.h_s[0].weight[0, 0, 0, 0] += 0.01
        assert other.freeze().digest != digest


@each_model
@pytest.mark.parametrize(
    "change,found",
    [
        (lambda x: x[:0], "not (0, 3, 64, 64)"),
        (lambda x: x[0], "not (3, 64, 64)"),
        (lambda x: x[:, :, :0], "not (1, 3, 0, 64)"),
        (lambda x: torch.cat([x, x[:, :1]], 1), "not (1, 4, 64, 64)"),
        (lambda x: x.double(), "torch.float64"),
        (lambda x: (x * 255).byte(), "torch.uint8"),
        (lambda x: x * 255, "divide by 255"),
        (lambda x: x - 0.5, "clamp"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(name, change, found):
    with pytest.raises(ValueError) as caught:
        codec(name).compress(change(image(64, 64)))
    assert found in str(caught.value) and "\n" not in str(caught.value)
    assert "images (B, 3, H, W) of float32 in [0, 1]" in str(caught.value)
    for value in (float("nan"), float("inf")):
        x = image(64, 64)
        x[0, 0, 5, 5] = value
        with pytest.raises(ValueError, match="not finite"):
            codec(name).compress(x)


@each_model
def test_a_model_that_has_coded_can_be_copied_and_pickled(name):
    made = codec(name)
    latents = latents_of(made, 64, 64)
    expected = made.encode(latents)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert other.digest == made.digest
        assert other.encode(latents) == expected


@each_model
def test_latents_beyond_all_numbers_are_refused(name):
    latents = {k: v * 1e30 for k, v in latents_of(codec(name), 64, 64).items()}
    with pytest.raises(ValueError, match="latents"):
        codec(name).encode(latents)
