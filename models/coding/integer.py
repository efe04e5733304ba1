"""Networks in exact integer arithmetic: the same numbers on every machine.

An activation a stands for the integer a_q = a * 2**FRACTION_BITS, a weight w for w_q =
w * 2**s with one s per output channel, chosen so that |w_q| <= 2**15. Integers live in
float64 tensors: products and sums are exact while |bias| + sum |w_q| * max |a_q| < 2**53,
whatever the order of summation, the number of threads, the batch or the device. The
bound is proven for each layer when it is built, and activations are clamped to LIMIT, so
it holds for every input. How a product is computed is left to `products`: any exact way
gives the same integers.

Convolutions are gathering + matrix product, or Winograd's in integers: a library's convolution
may choose Winograd or FFT in fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.coding.orders import AHEAD, REACH
from models.coding.products import EXACT, LIMIT, IntegerMatrix, Winograd
from models.errors import FreezeError
from models.layers import MaskedConv2d

FRACTION_BITS = 12  # of activations inside the networks
GRID_BITS = 6  # of latents and means: multiples of 1/64
WEIGHT_BITS = 15
LEAKY_SLOPE = 10486 / 2**20  # LeakyReLU's 0.01, exact in binary
WORTH = 1024  # positions from which on Winograd's form saves more than the making of it costs
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
        factor = self.factor()
        self.matrices = [IntegerMatrix(factor, self.units.repeat(len(factor) // len(bias)))]
        self.weight = self.weight.int()  # for the digest alone from now on

    def factor(self) -> Tensor:
        """The weight in the form that inputs are multiplied with, (a multiple of out, K)."""
        return self.weight

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

    def divide(self, inputs: int) -> None:
        """Two matrices in place of one: of the first `inputs` and of the others."""
        halves = self.weight[:, :inputs], self.weight[:, inputs:]
        self.matrices = [IntegerMatrix(half.double(), self.units) for half in halves]

    def __call__(self, rows: Tensor) -> Tensor:
        """Activations (n, K) to activations (n, out)."""
        return self.rescale(self.matrices[0](rows))

    def integers(self) -> list[Tensor]:
        """What the results depend on, for a digest: tensors of any shape."""
        return [self.weight, self.bias, self.shift]


class IntegerConv(IntegerLinear):
    """A convolution, plain or transposed, (B, C, H, W) -> (B, out, H', W').

    A transposed one of stride s is a plain one of s * s times the outputs: a set for each phase
    (row and column modulo s), all of which see the same inputs.
    """

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d, inputs: int, outputs: Tensor | int):
        kernel, stride, pad = layer.kernel_size[0], layer.stride[0], layer.kernel_size[0] // 2
        self.up, self.down, self.taps = 1, stride, torch.arange(kernel)[None]  # (up, side)
        weight = layer.weight
        if layer.transposed:
            self.up, self.down, weight = stride, 1, weight.transpose(0, 1)
            reach = (pad + stride - 1) // stride
            # Output q * stride + phase gathers inputs q + d with tap phase + pad - d * stride.
            taps = torch.arange(stride)[:, None] + pad - stride * torch.arange(-reach, reach + 1)
            self.taps = taps.where((taps >= 0) & (taps < kernel), kernel)  # zeros stand there
        self.kernel, self.side = kernel, self.taps.shape[1]
        self.winograd: Winograd | None = None  # made on first use, byte products need none
        # Bound and scale per output channel: each sees at most all inputs times all taps.
        super().__init__(weight.flatten(1), _bias(layer), inputs, outputs)

    def factor(self) -> Tensor:
        weight = self.weight.view(len(self.weight), -1, self.kernel, self.kernel)
        rows, columns = self.taps[:, None, :, None], self.taps[:, None]
        weight = F.pad(weight, (0, 1, 0, 1))[:, :, rows, columns]  # (out, C, up, up, side, side)
        return weight.permute(2, 3, 0, 4, 5, 1).flatten(3).flatten(0, 2)

    def to(self, device: torch.device | str) -> IntegerLinear:
        self.winograd = None
        return super().to(device)

    def __call__(self, x: Tensor) -> Tensor:
        matrix, side, up, down = self.matrices[0], self.side, self.up, self.down
        batch, _, height, width = x.shape
        rows, columns = (height - 1) // down + 1, (width - 1) // down + 1
        out = x.new_empty(batch, rows, up, columns, up, len(self.bias))
        left, right, bottom = side // 2, side // 2 + columns % 2, side // 2 + rows % 2
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, right, left, bottom))
        x = matrix.split(x)  # digits are made once, before each is gathered several times
        winograd = None
        if (side, down) == (3, 1) and x.dtype == torch.float64 and len(x) * rows * columns >= WORTH:
            winograd = self.winograd = self.winograd or Winograd(matrix)
        step = max(1, BLOCK // (batch * columns) // 2) * 2
        for top in range(0, rows, step):
            end = min(top + step, rows)
            if winograd and winograd.exact:
                sums = winograd(x[:, top : end + end % 2 + 2])[:, : end - top, :columns]
            else:
                seen = torch.cat([
                    x[..., i + top * down : i + (end - 1) * down + 1 : down,
                      j : j + (columns - 1) * down + 1 : down, :]
                    for i in range(side) for j in range(side)
                ], -1)  # fmt: skip
                sums = matrix(seen.flatten(-4, -2)).unflatten(0, (batch, -1, columns))
            sums = sums.unflatten(-1, (up, up, len(self.bias)))
            out[:, top:end] = self.rescale(sums).transpose(2, 3)
        return out.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


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
            layer = IntegerConv(module, bits, outputs if k == last else FRACTION_BITS)
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
        # Steps of a wavefront since a tap was coded; a causal mask begins with the older ones.
        lags = -(self.rows * (REACH + 1) + self.columns)
        self.older = int((lags >= AHEAD).sum()) if lags.min() > 0 else 0
        if self.older:
            self.context.divide(self.older * context.in_channels)
        convs = [m for m in parameters if isinstance(m, nn.Conv2d)]
        outputs = mean_scale_bits(convs[-1].out_channels // 2)
        bits: list[Tensor | int] = [FRACTION_BITS] * (len(convs) - 1) + [outputs]
        self.layers = [
            IntegerLinear(c.weight.flatten(1), _bias(c), FRACTION_BITS, b)
            for c, b in zip(convs, bits, strict=True)
        ]
        self.layers[0].divide(convs[0].in_channels - context.out_channels)

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

    def around(self, centres: Tensor, row: int) -> Tensor:
        """The cells (n, taps) seen around cells (n,) of a grid whose rows are `row` cells long."""
        return centres[:, None] + (self.rows * row + self.columns)

    def ahead(self, y_hat: Tensor, taps: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """The older taps' part of the context's sums, (B, n, 2M) for each of some steps, by one
        product: most of the time of a small product goes into reading the weights.

        y_hat (B, cells, M); taps (n, taps) of each step, as `around` gives them. None for each
        where no tap is older.
        """
        if not self.older:
            return [None] * len(taps)
        rows = self._gathered(y_hat, torch.cat(list(taps))[:, : self.older])
        sums = self.context.matrices[0](rows).unflatten(0, (len(y_hat), -1))
        return sums.split([len(step) for step in taps], 1)

    def at(
        self, prepared: Tensor, y_hat: Tensor | None, positions: Tensor, taps: Tensor,
        older: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Parameters at positions (n,): from what `prepare` made to (B, n, 2M).

        y_hat (B, cells, M) is the padded grid; `around` and `ahead` give taps (n, taps) and older
        (B, n, 2M). No y_hat stands for a context of zero, features and all.
        """
        first, *rest = self.layers
        out = prepared.new_empty(len(prepared), len(positions), len(self.layers[-1].bias))
        if y_hat is not None and taps.numel() > y_hat.shape[1]:
            y_hat = self.context.matrices[-1].split(y_hat)  # once for all that see a cell
        step = max(1, BLOCK // len(prepared))
        for start in range(0, len(positions), step):
            here = slice(start, start + step)
            sums = prepared[:, positions[here]].flatten(0, 1)  # (B*n, 10M/3)
            if y_hat is not None:
                seen = self.context.matrices[-1](self._gathered(y_hat, taps[here, self.older :]))
                if older is not None:
                    seen += older[:, here].flatten(0, 1)
                sums += first.matrices[1](self.context.rescale(seen))
            x = first.rescale(sums)
            for layer in rest:
                x = layer(leaky_relu(x))
            out[:, here] = x.unflatten(0, (len(out), -1))
        return out

    def _gathered(self, y_hat: Tensor, taps: Tensor) -> Tensor:
        """Cells (n, taps) of y_hat (B, cells, M) side by side: (B*n, taps*M).

        Of digits (count, B, cells, M): (count, B*n, taps*M).
        """
        *count, batch, size, channels = y_hat.shape
        seen, n = y_hat.view(-1, channels), len(taps)
        if len(seen) > size:
            taps = taps + torch.arange(0, len(seen), size, device=taps.device)[:, None, None]
        # Whole rows of memory are copied, several times faster than by y_hat[:, taps].
        return seen.index_select(0, taps.flatten()).view(*count, batch * n, -1)


def mean_scale_bits(channels: int) -> Tensor:
    """Fraction bits of a network's output of M scales and M means, (2M,)."""
    return torch.tensor([FRACTION_BITS, GRID_BITS]).repeat_interleave(channels)
