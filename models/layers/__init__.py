"""Pure `nn` building blocks: bounds, quantisation, GDN, convolutions."""

from models.layers.bounds import lower_bound
from models.layers.convolutions import (
    MaskedConv2d,
    causal_mask,
    checkerboard_mask,
    conv,
    deconv,
)
from models.layers.gdn import GDN
from models.layers.quantisation import add_noise, quantise, round_offset, round_ste
from models.layers.transforms import analysis_transform, synthesis_transform

__all__ = [
    "GDN",
    "MaskedConv2d",
    "add_noise",
    "analysis_transform",
    "causal_mask",
    "checkerboard_mask",
    "conv",
    "deconv",
    "lower_bound",
    "quantise",
    "round_offset",
    "round_ste",
    "synthesis_transform",
]
