"""Colours: profiles of image files, and colours that need one."""

import itertools
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from models.errors import ImageError
from models.images import image_size, read_image


def fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(65536 * v) for v in numbers))


def icc(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A colour profile written by hand (ICC.1:2010, sections 7.2 and 7.3)."""
    name = "a test".encode("utf-16-be")
    tags = {b"desc": struct.pack(">4s4xII4sII", b"mluc", 1, 12, b"enUS", 12, 28) + name, **tags}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += struct.pack(">4sII", tag, at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = b"\x04\x30\0\0" + (b"prtr" if space == b"CMYK" else b"mntr") + space + connection
    header = bytes(4) + header + bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return struct.pack(">I", at + len(body)) + header + bytes(48) + table + body


def curve(*numbers: float) -> bytes:
    """Its parameters: gamma alone, or those of sRGB's form."""
    return b"para" + bytes(4) + struct.pack(">Hxx", 3 if len(numbers) > 1 else 0) + fixed(*numbers)


def encoded(linear: np.ndarray) -> np.ndarray:
    """sRGB levels of linear light (IEC 61966-2-1)."""
    v = linear.clip(0, 1)
    return 255 * np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)


def linear(levels: np.ndarray) -> np.ndarray:
    v = levels / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def test_colours_are_converted_by_the_profile_of_the_file(tmp_path):
    """Display P3 and grey of gamma 1.8 against their formulas, CMYK where its inks are known."""
    srgb = np.array([[(220, 30, 30), (30, 220, 30), (40, 50, 210), (128, 128, 128)]], np.uint8)
    # Linear sRGB to linear Display P3 (SMPTE EG 432-1, D65).
    matrix = np.array([[0.8225, 0.1774, 0], [0.0332, 0.9669, 0], [0.0171, 0.0724, 0.9108]])
    stored = encoded(linear(srgb) @ matrix.T).round().astype(np.uint8)
    points = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
    tags = {}
    for letter, point in zip((b"r", b"g", b"b"), points, strict=True):  # for D50, as ICC wants
        tags[letter + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*point)
        tags[letter + b"TRC"] = curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    grey = np.arange(256, dtype=np.uint8)[None]
    inks = np.array(list(itertools.product((0, 255), repeat=4)), np.uint8)[None]
    papers = ((255 - inks[:, :, :3].astype(int)) * (inks[:, :, 3:] == 0)).astype(np.uint8)
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = np.asarray(to_lab.apply(Image.fromarray(papers))) ^ np.array((0, 128, 128), np.uint8)
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += ramp * 4 + lab.tobytes() + ramp * 3
    for pixels, profile, expected in (
        (stored, icc(b"RGB ", b"XYZ ", tags), srgb),
        (grey, icc(b"GRAY", b"XYZ ", {b"kTRC": curve(1.8)}), encoded((grey / 255) ** 1.8)),
        (inks, icc(b"CMYK", b"Lab ", {b"A2B0": table}), papers),
    ):
        mode, said = "CMYK" if pixels.shape[-1] == 4 else None, []
        Image.fromarray(pixels, mode).save(tmp_path / "a.tif", icc_profile=profile)
        shown = read_image(tmp_path / "a.tif", notice=said.append)
        expected = expected if expected.ndim == 3 else expected[:, :, None]
        assert np.abs(shown - expected.astype(float)).max() < 3
        assert said == [f"{tmp_path / 'a.tif'}: colours were converted to sRGB from a test."]


def test_a_profile_of_srgb_changes_nothing_and_a_useless_one_is_left_aside(tmp_path):
    pixels, path = np.random.randint(0, 256, (5, 7, 3), np.uint8), tmp_path / "a.png"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, count in ((srgb, 0), (b"no profile", 1), (icc(b"GRAY", b"XYZ ", {}), 1)):
        Image.fromarray(pixels).save(path, icc_profile=profile)
        said = []
        assert np.array_equal(read_image(path, notice=said.append), pixels)
        assert len(said) == count and all("left aside" in text for text in said)


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_colour_spaces_that_need_a_profile_are_refused(tmp_path, mode):
    Image.new(mode, (8, 8)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=f"{mode} colours without a profile"):
        read_image(tmp_path / "a.tif")
    if mode == "CMYK":
        Image.new(mode, (8, 8)).save(tmp_path / "a.jpg")
        with pytest.raises(ImageError, match="CMYK"):
            image_size(tmp_path / "a.jpg")
