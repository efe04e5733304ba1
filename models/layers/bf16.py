"""g_a and g_s in bf16, for coding: half the time where the processor has instructions for it.

bf16 is the upper half of a float: the same range, 8 bits of precision. Products are summed in fp32,
and each layer rounds its result once. What feeds the range coder is computed in integers
(`models.coding.integer`) and never here, so a file of one precision decodes in the other.
"""

from __future__ import annotations

import copy
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import UsageError
from models.layers.gdn import GDN

PRECISIONS = ("fp32", "bf16")  # of g_a and g_s while coding
GREY = 0.5  # the middle of the pixels


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16, rather than emulate it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()  # of torch's convolutions
    older = ("AVX", "AVX512_CORE", "AVX512_CORE_VNNI")
    capped = limit.startswith(("SSE", "AVX2")) or limit in older
    return device.type == "cpu" and not capped and torch.cpu._is_avx512_bf16_supported()


def check_precision(precision: str, device: torch.device) -> None:
    """UsageError unless it is one of `PRECISIONS`, and one that the device computes in."""
    if precision not in PRECISIONS:
        raise UsageError(f"The precision is {' or '.join(PRECISIONS)}, not {precision!r}.")
    if precision == "bf16" and not computes_in_bf16(device):
        kind = "GPU" if device.type == "cuda" else "CPU"
        raise UsageError(
            f"This {kind} has no bf16 instructions, or ONEDNN_MAX_CPU_ISA forbids them: use fp32."
        )


class InBf16(nn.Module):
    """A copy of g_a, g_s or a network like them that computes in bf16.

    fp32 (B, C, H, W) in, fp32 of the network's shape out.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = _fast(network, copy.deepcopy(network).bfloat16())
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.bfloat16()).float()


def _fast(module: nn.Module, rounded: nn.Module) -> nn.Module:
    """The module as `rounded` to bf16, less the parts that have a form of their own below."""
    if isinstance(module, GDN):
        return GDNInBf16(module)
    if _gives_pixels(module):
        return PixelDeconv(module, torch.bfloat16)
    for name, part in module.named_children():
        setattr(rounded, name, _fast(part, getattr(rounded, name)))
    return rounded


class GDNInBf16(GDN):
    """`GDN` of bf16 (B, C, H, W): products of bf16, summed in fp32; n rounded, its root in fp32.

    The error is a tenth more than that of rounding the result alone, in half the time.
    """

    def __init__(self, gdn: GDN):
        nn.Module.__init__(self)
        self.inverse = gdn.inverse
        beta, gamma = (v.detach().bfloat16() for v in gdn.effective())
        self.register_buffer("beta", beta)
        self.register_buffer("gamma", gamma.t().contiguous().t())  # the product takes gamma.t()

    def effective(self) -> tuple[Tensor, Tensor]:
        return self.beta, self.gamma


def with_pixel_deconv(g_s: nn.Module) -> nn.Module:
    """g_s in fp32, the last layer a `PixelDeconv` of its present weights, if it is one of ours."""
    if isinstance(g_s, nn.Sequential) and _gives_pixels(g_s[-1]):
        return nn.Sequential(*g_s[:-1], PixelDeconv(g_s[-1], torch.float32))
    return g_s


def _gives_pixels(layer: nn.Module) -> bool:
    """Whether it is the last layer of g_s."""
    if not isinstance(layer, nn.ConvTranspose2d):
        return False
    shape = (layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
    return shape == (3, (5, 5), (2, 2), (2, 2)) and layer.output_padding == (1, 1)


class PixelDeconv(nn.Module):
    """The last layer of g_s, as a convolution that gives 2x2 pixels of 3 colours a position.

    (B, N, H, W) of `dtype` -> (B, 3, 2H, 2W) of fp32.

    out[2i + a] = sum_k w[k] x[i - d] with k = a + 2 + 2d, d = -1, 0, 1: a kernel of 3 for each
    of the four (a, b). Twelve channels use the processor's registers; three leave most of them
    empty. The bias is moved so that grey is 0: bf16 is finer there than at 1.
    Source: Shi et al. 2016 (arXiv 1609.05158), section 3.2.
    """

    weight: Tensor
    bias: Tensor
    offset: Tensor

    def __init__(self, layer: nn.ConvTranspose2d, dtype: torch.dtype):
        super().__init__()
        weight = layer.weight.detach().float()  # (N, 3, 5, 5)
        weight = F.pad(weight, (0, 1, 0, 1)).unflatten(3, (3, 2)).unflatten(2, (3, 2))
        weight = weight.flip(2, 4).permute(1, 3, 5, 0, 2, 4).flatten(0, 2)  # (12, N, 3, 3)
        weight = weight.contiguous(memory_format=torch.channels_last)
        bias = torch.zeros(3) if layer.bias is None else layer.bias.detach().float()
        rounded = (bias - GREY).bfloat16()
        self.register_buffer("weight", weight.to(dtype))
        self.register_buffer("bias", rounded.repeat_interleave(4).to(dtype))
        self.register_buffer("offset", (bias - rounded.float()).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight, self.bias, padding=1)
        return F.pixel_shuffle(y, 2) + self.offset  # (B, 3, 2H, 2W), fp32
