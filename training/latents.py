"""Training of what follows y while both transforms are fixed: on latents that are kept.

The distortion is then a constant, so the loss is the rate, and a step meets neither g_a nor g_s.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn

from models.base import Codec, pad
from models.cli import Progress
from models.coding.container import padded
from models.errors import ImageError, TrainingError
from models.images import to_tensor
from training.crops import Pixels, RandomCrops
from training.data import ImageSet
from training.settings import Settings

STRIDE = 16  # pixels for one position of y
LARGEST_SHIFT = 64  # pixels, less than; what the coarsest latent has one position for


class RateModel(nn.Module):
    """A codec from y on, without g_s: what `Codec.forward` gives, but for x_hat."""

    def __init__(self, codec: Codec):
        super().__init__()
        self.codec = codec

    def forward(self, y: Tensor, quantization: str | None = None) -> dict:
        """y (B, M, H/16, W/16) -> {"likelihoods": {name: like the latent}}."""
        latents = self.codec.latents(y)
        _, likelihoods = self.codec.likelihoods(latents, self.codec.quantization(quantization))
        return {"likelihoods": likelihoods}


class Latents:
    """y of images, fp16 (h, w, M), as `Arrays` to take crops of.

    Of whole images, padded as for coding. Crops begin where a position of the coarsest latent does,
    so that z on a crop has the grid of z on the image, and are not mirrored: g_a of a mirrored
    image is not the mirrored y. In place of that `settings.latent_views` of each image are kept:
    the image as it is, then others, each second one mirrored, without some first rows and columns,
    fewer than 64, so that y samples it elsewhere.

    `copies`: processes that keep them. TrainingError if the memory is too small, ImageError if no
    image can be read.
    """

    scale, mirrors = 1, False

    def __init__(self, codec: Codec, images: ImageSet, settings: Settings, copies: int = 1):
        self.images, self.views = images, settings.latent_views
        self.grid = codec.downsampling // STRIDE
        pixels = sum(
            s.frames * math.prod(padded(s.height, s.width, codec.downsampling))
            for s in images.sources
        )
        needed = 2 * codec.M * pixels // STRIDE**2 * self.views * copies
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > memory:
            raise TrainingError(
                f"With both transforms fixed the latents of the training images are kept, "
                f"{needed / 1e9:.1f} GB, but the memory has {memory / 1e9:.1f}: use fewer images "
                f"or --latent_views, or leave g_s out of --fixed."
            )
        self.kept: dict[tuple[int, int], np.ndarray] = {}
        decoded = Pixels(images, settings.patch_size, memory=0)
        frames = [(i, frame) for i, s in enumerate(images.sources) for frame in range(s.frames)]
        with Progress("Latents of the training images", len(frames), "image") as progress:
            for index, frame in frames:
                with suppress(ImageError):  # noted there, and another is drawn in its place
                    whole = decoded.array(index, frame)
                    self._keep_views(codec, whole, index, frame, settings)
                progress.step()
        if not self.kept:
            raise ImageError(f"No image of {images.title} can be read.")
        self.bytes: float = sum(y.nbytes for y in self.kept.values())

    def crops(self, settings: Settings) -> RandomCrops:
        """Random crops of y, (B, M, patch/16, patch/16)."""
        return RandomCrops(self, settings.patch_size // STRIDE, settings.seed)

    def report(self) -> str:
        """What is kept, in one line."""
        return (
            f"Kept the latents of {len(self.kept) // self.views:,} images in {self.views} views, "
            f"{self.bytes / 1e6:,.0f} MB: the transforms are fixed, and training does without them."
        )

    def array(self, index: int, number: int) -> np.ndarray:
        """Kept latents, fp16 (h, w, M). ImageError for an image that could not be read."""
        if (index, number) not in self.kept:
            raise ImageError(f"{self.images.sources[index].name} cannot be read.")
        return self.kept[index, number]

    def _keep_views(self, codec: Codec, whole: np.ndarray, index: int, frame: int, s: Settings):
        room = np.array(whole.shape[:2]) - s.patch_size + 1
        for number in range(frame * self.views, (frame + 1) * self.views):
            view = whole
            if number % self.views:
                random = np.random.default_rng((s.seed, index, number))
                top, left = random.integers(np.minimum(room, LARGEST_SHIFT))
                view = whole[top:, left:]
            if number % self.views % 2:
                view = np.ascontiguousarray(view[:, ::-1])
            y = _analysed(codec, view, half=s.precision == "bf16")
            if not torch.isfinite(y).all():
                raise TrainingError(
                    f"The latents of {self.images.sources[index].name} do not fit fp16: these "
                    f"transforms were not trained."
                )
            self.kept[index, number] = y.numpy()


@torch.no_grad()
def _analysed(codec: Codec, pixels: np.ndarray, half: bool) -> Tensor:
    """y of an image, fp16 (h, w, M)."""
    x = pad(to_tensor(pixels), codec.downsampling)
    device = next(codec.parameters()).device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
        y = codec.analysis(x.to(device, memory_format=torch.channels_last))["y"]
    return y[0].permute(1, 2, 0).to("cpu", torch.float16).contiguous()
