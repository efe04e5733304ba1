"""Weights to and from CompressAI's state dictionaries."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from models.base import Codec
from models.entropy.density import LIKELIHOOD_BOUND, TAIL_MASS, NonParametricDensity
from models.entropy.gaussian import SCALE_BOUND
from models.layers import GDN, MaskedConv2d
from models.layers.gdn import BETA_MIN, PEDESTAL, REPARAM_OFFSET

# CompressAI's names that ours do without: buffers that are derived from the weights.
_DERIVED = re.compile(
    r"(_offset|_quantized_cdf|_cdf_length|scale_table|scale_bound|\.target|\.mask"
    r"|\.pedestal|\.bound|likelihood_lower_bound.*|lower_bound_scale.*)$"
)
_LISTS = re.compile(r"^(entropy_bottleneck\.)_?(matri(?:x|ces)|bias(?:es)?|factors?)\.?(\d)$")
_LIST_NAMES = {"m": "matrices", "b": "biases", "f": "factors"}


def rename_keys(tensors: dict) -> dict[str, Tensor]:
    """Names of any of CompressAI's layouts to ours; tensors keep their shapes and kinds.

    Layouts: a training bundle {"state_dict": ...} or the bare dictionary; "module." of
    DataParallel; densities as `_matrix0`, `_matrices.0` or `matrices.0`.
    """
    tensors = tensors.get("state_dict", tensors)
    renamed = {}
    for name, value in tensors.items():
        name = name.removeprefix("module.")
        if _DERIVED.search(name):
            continue
        match = _LISTS.match(name)
        if match:
            name = f"{match[1]}{_LIST_NAMES[match[2][0]]}.{match[3]}"
        renamed[name] = value
    return renamed


def to_compressai(model: Codec) -> dict[str, Tensor]:
    """Our weights as a complete state dictionary, of the same shapes, of CompressAI's twin model.

    The tables are left empty: call its `update(force=True)` after `load_state_dict`.
    """
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, GDN):
            for parameter, minimum in (("beta", BETA_MIN), ("gamma", 0.0)):
                bound = REPARAM_OFFSET if minimum == 0 else (minimum + PEDESTAL) ** 0.5
                state[f"{name}.{parameter}_reparam.pedestal"] = torch.tensor([PEDESTAL])
                state[f"{name}.{parameter}_reparam.lower_bound.bound"] = torch.tensor([bound])
        elif isinstance(module, NonParametricDensity):
            target = math.log(2 / TAIL_MASS - 1)
            state[f"{name}.target"] = torch.tensor([-target, 0.0, target])
            state.update(_entropy_model(name))
        elif isinstance(module, MaskedConv2d):
            mask = module.mask.expand_as(module.weight).clone()
            state[f"{name}.mask"] = mask
    if "z" in model.streams:
        name = "gaussian_conditional"
        state.update(_entropy_model(name))
        state[f"{name}.scale_table"] = torch.tensor([])
        state[f"{name}.scale_bound"] = torch.tensor([SCALE_BOUND])
        state[f"{name}.lower_bound_scale.bound"] = torch.tensor([SCALE_BOUND])
    return state


def _entropy_model(name: str) -> dict[str, Tensor]:
    empty = {f"{name}.{k}": torch.IntTensor() for k in ("_offset", "_quantized_cdf", "_cdf_length")}
    return {**empty, f"{name}.likelihood_lower_bound.bound": torch.tensor([LIKELIHOOD_BOUND])}
