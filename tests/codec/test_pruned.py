"""Channels that nothing reads are left out of what codes; files and pixels are as before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from models import base, checkpoint
from models.datasets import sample_photographs
from models.images import to_tensor, to_uint8
from models.layers.gdn import GDN
from models.layers.pruned import pruned
from tests.helpers import NAMES, N, image, make

UNREAD = [1, 4, 5]


def make_unread(network: nn.Sequential) -> None:
    """Of the first inner channels some are read by no weight, and by gamma of each other only."""
    normalisation, following = network[1], network[2]
    read = [c for c in range(N) if c not in UNREAD]
    with torch.no_grad():
        kernel = following.weight
        (kernel if isinstance(following, nn.ConvTranspose2d) else kernel.transpose(0, 1))[
            UNREAD
        ] = 0
        normalisation.gamma[torch.tensor(read)[:, None], torch.tensor(UNREAD)] = 0


def widths(network: nn.Sequential) -> list[int]:
    return [layer.out_channels for layer in network if not isinstance(layer, GDN)]


def files_and_pixels(model, x):
    files = model.compress(x)
    return files, to_uint8(model.decompress(files)).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_files_and_pixels_are_those_of_the_whole_network(name, monkeypatch):
    model, x = make(name), image(70, 90)
    make_unread(model.g_a)
    make_unread(model.g_s)
    before = copy.deepcopy(model.state_dict())
    narrow = files_and_pixels(model.freeze(), x)
    with torch.no_grad():
        networks = model.transform("g_a"), model.transform("g_s")
    for network in networks:
        assert widths(network)[:3] == [N - len(UNREAD), N, N]
    assert widths(model.g_a)[0] == widths(model.g_s)[0] == N
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    digest = model.digest
    monkeypatch.setattr(base, "pruned", lambda network: network)
    assert files_and_pixels(model.freeze(), x) == narrow and model.digest == digest


@torch.no_grad()
def test_a_channel_that_gamma_of_a_read_one_reads_stays():
    g_a = make("Factorized").g_a
    make_unread(g_a)
    g_a[1].gamma[0, 4] = g_a[1].gamma[4, 5] = 0.1  # 0 is read, and needs 4, which needs 5
    g_a[1].gamma[4, 1] = g_a[1].gamma[5, 1] = 0
    assert widths(pruned(g_a)) == [N - 1, N, N, g_a[-1].out_channels]
    x = image(64, 64)
    torch.testing.assert_close(pruned(g_a)(x), g_a(x), rtol=0, atol=1e-5)


def test_a_network_that_is_all_read_or_of_other_layers_is_itself():
    whole = make("Hyperprior").g_a
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1))
    grouped = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 1))
    for network in (whole, other, grouped, whole[0]):
        assert pruned(network) is network


@torch.no_grad()
def test_a_third_of_the_studys_widened_transforms_is_left_out(monkeypatch):
    model = checkpoint.load(checkpoint.find("Joint", lmbda=0.013)[-1])
    x = to_tensor(dict(sample_photographs())["coffee"][:128, :192])
    narrow = files_and_pixels(model, x)
    assert widths(model.transform("g_a"))[0] == widths(model.transform("g_s"))[0] == 128
    monkeypatch.setattr(base, "pruned", lambda network: network)
    model.frozen.transforms.clear()
    assert files_and_pixels(model, x) == narrow
    assert widths(model.transform("g_a"))[0] == 192
