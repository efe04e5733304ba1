"""Pure `nn` building blocks: bounds, quantisation, GDN, convolutions, and the networks of them."""

from models.layers.bounds import lower_bound
from models.layers.convolutions import (
    CausalConv2d,
    MaskedConv2d,
    causal_mask,
    checkerboard_mask,
    conv,
    deconv,
    parity,
)
from models.layers.gdn import GDN
from models.layers.quantisation import AtGain, Mode, Quantised, without_gain
from models.layers.transforms import (
    analysis_transform,
    feature_synthesis,
    hyper_analysis,
    parameter_network,
    scale_synthesis,
    synthesis_transform,
)
