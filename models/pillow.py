"""Compressed files in Pillow, by the study's checkpoints: `import models.pillow` registers .lic.

    image = Image.open("photo.lic")                       # decoded when its pixels are asked for
    image.save("small.lic", bpp=0.4)                      # at most so many bits per pixel
    image.save("other.lic", model="Joint", lmbda=0.013)   # the default: Hyperprior, best quality

Pixels are RGB of 8 bits. Another file is Pillow's UnidentifiedImageError; one that is damaged, or
needs another checkpoint, a CodecError when it is decoded. Four codecs stay in memory.
"""

from __future__ import annotations

from functools import lru_cache
from typing import IO

import numpy as np
from PIL import Image, ImageFile

from models import checkpoint, rates
from models.base import Codec
from models.coding.container import LONGEST_HEADER, MAGIC, read_header
from models.errors import StreamError, UsageError
from models.images import to_tensor, to_uint8

FORMAT = "LIC"
_load = lru_cache(4)(checkpoint.load)


class LicImageFile(ImageFile.ImageFile):
    """An opened file: its header is read."""

    format, format_description = FORMAT, "Learned image codec"

    def _open(self) -> None:
        assert self.fp is not None
        try:
            header = read_header(self.fp.read(LONGEST_HEADER))
        except StreamError as error:
            raise SyntaxError(str(error)) from error  # as Pillow wants: it tries other formats
        self._size, self._mode = (header.width, header.height), "RGB"
        self.info = {"model": header.model, "lmbda": header.lmbda}
        self.tile = [ImageFile._Tile("lic", (0, 0, *self._size), 0, "RGB")]


class Decoder(ImageFile.PyDecoder):
    """The pixels of a file by the checkpoint that it names. CodecError."""

    _pulls_fd = True

    def decode(self, _: object) -> tuple[int, int]:
        """Pillow's protocol: -1 for no more bytes wanted, 0 for no error."""
        assert self.fd is not None
        data = self.fd.read()
        model = _load(checkpoint.for_file(read_header(data), checkpoint.STUDY))
        self.set_as_raw(to_uint8(model.decompress([data])).tobytes())
        return -1, 0


def save(image: Image.Image, file: IO[bytes], _: str | bytes) -> None:
    """Write an RGB image, by the options model, lmbda and bpp. CodecError; OSError for a mode."""
    if image.mode != "RGB":
        raise OSError(f'cannot write mode {image.mode} as {FORMAT}: use image.convert("RGB")')
    name, lmbda, bpp = map(image.encoderinfo.get, ("model", "lmbda", "bpp"))
    if None not in (lmbda, bpp):
        raise UsageError("lmbda and bpp each say what the file is to be: keep one.")
    trained = checkpoint.by_lambda(name or "Hyperprior")

    def load(lmbda: float) -> Codec:
        return _load(trained[lmbda]["file"])

    goal = max(trained) if lmbda is None else lmbda
    if bpp is not None:
        goal = rates.Aim.of_rate(bpp, image.width * image.height)
    file.write(rates.fit(load, list(trained), to_tensor(np.array(image)), goal)[1])


Image.register_open(FORMAT, LicImageFile, lambda prefix: prefix.startswith(MAGIC))
Image.register_decoder("lic", Decoder)
Image.register_save(FORMAT, save)
Image.register_extension(FORMAT, ".lic")
