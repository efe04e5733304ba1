"""Transforms without the channels that nothing reads, as widened ones have: the same in less time.

Of 192 channels of a layer of g_a, 64 may have weight zero in all that follows: they are computed,
and multiplied by zero. The network that codes leaves them out.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from models.layers.gdn import GDN


@torch.no_grad()
def pruned(network: nn.Module) -> nn.Module:
    """g_a or g_s, (B, C, H, W) -> (B, C', H', W'), less the inner channels that nothing reads.

    `network` stays as it is; it is returned itself where all is read, or has other layers.
    """
    layers = network if isinstance(network, nn.Sequential) else [None]
    kinds = (nn.Conv2d, nn.ConvTranspose2d, GDN)
    if any(type(k) not in kinds or getattr(k, "groups", 1) != 1 for k in layers):
        return network
    read = [torch.ones_like(_reads(network[-1])[:, 0])]  # of what a layer gives, the last one's
    for layer in reversed(network):
        inputs = _inputs(layer, read[0])
        if isinstance(layer, GDN):
            read[0] = inputs
        read.insert(0, inputs)
    read[0] = torch.ones_like(read[0])  # the image, or y, is as wide as it is
    if all(channels.all() for channels in read):
        return network
    return nn.Sequential(*map(_kept, network, read, read[1:]))


def _reads(layer: nn.Module) -> Tensor:
    """Whether an output channel reads an input channel: (outputs, inputs)."""
    if isinstance(layer, GDN):
        return layer.effective()[1] != 0
    reads = (layer.weight != 0).flatten(2).any(2)
    return reads.t() if isinstance(layer, nn.ConvTranspose2d) else reads


def _inputs(layer: nn.Module, outputs: Tensor) -> Tensor:
    """The channels that these outputs need. GDN divides each by others, which then come out too."""
    inputs = _reads(layer)[outputs].any(0)
    if isinstance(layer, GDN) and not torch.equal(outputs, inputs | outputs):
        return _inputs(layer, inputs | outputs)
    return outputs if isinstance(layer, GDN) else inputs


def _kept(layer: nn.Module, inputs: Tensor, outputs: Tensor) -> nn.Module:
    """A copy of a layer with some of its channels."""
    part = copy.deepcopy(layer).requires_grad_(False)
    if isinstance(part, GDN):
        part.beta.data, part.gamma.data = part.beta[outputs], part.gamma[outputs][:, inputs]
        return part
    first, second = inputs, outputs
    if isinstance(part, nn.Conv2d):
        first, second = outputs, inputs
    weight = part.weight[first][:, second]
    part.weight.data = weight.contiguous(memory_format=torch.channels_last)
    if part.bias is not None:
        part.bias.data = part.bias[outputs]
    part.in_channels, part.out_channels = int(inputs.sum()), int(outputs.sum())
    return part
