"""Image files of every kind to pixels and back."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.errors import ImageError
from models.images import image_size, read_image, to_tensor, to_uint8, write_image


def photograph(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.randint(0, 256, (height, width, 3), np.uint8)


def png(path: Path, bits: int, colour: int, rows: np.ndarray, *extra: tuple[bytes, bytes]) -> Path:
    """A PNG file written by hand (PNG specification, sections 5 and 11), for what Pillow lacks."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [(b"IHDR", header), *extra, (b"IDAT", data), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks))
    return path


# Lossless ways out and in ------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".TIFF", ".webp"])
def test_lossless_formats_return_the_same_pixels(tmp_path, suffix):
    pixels = photograph()
    write_image(tmp_path / f"a{suffix}", pixels)
    assert np.array_equal(read_image(tmp_path / f"a{suffix}"), pixels)
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]  # nothing temporary remains


def test_jpeg_is_written_close_to_the_pixels(tmp_path):
    pixels = np.full((16, 24, 3), (200, 40, 90), np.uint8)
    write_image(tmp_path / "a.jpg", pixels)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - pixels).max() <= 3


def test_write_refuses_in_words(tmp_path):
    for name, pixels, message in (
        ("a.xyz", photograph(), "ends in none of the formats"),
        ("a.webp", np.zeros((1, 16384, 3), np.uint8), r"WEBP cannot hold 16384x1 .*use \.png"),
        ("a.jpg", np.zeros((1, 70000, 3), np.uint8), "JPEG cannot hold"),
    ):
        with pytest.raises(ImageError, match=message):
            write_image(tmp_path / name, pixels)
    assert list(tmp_path.iterdir()) == []


def test_tensors_and_back_with_rounding_and_clamping():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    x = to_tensor(pixels)
    assert x.shape == (1, 3, 16, 16) and x.dtype == torch.float32
    assert x[0, 2, 15, 15] == 1 and x[0, 0, 0, 0] == 0
    assert np.array_equal(to_uint8(x), pixels)
    assert np.array_equal(to_uint8(x[0].double()), pixels)
    levels = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 254.6 / 255, 7.0])
    assert to_uint8(levels.expand(3, 1, 6))[0, :, 0].tolist() == [0, 0, 1, 254, 255, 255]
    with pytest.raises(RuntimeError, match="invalid for input"):
        to_uint8(torch.zeros(2, 3, 4, 4))


# Kinds of files ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "I;16"])
def test_opaque_alpha_is_dropped_and_transparency_needs_a_background(tmp_path, mode):
    """By alpha, or by a colour, which counts only where it is used."""
    path, colour = tmp_path / "a.png", np.array((10, 200, 90))
    levels = np.random.randint(1, 256, (5, 7, 3), np.uint8)
    if mode.endswith("A"):
        picture, key = Image.fromarray(levels).convert(mode), {}
        clear = (*picture.getpixel((3, 4))[:-1], 100)
    else:
        picture = Image.fromarray(levels[:, :, 0].astype(np.uint16 if mode == "I;16" else np.uint8))
        key, clear = {"transparency": 0}, 0
    if mode == "P":
        picture.putpalette(np.random.bytes(768))
    elif mode == "I;16":
        picture = Image.fromarray(np.asarray(picture) * 257)
    grey = mode == "I;16"  # of which Pillow makes no RGB
    expected = levels[:, :, :1].repeat(3, 2) if grey else np.array(picture.convert("RGB"))
    picture.save(path, **key)
    assert np.array_equal(read_image(path), expected)
    picture.putpixel((3, 4), clear)
    picture.save(path, **key)
    with pytest.raises(ImageError, match=r"a\.png has transparent pixels"):
        read_image(path)
    alpha = 0 if key else 100
    expected = expected.astype(float)
    expected[4, 3] = (alpha * expected[4, 3] + (255 - alpha) * colour) / 255
    assert np.abs(read_image(path, background=(10, 200, 90)) - expected).max() <= 0.51


def test_a_transparent_colour_of_sixteen_bits_is_refused(tmp_path):
    levels = np.random.randint(256, 65536, (5, 7, 3)).astype(">u2")
    key = (b"tRNS", levels[2, 3].tobytes())
    with pytest.raises(ImageError, match="transparent colour of 16 bits"):
        read_image(png(tmp_path / "rgb.png", 16, 2, levels, key))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bit_grey_keeps_the_upper_bits(tmp_path, suffix):
    levels = np.random.randint(0, 65536, (5, 7), np.uint16)
    Image.fromarray(levels).save(tmp_path / f"a{suffix}")
    expected = np.stack([levels >> 8] * 3, 2)
    assert np.array_equal(read_image(tmp_path / f"a{suffix}"), expected)


def test_sixteen_bit_rgb_keeps_the_upper_bits(tmp_path):
    levels = np.random.randint(0, 65536, (5, 7, 3)).astype(">u2")
    assert np.array_equal(read_image(png(tmp_path / "a.png", 16, 2, levels)), levels >> 8)


# EXIF 2.3, tag 0x0112: what has to be done to the stored rows to see them upright.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    upright = UPRIGHT[orientation]
    stored = np.kron(photograph(2, 3), np.ones((8, 8, 1), np.uint8))  # flat blocks, also in JPEG
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    lossless = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(stored).save(path, exif=exif, quality=100, subsampling=0, **lossless)
    pixels = read_image(path)
    assert pixels.shape == upright(stored).shape == (*image_size(path), 3)
    assert np.abs(pixels.astype(int) - upright(stored)).max() <= 4


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_damaged_exif_data_leave_the_pixels(tmp_path, suffix):
    path, said = tmp_path / f"a{suffix}", []
    Image.fromarray(photograph()).save(path, exif=b"Exif\0\0no such thing", lossless=True)
    assert read_image(path, notice=said.append).shape == (20, 30, 3) == (*image_size(path), 3)
    damaged = f"{path}: its EXIF data are damaged, so that it was not turned."
    assert said == ([damaged] if suffix != ".jpg" else [])  # of JPEG Pillow does not tell


def test_the_main_image_of_a_camera_file_with_previews_is_taken(tmp_path):
    main, preview = Image.new("RGB", (32, 16), (9, 99, 199)), Image.new("RGB", (8, 4))
    main.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview], quality=95)
    pixels = read_image(tmp_path / "a.jpg")
    assert pixels.shape == (16, 32, 3)
    assert np.abs(pixels.astype(int) - (9, 99, 199)).max() <= 3


# Refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_animations_and_pages_are_refused(tmp_path, suffix):
    frames = [Image.fromarray(photograph()) for _ in range(3)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="several images or an animation"):
        read_image(tmp_path / f"a{suffix}")


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "figure.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "float.pfm").write_bytes(b"Pf\n1 1\n-1.0\n" + bytes(4))
    for name, words in {
        "text.png": "is not an image of a supported format",
        "figure.png": "is not an image of a supported format",
        "empty.png": "is not an image of a supported format",
        "float.pfm": "samples of an unusual kind",
        "nowhere.png": "cannot be read: No such file",
        "": "cannot be read: Is a directory",
    }.items():
        with pytest.raises(ImageError, match=words):
            read_image(tmp_path / name)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".gif", ".ppm"])
def test_a_truncated_file_is_refused_at_any_length(tmp_path, suffix):
    Image.fromarray(photograph(40, 40)).save(tmp_path / f"a{suffix}")
    data = (tmp_path / f"a{suffix}").read_bytes()
    for share in (0.05, 0.3, 0.6, 0.9):
        (tmp_path / f"cut{suffix}").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ImageError, match="damaged, truncated|not an image"):
            read_image(tmp_path / f"cut{suffix}")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif", ".jp2", ".avif"])
def test_a_damaged_file_is_an_image_or_an_image_error(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(photograph(24, 24)).save(path)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        broken = data.copy()
        broken[np.random.randint(0, len(data), 8)] = np.random.randint(0, 256, 8)
        path.write_bytes(broken.tobytes())
        try:
            pixels = read_image(path, max_pixels=10**6)
        except ImageError as error:
            assert re.fullmatch(r"[^\n]+\.", str(error))  # one line, a sentence
        else:
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


def test_the_number_of_pixels_is_checked_before_anything_is_decoded(tmp_path):
    # 8,000 x 8,000 pixels that have no data at all: decoding them would fail in other words.
    path = png(tmp_path / "bomb.png", 8, 2, np.zeros((0, 8000, 3), np.uint8))
    data = bytearray(path.read_bytes())
    data[20:24] = struct.pack(">I", 8000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"8000x8000 = 64,000,000 pixels, more than .* 1,000,000"):
        read_image(path, max_pixels=10**6)
    with pytest.raises(ImageError, match="damaged, truncated"):
        read_image(path)
    data[16:24] = struct.pack(">II", 2**16, 2**16)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(ImageError, match="too large .*178956970"):
        read_image(path)


def test_a_large_image_within_the_limit_gives_no_warning(tmp_path, recwarn):
    Image.new("1", (10000, 10000)).save(tmp_path / "a.png")
    assert image_size(tmp_path / "a.png") == (10000, 10000)
    assert not recwarn.list
