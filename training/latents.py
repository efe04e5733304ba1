"""Training of what follows y while both transforms are fixed: on latents that are kept.

The distortion is then a constant, so the loss is the rate, and a step meets neither g_a nor g_s.
"""

from __future__ import annotations

import os
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn

from models.base import Codec, pad
from models.cli import Progress
from models.errors import ImageError, TrainingError
from models.images import to_tensor
from training.crops import Arrays, Pixels, RandomCrops
from training.data import ImageSet
from training.loss import STRIDE
from training.settings import Settings

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


class Latents(Arrays):
    """y of images, fp16 (h, w, M), to take crops of.

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
        super().__init__(images)
        self.views, self.grid = settings.latent_views, codec.downsampling // STRIDE
        pixels = sum(s.frames * s.height * s.width for s in images.sources)
        needed = 2 * codec.M * pixels // STRIDE**2 * self.views * copies
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > memory:
            raise TrainingError(
                f"With both transforms fixed the latents of the training images are kept, "
                f"{needed / 1e9:.1f} GB, but the memory has {memory / 1e9:.1f}: use fewer images "
                f"or --latent_views, or leave g_s out of --fixed."
            )
        decoded = Pixels(images, settings.patch_size, memory=0)
        frames = [(i, frame) for i, s in enumerate(images.sources) for frame in range(s.frames)]
        with Progress("Latents of the training images", len(frames), "image") as progress:
            for index, frame in frames:
                with suppress(ImageError):  # noted there, and another is drawn in its place
                    whole = decoded.array(index, frame)
                    for number in range(frame * self.views, (frame + 1) * self.views):
                        self.kept[index, number] = self._view(codec, whole, index, number, settings)
                progress.step()
        if not self.kept:
            raise ImageError(f"No image of {images.title} can be read.")
        self.bytes = sum(y.nbytes for y in self.kept.values())

    def crops(self, settings: Settings) -> RandomCrops:
        """Random crops of y, (B, M, patch/16, patch/16)."""
        return RandomCrops(self, settings.patch_size // STRIDE, settings.seed)

    def report(self) -> str:
        """What is kept, in one line."""
        return (
            f"Kept the latents of {len(self.kept) // self.views:,} images in {self.views} views, "
            f"{self.bytes / 1e6:,.0f} MB: the transforms are fixed, and training does without them."
        )

    @torch.no_grad()
    def _view(
        self, codec: Codec, pixels: np.ndarray, index: int, number: int, settings: Settings
    ) -> np.ndarray:
        """y of view `number` of an image, fp16 (h, w, M)."""
        if number % self.views:
            random = np.random.default_rng((settings.seed, index, number))
            room = np.array(pixels.shape[:2]) - settings.patch_size + 1
            top, left = random.integers(np.minimum(room, LARGEST_SHIFT))
            pixels = pixels[top:, left:]
        if number % self.views % 2:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        x = pad(to_tensor(pixels), codec.downsampling)
        device, half = next(codec.parameters()).device, settings.precision == "bf16"
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            y = codec.analysis(x.to(device, memory_format=torch.channels_last))["y"]
        y = y[0].permute(1, 2, 0).to("cpu", torch.float16).contiguous()
        if not torch.isfinite(y).all():
            raise TrainingError(
                f"The latents of {self.images.sources[index].name} do not fit fp16: these "
                f"transforms were not trained."
            )
        return y.numpy()
