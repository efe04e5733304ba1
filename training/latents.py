"""Training of what follows y while both transforms are fixed: on latents that are kept.

The distortion is then a constant, so the loss is the rate, and a step meets neither g_a nor g_s.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.base import Codec, pad
from models.cli import Progress
from models.coding.container import padded
from models.errors import ImageError, TrainingError
from models.images import to_tensor
from training.crops import RandomCrops
from training.data import ImageSet, Source
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


class LatentCrops(RandomCrops):
    """Random square crops of y, (B, M, patch/16, patch/16), of images kept as y in fp16.

    The latents are those of whole images, padded as for coding. Crops begin where a position of
    the coarsest latent does, so that z on a crop has the grid of z on the image. They are not
    mirrored: g_a of a mirrored image is not the mirrored y. `settings.latent_views` of each image
    are kept in place of that: the image as it is, then others, each second one mirrored, whose
    first rows and columns are left out, fewer than 64, so that y samples it elsewhere.

    `copies`: how many processes keep them. Errors: TrainingError if the memory
    is too small, ImageError if no image can be read.
    """

    scale = 1
    mirrors = False

    def __init__(self, codec: Codec, images: ImageSet, settings: Settings, copies: int = 1):
        super().__init__(images, settings.patch_size // STRIDE, settings.seed, memory=0)
        half = settings.precision == "bf16"
        self.grid, self.views = codec.downsampling // STRIDE, settings.latent_views
        needed = sum(_size(codec, source) for source in images.sources) * self.views * copies
        free = _free_memory()
        if needed > free:
            raise TrainingError(
                f"With both transforms fixed the latents of the training images are kept, "
                f"{needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB of memory are free: use "
                f"fewer images or --latent_views, or leave g_s out of --fixed."
            )
        self.kept: dict[tuple[int, int], np.ndarray] = {}
        frames = sum(source.frames for source in images.sources)
        with Progress("Latents of the training images", frames, "image") as progress:
            for index, source in enumerate(images.sources):
                for frame in range(source.frames):
                    self._keep_views(codec, index, frame, half)
                    progress.step()
        if not self.kept:
            raise ImageError(f"No image of {images.title} can be read.")
        self.bytes = sum(y.nbytes for y in self.kept.values())

    def report(self) -> str:
        """What is kept, in one line."""
        views = f", each in {self.views} views" if self.views > 1 else ""
        return (
            f"Kept the latents of {len(self.kept) // self.views:,} images{views}, "
            f"{self.bytes / 1e6:,.0f} MB in fp16: the transforms are fixed, and training does "
            f"without them."
        )

    def _keep_views(self, codec: Codec, index: int, frame: int, half: bool) -> None:
        try:
            pixels = super()._pixels(index, frame)
        except ImageError:
            return  # noted there, and another is drawn in its place
        room = np.array(pixels.shape[:2]) - self.crop * STRIDE + 1
        for number in range(frame * self.views, (frame + 1) * self.views):
            view = pixels
            if number % self.views:
                random = np.random.default_rng((self.seed, index, number))
                top, left = random.integers(np.minimum(room, LARGEST_SHIFT))
                view = pixels[top:, left:]
            if number % self.views % 2:
                view = np.ascontiguousarray(view[:, ::-1])
            self._keep(codec, index, number, view, half)

    @torch.no_grad()
    def _keep(self, codec: Codec, index: int, number: int, pixels: np.ndarray, half: bool) -> None:
        x = pad(to_tensor(pixels), codec.downsampling)
        device = next(codec.parameters()).device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            y = codec.analysis(x.to(device, memory_format=torch.channels_last))["y"]
        kept = y[0].permute(1, 2, 0).to("cpu", torch.float16).contiguous()
        if not torch.isfinite(kept).all():
            raise TrainingError(
                f"The latents of {self.images.sources[index].name} do not fit fp16: these "
                f"transforms were not trained."
            )
        self.kept[index, number] = kept.numpy()

    def _pixels(self, index: int, number: int) -> np.ndarray:
        """Kept latents, fp16 (h, w, M). ImageError for an image that could not be read."""
        if (index, number) not in self.kept:
            raise ImageError(f"{self.images.sources[index].name} cannot be read.")
        return self.kept[index, number]


def _size(codec: Codec, source: Source) -> int:
    """Bytes of an image's latents, of all frames of a clip."""
    height, width = padded(source.height, source.width, codec.downsampling)
    return source.frames * codec.M * (height // STRIDE) * (width // STRIDE) * 2


def _free_memory() -> float:
    """Bytes that can be had without swapping; infinity where that is not told (not Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(li.split()[1]) for li in lines if li.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float("inf")
