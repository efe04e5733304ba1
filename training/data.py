"""The data of a run: folders of images in the usual layouts (docs/datasets.md), some held out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import models
from models.cli import note
from models.datasets import list_images, natural_order, sample_photographs
from models.errors import ImageError
from models.files import printable
from models.images import image_size, read_image
from training.settings import Settings

EXAMPLES = 5  # skipped files that a report names
MAX_HELD_OUT = 24
VALIDATION_SIDE = 256  # pixels, whatever the size of the training crops: runs stay comparable

Entry = tuple[str, Path, tuple[str, ...]]  # name, folder, files; the first one tells the size


@dataclass(frozen=True)
class Source:
    """One image, or the frames of one clip, of which a random one is taken."""

    name: str  # unique in its data set and independent of where that lies: 'a/b.png'
    height: int  # pixels
    width: int
    folder: Path = Path()
    files: tuple[str, ...] = ()  # in `folder`; several for a clip
    pixels: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def frames(self) -> int:
        """How many there are to choose from; 1 for an image."""
        return len(self.files) or 1

    def read(self, frame: int = 0, side: int = 1) -> np.ndarray:
        """uint8 (H, W, 3), sides of at least `side`. ImageError if the file has no such image."""
        if self.pixels is not None:
            return self.pixels
        pixels = read_image(self.folder / self.files[frame])
        if min(pixels.shape[:2]) < side:  # changed since its header was read
            raise ImageError(f"{self.name} has become smaller than the crop.")
        return pixels


@dataclass(frozen=True)
class ImageSet:
    """The images of a data set in a fixed order, and what was left out of it."""

    title: str  # where they are, and in what layout
    sources: tuple[Source, ...]
    skipped: tuple[str, ...] = ()  # a sentence for each file

    def __len__(self) -> int:
        return len(self.sources)

    def without(self, names: set[str]) -> ImageSet:
        return replace(self, sources=tuple(s for s in self.sources if s.name not in names))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over names and sizes, for a run's provenance."""
        text = "\n".join(f"{s.name} {s.height} {s.width} {s.frames}" for s in self.sources)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def report(self) -> str:
        """What there is, in a line, and the first of what was skipped, and why."""
        frames = sum(s.frames for s in self.sources)
        clips = f" as clips of {frames:,} frames" if frames > len(self) else ""
        number = "1 image" if len(self) == 1 else f"{len(self):,} images"
        pixels = sum(s.height * s.width for s in self.sources)
        lines = [f"{self.title}: {number}{clips}, {pixels / 1e6:,.1f} megapixels"]
        if self.skipped:
            lines[0] += f"; skipped {len(self.skipped):,}:"
            lines += [f"  {printable(reason)}" for reason in self.skipped[:EXAMPLES]]
        if len(self.skipped) > EXAMPLES:
            lines.append(f"  ... and {len(self.skipped) - EXAMPLES:,} more")
        return "\n".join(lines)


def open_dataset(root: str | Path | None, split: str = "train", min_side: int = 1) -> ImageSet:
    """Find the images of a data set. `split` is 'train' or 'test'; layouts, the first that fits:

    * None: the photographs that come with scikit-image, for both splits;
    * Vimeo-90k: `sequences/` and `sep_trainlist.txt` or `tri_trainlist.txt` (and `...testlist`);
    * `train/` and `test/`, as for torchvision's ImageFolder, each flat or nested;
    * any other folder: all images in it and in the folders inside, for both splits.

    Only headers are read. Files that are no usable image, and images with a side shorter than
    `min_side` pixels, are skipped and listed in the result. ImageError if nothing is left.
    """
    skipped: list[str] = []
    sources: list[Source] = []
    entries: list[Entry] = []
    if root is None:
        title = "built-in sample photographs"
        sources = [Source(n, len(p), len(p[0]), pixels=p) for n, p in sample_photographs()]
    elif (Path(root) / "sequences").is_dir() and any(Path(root).glob("*_t*list.txt")):
        title = f"{root} (Vimeo-90k, {split})"
        entries = _vimeo(Path(root), split, skipped)
    else:
        folder = _split_folder(Path(root), split)
        title = str(folder)
        names = (p.relative_to(folder).as_posix() for p in list_images(folder, recursive=True))
        entries = [(name, folder, (name,)) for name in names]
    for name, folder, files in entries:
        try:
            sources.append(Source(name, *image_size(folder / files[0]), folder, files))
        except ImageError as error:
            skipped.append(str(error))
    large = tuple(s for s in sources if min(s.height, s.width) >= min_side)
    skipped += [
        f"{s.name} is {s.width}x{s.height}, smaller than the crop of {min_side}x{min_side}."
        for s in sources
        if min(s.height, s.width) < min_side
    ]
    result = ImageSet(title, large, tuple(skipped))
    if not large:
        raise ImageError(f"There is no usable image. {result.report()}")
    return result


def _split_folder(root: Path, split: str) -> Path:
    """`root/split` if the folder is divided like that, otherwise `root` itself."""
    present = [s for s in ("train", "test") if (root / s).is_dir()]
    if present and split not in present:
        # The other half must not be taken by mistake: test images are not to be trained on.
        raise ImageError(
            f"{root} has a folder {present[0]}/ but none named {split}/; add it, or name a folder "
            "of images."
        )
    return root / split if present else root


def _vimeo(root: Path, split: str, skipped: list[str]) -> list[Entry]:
    """The clips of a list file ('00001/0266' in each line); all frames have the first's size.

    Xue et al. 2019, "Video Enhancement with Task-Oriented Flow": septuplets or triplets.
    """
    lists = [root / f"{kind}_{split}list.txt" for kind in ("sep", "tri")]
    present = [path for path in lists if path.is_file()]
    if not present:
        raise ImageError(f"{root} has neither {lists[0].name} nor {lists[1].name}; add the list.")
    clips = []
    lines = present[0].read_text(encoding="utf-8").splitlines()
    for name in sorted({line.strip() for line in lines} - {""}):
        folder = root / "sequences" / name
        frames = sorted((path.name for path in folder.glob("im*.png")), key=natural_order)
        if frames:
            clips.append((name, folder, tuple(frames)))
        else:
            skipped.append(f"{folder} is in {present[0].name} but holds no frames (im1.png, ...).")
    return clips


def held_out(images: ImageSet, n: int) -> tuple[ImageSet, ImageSet]:
    """Split off n images for validation: (the rest, the n), each in its former order.

    Those with the smallest SHA-256 of their names are taken, so the choice is stable when the
    folder moves, and changes little when images are added.
    """

    def digest(name: str) -> bytes:
        return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()

    chosen = set(sorted((s.name for s in images.sources), key=digest)[:n])
    out = tuple(s for s in images.sources if s.name in chosen)
    return images.without(chosen), ImageSet(f"held out of {images.title}", out)


def centre_crops(images: ImageSet, multiple: int) -> dict[str, Tensor]:
    """The centre of each image that can be read, by name, float32 (3, P, P) in [0, 1]; of a clip,
    its middle frame. The others are noted.

    P: the largest multiple of `multiple` that fits into all of them, at most 256.
    """
    least = min((min(s.height, s.width) for s in images.sources), default=multiple)
    side = min(VALIDATION_SIDE, least // multiple * multiple)
    centres = {}
    for source in images.sources:
        try:
            pixels = source.read(source.frames // 2, side)
        except ImageError as error:
            note(f"Skipped: {error}")
            continue
        y, x = ((length - side) // 2 for length in pixels.shape[:2])
        view = pixels[y : y + side, x : x + side]
        centres[source.name] = torch.from_numpy(view.transpose(2, 0, 1).copy()).float().div_(255)
    return centres


@dataclass(frozen=True)
class Data:
    """Training images; images for validation, each (3, P, P); what to tell about them."""

    images: ImageSet
    held_out: list[Tensor]
    report: str
    provenance: dict


def open_data(settings: Settings) -> Data:
    """The data of a run. ImageError, with what to do, when there is none.

    Validation takes `--test_dataset`, else the test/ folder beside train/, else images held out
    of the training set: one in twenty, at most 24. One of these that cannot be read is left out
    and the next is taken.
    """
    images = open_dataset(settings.dataset, "train", min_side=settings.patch_size)
    step = models.MODELS[settings.model_name].downsampling
    test = settings.test_dataset
    if test is None and settings.dataset and (Path(settings.dataset) / "test").is_dir():
        test = settings.dataset
    if test is not None:
        validation = open_dataset(test, "test", min_side=step)
        centres = centre_crops(validation, step)
        if not centres:
            raise ImageError(f"No image of {validation.title} can be read.")
    else:
        while True:
            count = min(MAX_HELD_OUT, max(len(images) // 20, 1), len(images) - 1)
            rest, validation = held_out(images, count)
            centres = centre_crops(validation, step)
            if len(centres) == count:
                break
            images = images.without({s.name for s in validation.sources} - centres.keys())
        images = rest
    provenance = {
        "data": settings.config()["dataset"] or "built-in sample photographs",
        "images": len(images),
        "data_fingerprint": images.fingerprint,
        "validation": Path(test).resolve().name if test else f"{len(centres)} images held out",
    }
    report = (
        f"Training on {images.report()}\nValidation on {validation.title}: {len(centres)}. "
        "Pixels are sRGB, converted where a file has another profile."
    )
    return Data(images, list(centres.values()), report, provenance)
