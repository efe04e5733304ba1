"""What every codec shares: sizes, freezing, and the way from an image to a file and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.coding.container import Header, check_pixels, pack, padded, unpack
from models.coding.frozen import Frozen, Networks
from models.coding.gain import ONE, Gain
from models.coding.loop import Coder
from models.coding.range_coder import CodingTables, Reader, Writer
from models.entropy.density import NonParametricDensity
from models.entropy.tables import Tables
from models.errors import FreezeError, StreamError
from models.images import check_images
from models.layers import AtGain, Mode
from models.layers.bf16 import InBf16, check_precision
from models.layers.defaults import torch_defaults
from models.layers.pruned import pruned
from models.layers.tiles import Progress, analyse, synthesise
from models.presets import MAX_PIXELS, OperatingPoint

LATENT_LIMIT = 2.0**52  # escaped symbols are exact in float64 up to 2**53


class Codec(nn.Module):
    """Base of all codecs. A model defines its towers, `likelihoods`, `code`, `frozen_tables`.

    N and M: channels of the inner layers and of the latent y. `downsampling`: pixels per
    latent position of the coarsest latent; images are padded to its multiples.
    """

    streams: ClassVar[tuple[str, ...]] = ("y",)  # the latents, in coding order
    downsampling: ClassVar[int] = 16

    def __init__(self, N: int, M: int):
        super().__init__()
        self.N, self.M = N, M
        self.point: OperatingPoint | None = None
        self.metadata: dict = {}
        self.progress: Progress = iter  # wraps the tiles of a large image, or steps, such as tqdm
        self.precision = "fp32"  # of the transforms while coding, see `use`
        self._frozen: Frozen | None = None

    def forward(self, x: Tensor, quantization: str | None = None, gain: float = 1.0) -> dict:
        """`estimate` of images (B, 3, H, W) in [0, 1]; ValueError unless H and W are multiples
        of `downsampling`."""
        height, width = x.shape[-2:]
        if (height, width) != padded(height, width, self.downsampling):
            raise ValueError(
                f"Training and estimates take sides that are multiples of {self.downsampling}, "
                f"not {height} x {width}; `models.base.pad` pads, `compress` takes any size."
            )
        return self.estimate(self.analysis(x), quantization, gain)

    def quantization(self, mode: str | None) -> str:
        """The mode of `estimate`: as asked, else noise in training and rounding otherwise."""
        return mode or ("noise" if self.training else "round")

    def analysis(self, x: Tensor) -> dict[str, Tensor]:
        """Image (B, 3, H, W) to float latents by name, each (B, C, h, w)."""
        return self.latents(analyse(self.transform("g_a"), x, self.progress))

    def latents(self, y: Tensor) -> dict[str, Tensor]:
        """y (B, M, H/16, W/16) and what else is coded for it, by name, each (B, C, h, w)."""
        return {"y": y}

    def estimate(
        self, latents: dict[str, Tensor], quantization: str | None = None, gain: float = 1.0
    ) -> dict:
        """What training sees: {"x_hat": (B, 3, H, W), "likelihoods": {name: like the latent}}.

        quantization: see `models.layers.Quantised`; None is noise in training, else rounding.
        gain: as in `compress`.
        """
        mode = AtGain(self.quantization(quantization), gain)
        y_hat, likelihoods = self.likelihoods(latents, mode)
        return {"x_hat": self.g_s(y_hat), "likelihoods": likelihoods}

    # What a model defines ------------------------------------------------------------

    def likelihoods(
        self, latents: dict[str, Tensor], mode: Mode
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """y_hat (B, M, H/16, W/16), and the likelihoods of each latent, like it, by its name.

        mode: of `models.layers.Quantised`.
        """
        raise NotImplementedError

    def code(
        self, coders: Mapping[str, Coder], latents: dict[str, Tensor], shapes: dict[str, tuple]
    ) -> Tensor:
        """Code all latents, or read them where `latents` is empty; returns y_hat.

        `shapes`: (B, C, h, w) by name. y_hat: (B, M, H/16, W/16).
        """
        raise NotImplementedError

    def synthesis(self, y_hat: Tensor) -> Tensor:
        """y_hat (B, M, H/16, W/16) to an image (B, 3, H, W)."""
        return synthesise(self.transform("g_s"), y_hat, self.progress)

    def frozen_tables(self) -> dict[str, Tables]:
        """The frequency tables of each stream, from the present weights."""
        raise NotImplementedError

    def coding_tables(self, gain: Gain) -> dict[str, CodingTables]:
        """The range coder's tables of each stream at a gain of y. Those of Gaussians serve any."""
        return self.frozen.coding

    def table_counts(self) -> dict[str, int]:
        """How many tables each stream has: one a channel."""
        return {name: shape[1] for name, shape in self.latent_shapes(1, 64, 64).items()}

    def frozen_networks(self) -> Networks:
        """The networks that feed the coder, in integers."""
        return {}

    def latent_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple]:
        """(B, C, h, w) of each stream's latent for a padded image."""
        return {"y": (batch, self.M, height // 16, width // 16)}

    # Freezing -------------------------------------------------------------------------

    def solve_quantiles(self) -> None:
        """Set the quantiles of every non-parametric density by bisection."""
        for module in self.modules():
            if isinstance(module, NonParametricDensity):
                module.solve_quantiles()

    @torch_defaults()
    def freeze(self, tables: dict[str, Tables] | None = None) -> Codec:
        """Derive the integers of the coding path from the present weights; returns self.

        `tables`: those stored in a checkpoint; made anew where None. Training mode and
        loading of weights undo it. FreezeError when the weights cannot be frozen, or the tables
        are not as many as the model looks up.
        """
        tables = tables or self.frozen_tables()
        counts = {name: len(table) for name, table in tables.items()}
        if counts != self.table_counts():
            raise FreezeError(f"The tables are {counts}; the model needs {self.table_counts()}.")
        self.eval()
        # Convolutions with weights in this layout compute in it, a quarter faster on a CPU.
        self.to(memory_format=torch.channels_last)
        name = f"{type(self).__name__} {self.N} {self.M}"
        self._frozen = Frozen(name, tables, self.frozen_networks())
        return self

    @property
    def frozen(self) -> Frozen:
        """The frozen integers on the model's device; RuntimeError before `freeze()`."""
        if self._frozen is None:
            raise RuntimeError(
                "The model is not frozen, or not any more since train() or load_state_dict(): "
                "call freeze() before coding with it."
            )
        return self._frozen.to(next(self.parameters()).device)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name the tables and integer weights."""
        return self.frozen.digest

    def train(self, mode: bool = True) -> Codec:
        if mode:
            self._frozen = None  # the weights are about to change
        return super().train(mode)

    def load_state_dict(self, *args, **kwargs):
        self._frozen = None
        return super().load_state_dict(*args, **kwargs)

    # Precision ------------------------------------------------------------------------

    def use(self, precision: str) -> Codec:
        """Code with transforms in "fp32" or "bf16" from now on; returns self.

        Files stay exchangeable between the two. Training and unfrozen models keep to fp32.
        UsageError for another name, and where the device only emulates bf16.
        """
        check_precision(precision, next(self.parameters()).device)
        self.precision = precision
        return self

    def transform(self, name: str) -> nn.Module:
        """g_a or g_s as coding runs it: in the precision of `use`, without unread channels."""
        if self._frozen is None or (self.precision == "fp32" and torch.is_grad_enabled()):
            return getattr(self, name)
        transforms, key = self.frozen.transforms, f"{name} {self.precision}"
        if key not in transforms:
            network = pruned(getattr(self, name))
            transforms[key] = network if self.precision == "fp32" else InBf16(network)
        return transforms[key]

    # Images to files and back ------------------------------------------------------------

    @torch_defaults()
    def compress(self, x: Tensor, gain: float = 1.0) -> list[bytes]:
        """Images (B, 3, H, W) in [0, 1], float32, any B, H, W >= 1, to one complete file each.

        gain: above 1 for more bits and quality than the model was trained for, below for fewer, see
        `models.coding.gain`. ValueError for any other tensor, and as `encode`.
        """
        check_images(x)
        height, width = x.shape[-2:]
        return self.files(self.analysis(pad(x, self.downsampling)), height, width, gain)

    def files(
        self, latents: dict[str, Tensor], height: int, width: int, gain: float = 1.0
    ) -> list[bytes]:
        """Float latents (B, C, h, w) of images of this size to one complete file each.

        ValueError as `encode`.
        """
        streams, name = self.encode(latents, gain), type(self).__name__
        lmbda, metric = (self.point.lmbda, self.point.metric) if self.point else (0.0, "mse")
        header = Header(name, lmbda, metric, self.digest, height, width, (), Gain(gain).value)
        return [pack(header, parts) for parts in zip(*streams, strict=True)]

    @torch_defaults()
    def encode(self, latents: dict[str, Tensor], gain: float = 1.0) -> list[list[bytes]]:
        """Float latents (B, C, h, w) to range-coded bytes: for each stream, one string per image.

        ValueError for latents that are not finite, or beyond what an escape can hold, and for a
        gain that is not from 1/16 to 16.
        """
        if not all((v.abs() < LATENT_LIMIT).all() for v in latents.values()):
            raise ValueError("The image gives latents that are not finite: check its pixels.")
        batch, parts = len(latents["y"]), self._parts(Gain(gain))
        writers = {name: Writer(tables, batch, own) for name, tables, own in parts}
        self.code(writers, latents, {name: v.shape for name, v in latents.items()})
        return [writers[name].finish() for name in self.streams]

    @torch_defaults()
    def decode(
        self, streams: Sequence[Sequence[bytes]], height: int, width: int, gain: float = 1.0
    ) -> Tensor:
        """The inverse of `encode` for a padded image: y_hat (B, M, H/16, W/16), without the gain.

        StreamError when the streams do not hold such latents.
        """
        parts = zip(self._parts(Gain(gain)), streams, strict=True)
        readers = {name: Reader(tables, strings, own) for (name, tables, own), strings in parts}
        y_hat = self.code(readers, {}, self.latent_shapes(len(streams[0]), height, width))
        for reader in readers.values():
            reader.finish()
        return y_hat

    def _parts(self, gain: Gain) -> list[tuple[str, CodingTables, Gain]]:
        """Each stream's name, tables and gain; y alone has one."""
        tables = self.coding_tables(gain)
        return [(name, tables[name], gain if name == "y" else ONE) for name in self.streams]

    @torch_defaults()
    def decompress(self, files: Sequence[bytes], max_pixels: int = MAX_PIXELS) -> Tensor:
        """Files of images of one size to (B, 3, H, W) in [0, 1]. StreamError if that fails.

        `max_pixels`: of one image as it is padded; a larger claim is refused before any work.
        Below it, memory and time grow with these pixels, whatever the length of the file.
        """
        if not (isinstance(files, Sequence) and files and all(isinstance(f, bytes) for f in files)):
            raise StreamError("decompress takes a list of complete files, as bytes, one or more.")
        unpacked = [unpack(data) for data in files]
        for header, _ in unpacked:
            self._check(header, max_pixels)
        (height, width, gain), *others = {(h.height, h.width, h.gain) for h, _ in unpacked}
        if others:
            raise StreamError("The files of a batch must hold images of one size, at one gain.")
        streams = list(zip(*(parts for _, parts in unpacked), strict=True))
        y_hat = self.decode(streams, *padded(height, width, self.downsampling), gain)
        x_hat = self.synthesis(y_hat)[:, :, :height, :width].clamp_(0, 1)
        if x_hat.isnan().any():  # latents so large that inverse GDN leaves the floats
            raise StreamError("The streams are damaged: they describe no image.")
        return x_hat

    def _check(self, header: Header, max_pixels: int) -> None:
        name = type(self).__name__
        if (header.model, header.digest) != (name, self.digest):
            raise StreamError(
                f"The file needs the tables {header.digest} of {header.model}, this {name} has "
                f"{self.digest}: it was written with another checkpoint (lambda {header.lmbda:g})."
            )
        if len(header.lengths) != len(self.streams):
            raise StreamError(f"{name} has {len(self.streams)} streams, not {len(header.lengths)}.")
        check_pixels(header, max_pixels, self.downsampling)


def pad(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until height and width are multiples; (B, C, H, W).

    Repeated pixels cost the least: they add no edges.
    """
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
