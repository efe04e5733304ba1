"""The diagrams, drawn by hand: whole files, true to the models and the coding orders."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
from torch import nn

import models
from models.coding import orders
from models.layers import GDN, causal_mask, checkerboard_mask
from tests.programs import ROOT

SVG = "{http://www.w3.org/2000/svg}"
# The networks in each picture, from top to bottom, and the layers in one of them.
NETWORKS = {
    "factorized_network": ("Factorized", "g_a g_s"),
    "hyperprior_network": ("Hyperprior", "g_a h_a h_s g_s"),
    "joint_autoregressive_network": ("Joint", "h_a h_s context_prediction entropy_parameters"),
}
LAYER = re.compile(r"((?:de)?conv) (\d)×\d\|stride (\d) ?[↓↑]?\|([\dNM/]+) → ([\dNM/]+)|I?GDN")


def texts(name: str) -> list[str]:
    """What a picture says outside its formulas, in the order of the file."""
    root = ElementTree.parse(ROOT / "Image4md" / f"{name}.svg").getroot()
    return [text.text for text in root.iter(f"{SVG}text")]


def count(expression: str, N: int, M: int) -> int:
    """'10M/3' with M = 192 -> 640."""
    factor, letter, divisor = re.fullmatch(r"(\d*)([NM]?)(?:/(\d+))?", expression).groups()
    return int(factor or 1) * {"N": N, "M": M, "": 1}[letter] // int(divisor or 1)


@pytest.mark.parametrize("picture", NETWORKS)
@pytest.mark.parametrize(("N", "M"), [(12, 24), (24, 36)])
def test_the_layers_drawn_are_those_of_the_model(picture, N, M):
    name, networks = NETWORKS[picture]
    model = models.build(name, N, M)
    expected = []
    for network in networks.split():
        for layer in getattr(model, network).modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                kind = "deconv" if isinstance(layer, nn.ConvTranspose2d) else "conv"
                sizes = layer.kernel_size[0], layer.stride[0]
                expected.append((kind, *sizes, layer.in_channels, layer.out_channels))
            elif isinstance(layer, GDN):
                expected.append("GDN")
    drawn = []
    for layer in LAYER.finditer("|".join(texts(picture))):
        kind, kernel, stride, *channels = layer.groups()
        sizes = (count(value, N, M) for value in channels if kind)
        drawn.append((kind, int(kernel), int(stride), *sizes) if kind else "GDN")
    assert drawn == expected


@pytest.mark.parametrize("order", [orders.raster, orders.wavefront, orders.checkerboard])
def test_the_steps_drawn_are_those_of_the_order(order):
    drawn = texts("coding_orders")
    name = ("raster", "wavefront", "checkerboard").index(order.__name__)
    numbers = [int(text) for text in drawn if text.isdigit()][48 * name : 48 * (name + 1)]
    expected = [0] * 48
    for step, positions in enumerate(order(6, 8)):
        for position in positions.tolist():
            expected[position] = step
    assert numbers == expected
    steps = [text for text in drawn if "steps here" in text][name]
    assert steps == f"{len(order(6, 8))} steps here; 32×48 latent: {len(order(32, 48)):,}"


def test_the_masks_drawn_are_those_of_the_layers():
    cells = "".join(text for text in texts("checkerboard") if text in ("0", "1"))
    masks = [causal_mask(), checkerboard_mask()]
    expected = "".join(str(int(value)) for mask in masks for value in mask.flatten().tolist())
    assert cells.endswith(expected)
