"""What freezing makes of a codec's weights."""

from __future__ import annotations

import hashlib
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import nn

from models.coding.range_coder import CodingTables
from models.entropy.tables import Tables

Networks = dict[str, Any]  # of IntegerNetwork and IntegerContext


class Frozen:
    """The integers that coding needs: tables per latent, networks by name, their digest.

    `transforms`: g_a and g_s as coding runs them, by name and precision, as they come to be needed.
    """

    def __init__(self, name: str, tables: dict[str, Tables], networks: Networks):
        self.tables = tables
        self.networks = networks
        self.transforms: dict[str, nn.Module] = {}
        self.offsets = {k: torch.from_numpy(t.offsets).double() for k, t in tables.items()}
        self.device = torch.device("cpu")
        hashed = hashlib.sha256(name.encode())
        parts = [tables[latent].tensors().values() for latent in sorted(tables)]
        parts += [networks[network].integers() for network in sorted(networks)]
        for part in chain.from_iterable(parts):  # as bytes that do not depend on the machine
            hashed.update(part.cpu().to(torch.int64).numpy().astype("<i8").tobytes())
        self.digest = hashed.hexdigest()[:16]

    @cached_property
    def coding(self) -> dict[str, CodingTables]:
        """The tables in the range coder's form; made on first use, training needs none."""
        return {latent: CodingTables(t) for latent, t in self.tables.items()}

    def __getstate__(self) -> dict:
        """For copies and pickles: without the library's objects, which allow neither."""
        return {name: value for name, value in vars(self).items() if name != "coding"}

    def to(self, device: torch.device) -> Frozen:
        if device != self.device:
            for network in self.networks.values():
                network.to(device)
            for transform in self.transforms.values():
                transform.to(device)
            self.offsets = {k: t.to(device) for k, t in self.offsets.items()}
            self.device = device
        return self
