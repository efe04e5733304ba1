"""The networks of the four codecs, layer by layer."""

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


def hyper_analysis(N: int, M: int, activation: type[nn.Module]) -> nn.Sequential:
    """h_a: latents (B, M, H/16, W/16) to side information z (B, N, H/64, W/64).

    Source: Balle et al. 2018, figure 4 (ReLU); Minnen et al. 2018, table 1 (LeakyReLU).
    """
    return nn.Sequential(
        conv(M, N, kernel=3, stride=1), activation(), conv(N, N), activation(), conv(N, N)
    )


def scale_synthesis(N: int, M: int) -> nn.Sequential:
    """h_s of one scale a latent: z_hat (B, N, H/64, W/64) to sigma >= 0, (B, M, H/16, W/16).

    Source: Balle et al. 2018, figure 4.
    """
    return nn.Sequential(
        deconv(N, N), nn.ReLU(), deconv(N, N), nn.ReLU(), conv(N, M, kernel=3, stride=1), nn.ReLU()
    )


def feature_synthesis(N: int, M: int) -> nn.Sequential:
    """h_s of features: z_hat (B, N, H/64, W/64) to psi (B, 2M, H/16, W/16).

    Source: Minnen et al. 2018, table 1.
    """
    return nn.Sequential(
        deconv(N, M),
        nn.LeakyReLU(),
        deconv(M, M * 3 // 2),
        nn.LeakyReLU(),
        conv(M * 3 // 2, M * 2, kernel=3, stride=1),
    )


def parameter_network(M: int) -> nn.Sequential:
    """Entropy parameters: psi and the context's features, (B, 4M, h, w), to the scales and
    means of y, (B, 2M, h, w); each position by itself.

    Source: Minnen et al. 2018, table 1.
    """
    return nn.Sequential(
        conv(M * 4, M * 10 // 3, kernel=1, stride=1),
        nn.LeakyReLU(),
        conv(M * 10 // 3, M * 8 // 3, kernel=1, stride=1),
        nn.LeakyReLU(),
        conv(M * 8 // 3, M * 2, kernel=1, stride=1),
    )
