"""How benchmarks write: CSVs, the machine beside those with seconds, a table to read."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from evaluation import tables
from models.cli import processor
from models.files import write_text

# Of processors: those that decide which of our paths runs, and how fast.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def machine(device: str = "cpu") -> str:
    """The machine and the libraries that decide about speed, in one line."""
    parts = [processor(), f"{os.cpu_count()} cores", f"{torch.get_num_threads()} threads"]
    cpuinfo = Path("/proc/cpuinfo")  # not on every system
    words = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    parts += [name for name in INSTRUCTIONS if name in words]
    if device.startswith("cuda"):
        parts.append(torch.cuda.get_device_name(device))
    packages = ("torch", "compressai", "constriction")
    return "; ".join(parts + [f"{name} {importlib.metadata.version(name)}" for name in packages])


def number(value: float, digits: int = 4) -> str:
    """Significant digits without exponent, for CSVs."""
    return format(float(f"{value:.{digits}g}"), "f").rstrip("0").rstrip(".")


def write_csv(path: Path, rows: Sequence[Mapping], device: str | None = None) -> None:
    """Rows to a CSV file, atomically; the columns are those of the first row.

    Where a device is named, the machine goes into machine.json beside it, under the file's name.
    """
    tables.write(path, rows)
    if device is not None:
        record = path.with_name("machine.json")
        machines = json.loads(record.read_text()) if record.is_file() else {}
        machines[path.name] = machine(device)
        write_text(record, json.dumps(machines, indent=2, sort_keys=True) + "\n")
    print(f"Wrote {path}.")


def write_beside(
    path: Path, rows: Sequence[Mapping], columns: Sequence[str], device: str | None = None
) -> None:
    """As `write_csv`, after the rows that the file has with other values in these columns."""

    def values(row: Mapping) -> list[str]:
        return [str(row[column]) for column in columns]

    new = [values(row) for row in rows]
    old = tables.read(path, columns) if path.is_file() else []
    write_csv(path, [*(row for row in old if values(row) not in new), *rows], device)


def print_table(rows: Sequence[Mapping]) -> None:
    """Rows as an aligned table on standard output."""
    print(tables.aligned(rows))
