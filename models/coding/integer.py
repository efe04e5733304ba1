"""Networks in exact integer arithmetic: the same numbers on every machine.

An activation a stands for the integer a_q = a * 2**FRACTION_BITS, a weight w for w_q =
w * 2**s with one s per output channel, chosen so that |w_q| <= 2**15. Integers live in
float64 tensors: products and sums are exact while |bias| + sum |w_q| * max |a_q| < 2**53,
whatever the order of summation, the number of threads, the batch or the device. The
bound is proven for each layer when it is built, and activations are clamped to LIMIT, so
it holds for every input. How a product is computed is left to `products`: any exact way
gives the same integers.

Convolutions are gathering + matrix product: a library's convolution may choose Winograd or
FFT, whose intermediate values are not integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.coding.products import IntegerMatrix
from models.errors import FreezeError
from models.layers import MaskedConv2d

FRACTION_BITS = 12  # of activations inside the networks
GRID_BITS = 6  # of latents and means: multiples of 1/64
LIMIT = float(1 << 23)  # activations are clamped to [-LIMIT, LIMIT]
WEIGHT_BITS = 15
EXACT = float(1 << 53)
LEAKY_SLOPE = 10486 / 2**20  # LeakyReLU's 0.01, exact in binary
BLOCK = 512  # rows of a product at a time: what is made of them stays in the cache


class IntegerLinear:
    """weight (out, K), bias (out,): exact accumulators, and their rescaling to activations.

    `inputs` and `outputs` are fraction bits of what goes in and comes out; `outputs` may
    differ per channel, (out,).
    """

    def __init__(self, weight: Tensor, bias: Tensor, inputs: int, outputs: Tensor | int):
        weight, bias = weight.detach().double().cpu(), bias.detach().double().cpu()
        if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise FreezeError("The weights hold NaN or infinity; this checkpoint is broken.")
        self.outputs = torch.as_tensor(outputs).expand(len(bias))
        _, exponent = torch.frexp(weight.abs().amax(1))
        scale = (WEIGHT_BITS - exponent).clamp(-40, 24).double()
        while True:
            self.shift = scale + inputs - self.outputs
            self.weight = torch.round(weight * _power_of_two(scale)[:, None])
            half = torch.where(self.shift >= 1, _power_of_two(self.shift - 1), 0.0)
            self.bias = torch.round(bias * _power_of_two(scale + inputs)) + half
            too_large = self.bias.abs() + self.weight.abs().sum(1) * LIMIT >= EXACT
            if not too_large.any():
                break
            if (scale < -200).any():
                raise FreezeError("The biases are too large for exact arithmetic.")
            scale = scale - too_large.double()
        self.units = _power_of_two(-self.shift)
        self.offset = self.bias * self.units
        self.matrices = [IntegerMatrix(part, self.units) for part in self.parts()]
        self.weight = self.weight.int()  # for the digest alone from now on

    def parts(self) -> list[Tensor]:
        """The weight in the form, or the parts, that inputs are multiplied with, (out, K) each."""
        return [self.weight]

    def to(self, device: torch.device | str) -> IntegerLinear:
        """Move the integers; in place."""
        self.offset = self.offset.to(device)
        for matrix in self.matrices:
            matrix.to(device)
        return self

    def rescale(self, sums: Tensor) -> Tensor:
        """Products, in units of 2**shift, to activations, (..., out): with the bias, which holds
        the half that rounds, floored, within the limits. In place.
        """
        return sums.add_(self.offset).floor_().clamp_(-LIMIT, LIMIT)

    def __call__(self, rows: Tensor) -> Tensor:
        """Activations (n, K) to activations (n, out)."""
        return self.rescale(self.matrices[0](rows))

    def integers(self) -> list[Tensor]:
        """What the results depend on, for a digest: tensors of any shape."""
        return [self.weight, self.bias, self.shift]


class IntegerConv(IntegerLinear):
    """A convolution, (B, C, H, W) -> (B, out, H/stride, W/stride)."""

    def __init__(self, layer: nn.Conv2d, inputs: int, outputs: Tensor | int):
        self.kernel, self.stride = layer.kernel_size[0], layer.stride[0]
        super().__init__(layer.weight.flatten(1), _bias(layer), inputs, outputs)

    def parts(self) -> list[Tensor]:
        taps = self.weight.unflatten(1, (-1, self.kernel**2))
        return [taps.transpose(1, 2).flatten(1)]  # by tap, then by channel

    def __call__(self, x: Tensor) -> Tensor:
        pad, (batch, _, height, width) = self.kernel // 2, x.shape
        rows, columns = (height - 1) // self.stride + 1, (width - 1) // self.stride + 1
        taps = [(i, j) for i in range(self.kernel) for j in range(self.kernel)]
        out = x.new_empty(batch, rows, columns, len(self.bias))
        x = _padded(x, pad)
        for here, sums in _gathered(self.matrices[0], x, taps, self.stride, rows, columns):
            out[:, here] = self.rescale(sums)
        return out.permute(0, 3, 1, 2)


class IntegerDeconv(IntegerLinear):
    """A transposed convolution, (B, C, H, W) -> (B, out, H*stride, W*stride).

    The outputs of one phase (row and column modulo stride) see the same taps: each phase is a
    convolution of stride 1.
    """

    def __init__(self, layer: nn.ConvTranspose2d, inputs: int, outputs: Tensor | int):
        self.kernel, self.stride = layer.kernel_size[0], layer.stride[0]
        # Output o = q * stride + phase gathers inputs q + d with tap phase + pad - d * stride.
        self.reach = self.kernel // 2 // self.stride + 1
        taps = [
            [(d, first - d * self.stride) for d in range(-self.reach, self.reach + 1)]
            for first in range(self.kernel // 2, self.kernel // 2 + self.stride)
        ]
        self.phases = [[(d, t) for d, t in each if 0 <= t < self.kernel] for each in taps]
        # Bound and scale per output channel: each sees at most all inputs times all taps.
        super().__init__(layer.weight.transpose(0, 1).flatten(1), _bias(layer), inputs, outputs)

    def parts(self) -> list[Tensor]:
        taps = self.weight.view(len(self.weight), -1, self.kernel, self.kernel)
        return [
            torch.cat([taps[:, :, i, j] for _, i in rows for _, j in columns], 1)
            for rows in self.phases
            for columns in self.phases
        ]

    def __call__(self, x: Tensor) -> Tensor:
        stride, reach, (batch, _, height, width) = self.stride, self.reach, x.shape
        out = x.new_empty(batch, height, stride, width, stride, len(self.bias))
        x = _padded(x, reach)
        for phase, matrix in enumerate(self.matrices):
            i, j = divmod(phase, stride)
            taps = [(reach + d, reach + e) for d, _ in self.phases[i] for e, _ in self.phases[j]]
            for here, sums in _gathered(matrix, x, taps, 1, height, width):
                out[:, here, i, :, j] = self.rescale(sums)
        return out.view(batch, height * stride, width * stride, -1).permute(0, 3, 1, 2)


def _gathered(
    matrix: IntegerMatrix,
    x: Tensor,
    taps: list[tuple[int, int]],
    stride: int,
    rows: int,
    columns: int,
) -> Iterator[tuple[slice, Tensor]]:
    """Products of a convolution over x (B, H, W, C), in blocks of rows: (rows, (B, n, w, out)).

    Output (r, c) sees the inputs (r * stride + i, c * stride + j) of all taps (i, j).
    """
    x = matrix.split(x)  # digits are made once, before each is gathered several times
    batch = x.shape[-4]
    block = max(1, BLOCK // (batch * columns))
    for top in range(0, rows, block):
        here = slice(top, min(top + block, rows))
        seen = torch.cat([
            x[..., i + top * stride : i + (here.stop - 1) * stride + 1 : stride,
              j : j + (columns - 1) * stride + 1 : stride, :]
            for i, j in taps
        ], -1)  # fmt: skip
        yield here, matrix(seen.flatten(-4, -2)).unflatten(0, (batch, -1, columns))


def _padded(x: Tensor, pad: int) -> Tensor:
    """(B, C, H, W) with zeros around it, as contiguous (B, H, W, C)."""
    return F.pad(x.permute(0, 2, 3, 1), (0, 0, pad, pad, pad, pad))


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    return layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias


def _power_of_two(exponents: Tensor) -> Tensor:
    # Not torch.exp2: its vectorised form promises the last bit only almost.
    return torch.from_numpy(np.ldexp(1.0, exponents.numpy().astype(np.int64)))


def leaky_relu(x: Tensor) -> Tensor:
    """LeakyReLU on integers of any shape: floor(0.01 x) below zero, 0.01 as a binary fraction."""
    # For an integer x >= 0, floor(0.01 x) <= x; below zero it is at least x.
    return torch.maximum(x, (x * LEAKY_SLOPE).floor_())


def relu(x: Tensor) -> Tensor:
    """ReLU on integers of any shape."""
    return x.clamp(min=0)


_ACTIVATIONS: dict[type, Callable[[Tensor], Tensor]] = {nn.ReLU: relu, nn.LeakyReLU: leaky_relu}


class IntegerNetwork:
    """An `nn.Sequential` of (transposed) convolutions, ReLU and LeakyReLU, in integers.

    Input (B, C, H, W) with `inputs` fraction bits; output with `outputs` fraction bits,
    one number or one per output channel. FreezeError for any other kind of layer.
    """

    def __init__(self, network: nn.Sequential, inputs: int, outputs: Tensor | int):
        self.steps: list[Callable[[Tensor], Tensor]] = []
        self.layers: list[IntegerLinear] = []
        last = max(k for k, module in enumerate(network) if hasattr(module, "weight"))
        bits = inputs
        for k, module in enumerate(network):
            if type(module) in _ACTIVATIONS:
                if getattr(module, "negative_slope", 0.01) != 0.01:
                    raise FreezeError(f"Only a slope of 0.01 has an integer form, not {module}.")
                self.steps.append(_ACTIVATIONS[type(module)])
                continue
            if type(module) not in (nn.Conv2d, nn.ConvTranspose2d):
                raise FreezeError(f"No integer form of the layer {module} is known.")
            kind = IntegerConv if isinstance(module, nn.Conv2d) else IntegerDeconv
            layer = kind(module, bits, outputs if k == last else FRACTION_BITS)
            bits = FRACTION_BITS
            self.layers.append(layer)
            self.steps.append(layer)

    def to(self, device: torch.device | str) -> IntegerNetwork:
        for layer in self.layers:
            layer.to(device)
        return self

    def integers(self) -> list[Tensor]:
        """What the results depend on, for a digest: tensors of any shape."""
        return [t for layer in self.layers for t in layer.integers()]

    def __call__(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


class IntegerContext:
    """Masked 5x5 context convolution and 1x1 entropy-parameter network, at given positions.

    The first 1x1 layer sees the hyperprior's features psi beside the context's: its psi
    half is computed for all positions at once by `prepare`, as exact accumulators.
    """

    def __init__(self, context: MaskedConv2d, parameters: nn.Sequential):
        mask = context.mask.flatten().bool().cpu()
        taps = context.weight.detach().flatten(2)[:, :, mask].transpose(1, 2).flatten(1)
        self.context = IntegerLinear(taps, _bias(context), GRID_BITS, FRACTION_BITS)
        kernel = context.kernel_size[0]
        offsets = torch.arange(kernel) - kernel // 2
        self.rows = offsets.repeat_interleave(kernel)[mask]
        self.columns = offsets.repeat(kernel)[mask]
        convs = [m for m in parameters if isinstance(m, nn.Conv2d)]
        outputs = mean_scale_bits(convs[-1].out_channels // 2)
        bits: list[Tensor | int] = [FRACTION_BITS] * (len(convs) - 1) + [outputs]
        self.layers = [
            IntegerLinear(c.weight.flatten(1), _bias(c), FRACTION_BITS, b)
            for c, b in zip(convs, bits, strict=True)
        ]
        self.psi_channels = convs[0].in_channels - context.out_channels

        first = self.layers[0]
        halves = first.weight.split([self.psi_channels, context.out_channels], 1)
        first.matrices = [IntegerMatrix(half, first.units) for half in halves]

    def to(self, device: torch.device | str) -> IntegerContext:
        for layer in (self.context, *self.layers):
            layer.to(device)
        self.rows, self.columns = self.rows.to(device), self.columns.to(device)
        return self

    def integers(self) -> list[Tensor]:
        """What the results depend on, for a digest: tensors of any shape."""
        return [t for layer in (self.context, *self.layers) for t in layer.integers()]

    def prepare(self, psi: Tensor) -> Tensor:
        """psi (B, 2M, H, W) -> the psi half of the first layer, (B, H*W, 10M/3)."""
        first, rows = self.layers[0], psi.permute(0, 2, 3, 1).flatten(0, 2)
        prepared = rows.new_empty(len(rows), len(first.bias))
        for block, out in zip(rows.split(BLOCK), prepared.split(BLOCK), strict=True):
            out.copy_(first.matrices[0](block))
        return prepared.unflatten(0, (len(psi), -1))

    def at(
        self, prepared: Tensor, y_hat: Tensor | None, positions: Tensor, centres: Tensor, row: int
    ) -> Tensor:
        """Parameters at positions (n,): from what `prepare` made to (B, n, 2M).

        y_hat (B, cells, M) is the padded grid whose rows are `row` cells long, and centres
        (n,) are the positions' cells; None stands for a context of zero, features and all.
        """
        out = prepared.new_empty(len(prepared), len(positions), len(self.layers[-1].bias))
        if y_hat is not None and len(positions) * len(self.rows) > y_hat.shape[1]:
            y_hat = self.context.matrices[0].split(y_hat)  # once for all that see a cell
        step = max(1, BLOCK // len(prepared))
        for start in range(0, len(positions), step):
            here = slice(start, start + step)
            out[:, here] = self._at(prepared[:, positions[here]], y_hat, centres[here], row)
        return out

    def _at(self, prepared: Tensor, y_hat: Tensor | None, centres: Tensor, row: int) -> Tensor:
        first, *rest = self.layers
        sums = prepared.flatten(0, 1)  # (B*n, 10M/3), a copy of the caller's already
        if y_hat is not None:
            sums += first.matrices[1](self.context(self._neighbours(y_hat, centres, row)))
        x = first.rescale(sums)
        for layer in rest:
            x = layer(leaky_relu(x))
        return x.unflatten(0, prepared.shape[:2])

    def _neighbours(self, y_hat: Tensor, centres: Tensor, row: int) -> Tensor:
        """What the context sees around cells (n,) of y_hat (B, cells, M): (B*n, taps*M).

        Of digits (count, B, cells, M): (count, B*n, taps*M).
        """
        *count, batch, size, channels = y_hat.shape
        seen = y_hat.view(-1, channels)
        taps = centres[:, None] + (self.rows * row + self.columns)  # (n, taps)
        if len(seen) > size:
            taps = taps + torch.arange(0, len(seen), size, device=taps.device)[:, None, None]
        # Whole rows of memory are copied, several times faster than by y_hat[:, taps].
        return seen.index_select(0, taps.flatten()).view(*count, batch * len(centres), -1)


def mean_scale_bits(channels: int) -> Tensor:
    """Fraction bits of a network's output of M scales and M means, (2M,)."""
    return torch.tensor([FRACTION_BITS, GRID_BITS]).repeat_interleave(channels)


def digest_parts(parts: Sequence[Tensor]) -> list[bytes]:
    """Integers of any shape as bytes that do not depend on the machine."""
    return [p.cpu().to(torch.int64).numpy().astype("<i8").tobytes() for p in parts]
