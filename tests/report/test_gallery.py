"""The gallery: its numbers against the files it wrote, its page in a headless browser."""

import html
import json
import re
import shutil
import subprocess

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

HEIGHT, WIDTH = 170, 200  # padded to 192 x 256 by three of the models
STOPS = ["Original", "Factorized", "Hyperprior", "Joint", "Checkerboard", "JPEG"]
BROWSER = shutil.which("chromium")
needs_browser = pytest.mark.skipif(not BROWSER, reason="no Chromium here (apt install chromium)")


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
    page = (built / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=.?https?:", page)  # needs nothing but its folder
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
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

HELPERS = """
const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const texts = (selector) => all(selector).map((element) => element.textContent);
const press = (k) => all("#stops button")[k].click();
const shown = () => all("#layers img").filter((i) => getComputedStyle(i).visibility === "visible")
  .map((i) => i.getAttribute("src").split("/").pop()).join();
const ring = () => all(".ring").map((r) => [r.getAttribute("cx"), r.getAttribute("cy")]);
"""


def in_browser(built, script):
    """What a function body in JavaScript returns when the page has loaded."""
    told = f"document.title = JSON.stringify((() => {{ {HELPERS} {script} }})())"
    probe = f"<script>addEventListener('load', () => {{ {told} }})</script>"
    page = (built / "index.html").read_text(encoding="utf-8")
    (built / "probe.html").write_text(page + probe, encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --window-size=1280,900"
    command = [BROWSER, *flags.split(), "--dump-dom", (built / "probe.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    return json.loads(html.unescape(re.search("<title>(.*?)</title>", dom, re.DOTALL)[1]))


@needs_browser
def test_controls_have_names_and_nothing_overflows(built):
    buttons, options, small, *faults = in_browser(built, """
        const heights = all("button, select").map((control) => control.offsetHeight);
        const page = document.documentElement;
        return [texts("#stops button"), texts("#photo option"), Math.min(...heights),
          all("img").filter((i) => !i.naturalWidth || !i.hasAttribute("alt")).length,
          all("input, select").filter((control) => !control.labels.length).length,
          all(".scroll").filter((e) => e.scrollWidth > e.clientWidth).length,
          page.scrollWidth > innerWidth,
          $("viewport").getBoundingClientRect().bottom > innerHeight];
    """)  # fmt: skip
    assert (buttons, options) == (STOPS, ["a<!--<script>"])
    assert small >= 24  # WCAG 2.5.8
    assert not any(faults)


@needs_browser
def test_codecs_and_rates_are_flipped(built, photo):
    """Checkerboard has the larger lambda only, and the slider starts at the smaller."""
    low, jpeg, marked, high, original = in_browser(built, """
        const look = () => ({images: STOPS.map((_, k) => (press(k), shown())), heads: texts("th"),
          caption: $("caption").textContent});
        const STOPS = all("#stops button"), low = look(), jpeg = texts("[aria-pressed=true]");
        press(4);
        const marked = $("caption").textContent;
        press(2);
        const before = ring();
        $("rate").value = 1;
        $("rate").dispatchEvent(new Event("input"));
        const high = {image: shown(), heads: texts("#table th"), label: $("plot-label").textContent,
          row: texts("tr[aria-current]").join(), moved: String(ring()) !== String(before)};
        press(0);
        return [low, jpeg, marked, high, ring()];
    """)  # fmt: skip
    matched = [p["jpeg"] for p in photo["points"] if p["codec"] == NAMES[-1]][0]
    lambdas = [LAMBDAS[0]] * 3 + [LAMBDAS[1]]
    learned = [f"{name}_{lmbda:g}.webp" for name, lmbda in zip(NAMES, lambdas, strict=True)]
    assert low["images"] == ["original.webp", *learned, f"jpeg_quality_{matched}.jpg"]
    assert low["heads"][-5:] == [*STOPS[1:4], f"Checkerboardat lambda {LAMBDAS[1]:g}", "JPEG"]
    assert f"quality {matched}, matched to Checkerboard" in low["caption"] and jpeg == ["JPEG"]
    assert f"lambda {LAMBDAS[1]:g} (there is none of {LAMBDAS[0]:g})" in marked
    (point,) = (p for p in photo["points"]
                if p["codec"] == "Hyperprior" and p["lmbda"] == LAMBDAS[1])  # fmt: skip
    assert high["image"] == f"Hyperprior_{LAMBDAS[1]:g}.webp" and high["moved"]
    assert f"{point['bpp']:.3f} bpp, {point['psnr']:.2f} dB" in high["label"]
    assert f"{point['bytes']:,}" in high["row"] and high["heads"] == STOPS[1:]
    assert original == []


@needs_browser
def test_the_overlay_shows_the_bits_of_a_block(built, photo):
    """Row 1, column 2; blocks are 16 pixels of the image wide, whatever the padding."""
    joint, readout, wide, hidden, none = in_browser(built, f"""
        press(3);
        $("bits").click();
        const stage = $("stage").getBoundingClientRect(), scale = stage.width / {WIDTH};
        const place = {{clientX: stage.x + 40 * scale, clientY: stage.y + 24 * scale}};
        $("stage").dispatchEvent(new PointerEvent("pointermove", place));
        const canvas = $("overlay"), readout = $("readout").textContent;
        const joint = [canvas.hidden, canvas.width, canvas.height];
        const wide = canvas.getBoundingClientRect().width / scale;
        press(5);
        return [joint, readout, wide, canvas.hidden, $("readout").textContent];
    """)  # fmt: skip
    point = next(p for p in photo["points"] if p["codec"] == NAMES[2])
    assert joint == [False, point["columns"], point["rows"]] == [False, 16, 12]
    assert f"row 1, column 2: {point['bits'][16 + 2]} bits" in readout
    assert wide == pytest.approx(16 * 16, abs=2)
    assert hidden and "Not counted for JPEG" in none
