"""Networks in exact integer arithmetic: the same numbers on every machine.

An activation a stands for the integer a_q = a * 2**FRACTION_BITS, a weight w for w_q =
w * 2**s with one s per output channel, chosen so that |w_q| <= 2**15. Integers live in
float64 tensors: products and sums are exact while |bias| + sum |w_q| * max |a_q| < 2**53,
whatever the order of summation, the number of threads, the batch or the device. The
bound is proven for each layer when it is built, and activations are clamped to LIMIT, so
it holds for every input.

Convolutions are unfold + matrix product: a library's convolution may choose Winograd or
FFT, whose intermediate values are not integers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import MaskedConv2d

FRACTION_BITS = 12  # of activations inside the networks
GRID_BITS = 6  # of latents and means: multiples of 1/64
LIMIT = float(1 << 23)  # activations are clamped to [-LIMIT, LIMIT]
WEIGHT_BITS = 15
EXACT = float(1 << 53)
LEAKY_SLOPE = 10486 / 2**20  # LeakyReLU's 0.01, exact in binary
STRIP_BYTES = 1 << 26  # unfolded columns held at a time


class FreezeError(ValueError):
    """A network cannot be turned into integers."""


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
        self.inverse = _power_of_two(-self.shift)

    def to(self, device: torch.device | str) -> IntegerLinear:
        """Move the integers; in place."""
        self.weight, self.bias, self.inverse = (
            t.to(device) for t in (self.weight, self.bias, self.inverse)
        )
        return self

    def rescale(self, accumulators: Tensor) -> Tensor:
        """floor(acc / 2**shift) within the limits, (..., out, n). Rounds: bias holds the half.

        Works in place on its argument.
        """
        return accumulators.mul_(self.inverse[:, None]).floor_().clamp_(-LIMIT, LIMIT)

    def accumulate(self, columns: Tensor) -> Tensor:
        """(..., K, n) -> (..., out, n). Weights on the left: BLAS is fastest that way."""
        if columns.dim() == 2:  # one call, one pass: it counts in the small steps of a wavefront
            return torch.addmm(self.bias[:, None], self.weight, columns)
        return (self.weight @ columns).add_(self.bias[:, None])

    def __call__(self, columns: Tensor) -> Tensor:
        return self.rescale(self.accumulate(columns))

    def integers(self) -> list[Tensor]:
        """What the results depend on, for a digest: tensors of any shape."""
        return [self.weight, self.bias, self.shift]


class IntegerConv(IntegerLinear):
    """A convolution, (B, C, H, W) -> (B, out, H/stride, W/stride), in strips of rows."""

    def __init__(self, layer: nn.Conv2d, inputs: int, outputs: Tensor | int):
        super().__init__(layer.weight.flatten(1), _bias(layer), inputs, outputs)
        self.kernel, self.stride = layer.kernel_size[0], layer.stride[0]

    def __call__(self, x: Tensor) -> Tensor:
        kernel, stride, pad = self.kernel, self.stride, self.kernel // 2
        batch, channels, height, width = x.shape
        x = F.pad(x, (pad, pad, pad, pad))
        rows, columns = (height - 1) // stride + 1, (width - 1) // stride + 1
        out = x.new_empty(batch, len(self.bias), rows, columns)
        strip = _strip(batch * channels * kernel * kernel * columns)
        for top in range(0, rows, strip):
            bottom = min(top + strip, rows)
            part = x[:, :, top * stride : (bottom - 1) * stride + kernel]
            done = super().__call__(F.unfold(part, kernel, stride=stride))
            out[:, :, top:bottom] = done.unflatten(2, (bottom - top, columns))
        return out


class IntegerDeconv(IntegerLinear):
    """A transposed convolution, (B, C, H, W) -> (B, out, H*stride, W*stride), in strips."""

    def __init__(self, layer: nn.ConvTranspose2d, inputs: int, outputs: Tensor | int):
        kernel, self.channels = layer.kernel_size[0], layer.out_channels
        # Bound and scale per output channel: each sees at most all inputs times all taps.
        per_output = layer.weight.transpose(0, 1).flatten(1)
        super().__init__(per_output, _bias(layer), inputs, outputs)
        taps = self.weight.view(self.channels, layer.in_channels, kernel * kernel)
        self.taps = taps.transpose(1, 2).reshape(-1, layer.in_channels).contiguous()
        self.kernel, self.stride = kernel, layer.stride[0]

    def to(self, device: torch.device | str) -> IntegerDeconv:
        super().to(device)
        self.taps = self.taps.to(device)
        return self

    def __call__(self, x: Tensor) -> Tensor:
        kernel, stride, pad = self.kernel, self.stride, self.kernel // 2
        batch, _, height, width = x.shape
        full = x.new_zeros(batch, self.channels, height * stride + kernel, width * stride + kernel)
        across = (width - 1) * stride + kernel
        strip = _strip(batch * len(self.taps) * width)
        for top in range(0, height, strip):
            part = x[:, :, top : top + strip]
            down = (part.shape[2] - 1) * stride + kernel
            columns = self.taps @ part.flatten(2)  # (B, out*k*k, n)
            start = top * stride
            full[:, :, start : start + down, :across] += F.fold(
                columns, (down, across), kernel, stride=stride
            )
        # Output row o gathers inputs i with o = i * stride - pad + tap.
        inside = full[:, :, pad : pad + height * stride, pad : pad + width * stride]
        acc = inside.flatten(2) + self.bias[:, None]
        return self.rescale(acc).unflatten(2, (height * stride, width * stride))


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    return layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias


def _power_of_two(exponents: Tensor) -> Tensor:
    # Not torch.exp2: its vectorised form promises the last bit only almost.
    return torch.from_numpy(np.ldexp(1.0, exponents.numpy().astype(np.int64)))


def _strip(elements_per_row: int) -> int:
    return max(1, STRIP_BYTES // (8 * elements_per_row))


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

    CHUNK = 4096  # positions unfolded at a time

    def __init__(self, context: MaskedConv2d, parameters: nn.Sequential, outputs: Tensor):
        mask = context.mask.flatten().bool().cpu()
        taps = context.weight.detach().flatten(2)[:, :, mask].transpose(1, 2).flatten(1)
        self.context = IntegerLinear(taps, _bias(context), GRID_BITS, FRACTION_BITS)
        kernel = context.kernel_size[0]
        offsets = torch.arange(kernel) - kernel // 2
        self.rows = offsets.repeat_interleave(kernel)[mask]
        self.columns = offsets.repeat(kernel)[mask]
        convs = [m for m in parameters if isinstance(m, nn.Conv2d)]
        bits: list[Tensor | int] = [FRACTION_BITS] * (len(convs) - 1) + [outputs]
        self.layers = [
            IntegerLinear(c.weight.flatten(1), _bias(c), FRACTION_BITS, b)
            for c, b in zip(convs, bits, strict=True)
        ]
        self.psi_channels = convs[0].in_channels - context.out_channels

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
        weight, bias = self.layers[0].weight[:, : self.psi_channels], self.layers[0].bias
        psi = psi.flatten(2)
        prepared = psi.new_empty(psi.shape[0], psi.shape[2], len(bias))
        for start in range(0, psi.shape[2], self.CHUNK):
            here = slice(start, start + self.CHUNK)
            prepared[:, here] = (weight @ psi[:, :, here]).add_(bias[:, None]).transpose(1, 2)
        return prepared

    def at(self, prepared: Tensor, y_hat: Tensor | None, centres: Tensor, row: int) -> Tensor:
        """Parameters at positions: (B, n, 10M/3) -> (B, n, 2M).

        y_hat (B, cells, M) is the padded grid whose rows are `row` cells long, and centres
        (n,) are the positions' cells; None stands for a context of zero, features and all.
        """
        chunks = zip(prepared.split(self.CHUNK, 1), centres.split(self.CHUNK), strict=True)
        return torch.cat([self._at(p, y_hat, c, row) for p, c in chunks], 1)

    def _at(self, prepared: Tensor, y_hat: Tensor | None, centres: Tensor, row: int) -> Tensor:
        first, *rest = self.layers
        acc = prepared.flatten(0, 1).t()  # (10M/3, B*n)
        if y_hat is None:
            acc = acc.clone()
        else:
            seen = self._neighbours(y_hat, centres, row)
            acc = torch.addmm(acc, first.weight[:, self.psi_channels :], self.context(seen.t()))
        x = first.rescale(acc)
        for layer in rest:
            x = layer(leaky_relu(x))
        return x.t().unflatten(0, prepared.shape[:2])

    def _neighbours(self, y_hat: Tensor, centres: Tensor, row: int) -> Tensor:
        """What the context sees around cells (n,) of y_hat (B, cells, M): (B*n, taps*M)."""
        batch, size, channels = y_hat.shape
        taps = centres[:, None] + (self.rows * row + self.columns)  # (n, taps)
        if batch > 1:
            taps = taps + torch.arange(batch, device=taps.device)[:, None, None] * size
        # Whole rows of memory are copied, several times faster than by y_hat[:, taps].
        seen = y_hat.view(-1, channels).index_select(0, taps.flatten())
        return seen.view(batch * len(centres), -1)


def mean_scale_bits(channels: int, scales_first: bool = True) -> Tensor:
    """Fraction bits of a network's output of M scales and M means, (2M,)."""
    bits = [torch.full((channels,), FRACTION_BITS), torch.full((channels,), GRID_BITS)]
    return torch.cat(bits if scales_first else bits[::-1])


def digest_parts(parts: Sequence[Tensor]) -> list[bytes]:
    """Integers of any shape as bytes that do not depend on the machine."""
    return [p.cpu().to(torch.int64).numpy().astype("<i8").tobytes() for p in parts]
