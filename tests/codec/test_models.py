"""All codecs by the same tests: files, and streams that nothing can change."""

import copy
import pickle
from contextlib import contextmanager

import pytest
import torch

from models import checkpoint, search
from models.coding.container import read_header
from models.coding.gain import LEAST, MOST, Gain
from models.layers import tiles
from tests.helpers import NAMES, codec, each_model, image, latents_of, make


@each_model
@pytest.mark.parametrize(
    "size,gain",
    [((1, 1), LEAST), ((1, 70), 1.39), ((65, 33), 0.3), ((64, 64), 1), ((100, 130), 0.72),
     ((140, 7), MOST)],
)  # fmt: skip
def test_any_size_comes_back_at_any_gain(name, size, gain):
    made = codec(name)
    x = image(*size, batch=2)
    files = made.compress(x, gain)
    assert made.compress(x, gain) == files and made.compress(x[1:], gain) == files[1:]
    header = read_header(files[0])
    assert (header.model, header.height, header.width) == (name, *size)
    assert header.gain == Gain(gain).value
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
        (lambda x: x.where(x < 0.9, torch.nan), "some are NaN"),
        (lambda x: x.where(x < 0.9, torch.inf), "to inf: divide"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(change, found):
    with pytest.raises(ValueError) as caught:
        codec("Hyperprior").compress(change(image(64, 64)))
    assert found in str(caught.value) and "\n" not in str(caught.value)
    assert "images (B, 3, H, W) of float32 in [0, 1]" in str(caught.value)


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


@contextmanager
def doubles():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS = {
    "float64": doubles,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.fixture(scope="module", params=NAMES)
def coded(request, ckpts):
    """What loads a checkpoint and codes with it, plainly and searched; and what came of it."""
    path, x = checkpoint.find(request.param, ckpts)[0], image(70, 90)

    def code():
        model = checkpoint.load(path)
        (plain,) = model.compress(x.clone())
        pixels = model.decompress([plain])
        assert pixels.dtype == torch.float32 and not pixels.is_inference()
        return plain, search.compress(model, x.clone(), 3), pixels.numpy().tobytes()

    return code, code()


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
def test_settings_of_torch_change_nothing(setting, coded):
    code, expected = coded
    with setting():
        assert code() == expected
    assert torch.get_default_dtype() == torch.float32
