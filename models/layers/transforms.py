"""The transforms that all four codecs share."""

from __future__ import annotations

from torch import nn

from models.layers.convolutions import conv, deconv
from models.layers.gdn import GDN


def analysis_transform(N: int, M: int) -> nn.Sequential:
    """g_a: image (B, 3, H, W) to latents (B, M, H/16, W/16).

    Source: Balle et al. 2018, figure 4, with the channels of the operating point.
    """
    return nn.Sequential(conv(3, N), GDN(N), conv(N, N), GDN(N), conv(N, N), GDN(N), conv(N, M))


def synthesis_transform(N: int, M: int) -> nn.Sequential:
    """g_s: latents (B, M, H/16, W/16) to an image (B, 3, H, W); mirrors g_a."""
    return nn.Sequential(
        deconv(M, N),
        GDN(N, inverse=True),
        deconv(N, N),
        GDN(N, inverse=True),
        deconv(N, N),
        GDN(N, inverse=True),
        deconv(N, 3),
    )
