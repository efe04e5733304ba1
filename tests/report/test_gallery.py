"""The gallery: its numbers against the files it wrote, its page in a real headless browser."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.gallery import quality
from evaluation.bits import Meter, bits_per_position
from evaluation.metrics import psnr
from models import checkpoint
from models.base import pad
from models.coding.loop import code_latents
from models.coding.orders import checkerboard, everywhere, raster, wavefront
from models.datasets import sample_photographs
from models.entropy.tables import Tables
from models.images import read_image, write_image
from tests.helpers import NAMES, codec, image
from tests.programs import LAMBDAS
from tests.report.browser import Browser, needs_browser

HEIGHT, WIDTH = 170, 200  # padded to 192 x 256 by three of the models
STOPS = ["Original", "Factorized", "Hyperprior", "Joint", "Checkerboard", "JPEG"]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def built(tmp_path_factory, ckpts):
    """The page's folder: one photograph, tiny checkpoints, of Checkerboard the larger lambda's."""
    root = tmp_path_factory.mktemp("gallery")
    for path in checkpoint.find(NAMES[-1], ckpts, lmbda=LAMBDAS[0]):
        path.unlink()
    _, pixels = sample_photographs()[0]
    # A name that would end the script element, were it not escaped.
    write_image(root / "photos" / "a<!--<script>.png", pixels[:HEIGHT, 100 : 100 + WIDTH])
    code = main(["gallery", "--dataset_path", str(root / "photos"), "--ckpt_dir", str(ckpts),
                 "--outdir", str(root), "--device", "cpu"])  # fmt: skip
    assert code == 0
    return root / "gallery"


@pytest.fixture(scope="module")
def photo(built):
    """The entry of the photograph in the data inside the page."""
    html = (built / "index.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert data["lambdas"] == list(LAMBDAS)
    assert [one["name"] for one in data["codecs"]] == [*NAMES, "JPEG"]
    (photo,) = data["photos"]
    return photo


def test_numbers_are_those_of_the_files(built, photo, tmp_path):
    original = read_image(built / photo["original"])
    assert original.shape == (HEIGHT, WIDTH, 3)
    assert len(photo["points"]) == len(NAMES) * len(LAMBDAS) - 1
    for point in [*photo["points"], *photo["jpegs"].values()]:
        size = (built / point["file"]).stat().st_size
        assert point["bytes"] == size
        assert point["bpp"] == pytest.approx(8 * size / HEIGHT / WIDTH, abs=1e-5)
        decoded = read_image(built / point["image"])
        assert point["psnr"] == pytest.approx(psnr(original, decoded), abs=1e-4)


def test_jpeg_has_the_quality_of_nearest_size(built, photo, tmp_path):
    original = Image.open(built / photo["original"])
    for point in photo["points"]:
        matched = photo["jpegs"][str(point["jpeg"])]
        for neighbour in (point["jpeg"] - 1, point["jpeg"] + 1):
            if 1 <= neighbour <= 95:
                file = tmp_path / "neighbour.jpg"
                original.save(file, quality=neighbour, subsampling="4:2:0")
                assert abs(matched["bytes"] - point["bytes"]) <= abs(
                    file.stat().st_size - point["bytes"]
                )


@pytest.mark.parametrize("name", NAMES)
def test_bits_per_position_add_up_to_the_streams(name):
    model = codec(name)
    x = image(100, 150)
    bits = bits_per_position(model, x)
    padded = pad(x, model.downsampling)
    assert bits.shape == (padded.shape[2] // 16, padded.shape[3] // 16)
    streams = model.encode(model.analysis(padded))
    written = 8 * sum(len(stream) for (stream,) in streams)
    # The coder ends each stream with a whole word of 32 bits, or two.
    assert bits.sum() <= written <= bits.sum() * 1.001 + 64 * len(streams)


@pytest.mark.parametrize("order", [everywhere, checkerboard, wavefront, raster])
def test_bits_are_at_their_positions(order):
    """Whatever the order, the cost of a symbol is noted where the symbol is."""
    # Of -2, -1, 0, 1, 2: 1/2, 1/4, 1/8, 1/16, 1/32; the escape has the rest, 1/32.
    frequencies = 2 ** np.array([23, 22, 21, 20, 19, 19])
    tables = Tables(frequencies, np.array([6]), np.array([-2]), np.zeros(1, np.int64))
    cost = {-2: 1.0, -1: 2.0, 0: 3.0, 1: 4.0, 2: 5.0, 9: 5.0 + np.log2(65) + 4}
    symbols = np.random.default_rng(0).choice(list(cost), (1, 3, 5, 7))
    params = torch.zeros(1, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    meter = Meter(tables)
    code_latents(meter, torch.from_numpy(symbols).float(), symbols.shape, order(5, 7),
                 lambda *_: params)  # fmt: skip
    expected = np.vectorize(cost.get, otypes=[float])(symbols).sum((0, 1))
    assert meter.grid(order, 5, 7) == pytest.approx(expected)


def test_what_is_not_finite_is_none():
    """The page's data are JSON, which has no NaN."""
    grey = np.full((20, 30, 3), 90, np.uint8)
    assert quality(grey, grey, 75) == {"bytes": 75, "bpp": 1.0, "psnr": None, "ms_ssim": None}


# In a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    running = Browser()
    yield running
    running.driver.quit()


@pytest.fixture
def page(request, browser, built):
    """The page in a window of one of `SIZES`, on a desktop unless a test asks for others."""
    browser.open(built / "index.html", *SIZES[getattr(request, "param", "desktop")])
    assert browser.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    yield browser
    assert browser.complaints() == []


def shown(page) -> str:
    """The file of the image that is visible."""
    return page.evaluate(
        "[...document.querySelectorAll('#layers img')]"
        ".filter((i) => getComputedStyle(i).visibility === 'visible')"
        ".map((i) => i.getAttribute('src').split('/').pop()).join()"
    )


def text(page, selector: str) -> str:
    return page.evaluate(f"document.querySelector({selector!r}).textContent")


@needs_browser
@pytest.mark.parametrize("page", SIZES, indirect=True)
def test_controls_have_names_and_nothing_overflows(page):
    buttons = page.evaluate("[...document.querySelectorAll('#stops button')].map(b=>b.textContent)")
    assert buttons == STOPS
    unnamed = (
        "[...document.querySelectorAll('input, select')].filter((c) => !c.labels.length)"
        ".map((c) => c.id)"
    )
    assert page.evaluate(unnamed) == []
    assert page.evaluate("[...document.images].filter((i) => !i.hasAttribute('alt')).length") == 0
    assert page.evaluate("document.querySelectorAll('#photo option').length") == 1
    assert text(page, "#photo option") == "a<!--<script>"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    wide = "[...document.querySelectorAll('.scroll')].filter((e)=>e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{wide}.length") == 0
    small = "[...document.querySelectorAll('button, select')].map((b)=>b.offsetHeight)"
    assert min(page.evaluate(small)) >= 24  # WCAG 2.5.8
    # The image, its caption and the codec slider are in the window together.
    bottom = "document.getElementById('viewport').getBoundingClientRect().bottom"
    assert page.evaluate(f"{bottom} <= window.innerHeight")


@needs_browser
def test_a_point_of_another_lambda_is_marked(page):
    """Checkerboard has the larger lambda only, and the slider stands at the smaller."""
    names = "[...document.querySelectorAll('#table th')].map((head) => head.textContent)"
    marked = f"Checkerboardat lambda {LAMBDAS[1]:g}"
    assert page.evaluate(names) == [*STOPS[1:4], marked, "JPEG"]
    page.evaluate("document.querySelectorAll('#stops button')[4].click()")
    expected = f"lambda {LAMBDAS[1]:g} (there is none of {LAMBDAS[0]:g})"
    assert expected in text(page, "#caption")
    page.evaluate("document.getElementById('rate').focus()")
    page.press("END")
    assert page.evaluate(names) == STOPS[1:]
    assert "there is none" not in text(page, "#caption")


@needs_browser
@pytest.mark.parametrize("page", SIZES, indirect=True)
def test_the_keyboard_flips_between_all_codecs(page, photo):
    page.evaluate("document.getElementById('codec').focus()")
    page.press("HOME")
    seen = [shown(page)]
    for _ in STOPS[1:]:
        page.press("ARROW_RIGHT")
        seen.append(shown(page))
    matched = [p["jpeg"] for p in photo["points"] if p["codec"] == NAMES[-1]][0]
    lambdas = [LAMBDAS[0]] * 3 + [LAMBDAS[1]]
    learned = [f"{name}_{lmbda:g}.webp" for name, lmbda in zip(NAMES, lambdas, strict=True)]
    assert seen == ["original.webp", *learned, f"jpeg_quality_{matched}.jpg"]
    assert f"quality {matched}, matched to Checkerboard" in text(page, "#caption")
    assert (
        page.evaluate("document.getElementById('codec').getAttribute('aria-valuetext')") == "JPEG"
    )
    pressed = "document.querySelector('#stops [aria-pressed=true]').textContent"
    assert page.evaluate(pressed) == "JPEG"


@needs_browser
def test_rate_and_buttons_move_the_point_on_the_curve(page, photo):
    ring = "(r => [r.getAttribute('cx'), r.getAttribute('cy')])(document.querySelector('.ring'))"
    page.evaluate("document.querySelectorAll('#stops button')[2].click()")
    before = page.evaluate(ring)
    page.evaluate("document.getElementById('rate').focus()")
    page.press("END")
    assert shown(page) == f"Hyperprior_{LAMBDAS[1]:g}.webp"
    assert page.evaluate(ring) != before
    (point,) = (p for p in photo["points"]
                if p["codec"] == "Hyperprior" and p["lmbda"] == LAMBDAS[1])  # fmt: skip
    assert f"{point['bpp']:.3f} bpp, {point['psnr']:.2f} dB" in text(page, "#plot-label")
    assert f"{point['bytes']:,}" in text(page, "tr[aria-current]")
    page.evaluate("document.querySelectorAll('#stops button')[0].click()")
    assert page.evaluate("document.querySelector('.ring')") is None


@needs_browser
def test_the_overlay_shows_the_bits_of_a_block(page, photo):
    page.evaluate("document.querySelectorAll('#stops button')[3].click()")
    page.evaluate("document.getElementById('bits').focus()")
    page.press("SPACE")
    size = "(c => [c.hidden, c.width, c.height])(document.getElementById('overlay'))"
    point = next(p for p in photo["points"] if p["codec"] == NAMES[2])
    assert page.evaluate(size) == [False, point["columns"], point["rows"]] == [False, 16, 12]
    page.evaluate("stage.scrollIntoView()")
    box = page.evaluate("(b => [b.x, b.y, b.width])(stage.getBoundingClientRect())")
    scale = box[2] / WIDTH
    page.move(box[0] + 40 * scale, box[1] + 24 * scale)  # row 1, column 2
    assert f"row 1, column 2: {point['bits'][16 + 2]} bits" in text(page, "#readout")
    # The overlay's blocks are 16 pixels of the image wide, whatever the padding.
    width = page.evaluate("document.getElementById('overlay').getBoundingClientRect().width")
    assert width == pytest.approx(16 * 16 * scale, abs=1)
    page.evaluate("document.querySelectorAll('#stops button')[5].click()")
    assert page.evaluate(size)[0] and "Not counted for JPEG" in text(page, "#readout")
