"""Where the results of benchmarks go, and how: CSVs, the machine beside them, a table to read."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from evaluation.results import result_folder
from models.cli import processor
from models.files import csv_text, write_text

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def add_outdir(parser: argparse.ArgumentParser) -> None:
    """The flag that `outdir` reads."""
    parser.add_argument(
        "--outdir", type=Path, metavar="DIR",
        help="folder of the CSVs (default: statistics for what the study measured, on its data and "
        "with the default settings; outputs for anything else)",
    )  # fmt: skip


def outdir(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    *,
    free: Iterable[str] = (),
    study: bool = True,
) -> Path:
    """The folder of the CSVs, as `add_outdir` describes it.

    `study`: the data are the study's. Flags named in `free` may differ from their defaults.
    """
    kept = {"outdir", *free}
    same = all(
        value == parser.get_default(k) for k, value in vars(options).items() if k not in kept
    )
    return result_folder(options.outdir, study and same)


def cpu_flags() -> list[str]:
    """Which of `FLAGS` the processor has; empty where they cannot be told (not Linux)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    line = next((li for li in text.splitlines() if li.startswith(("flags", "Features"))), "")
    return [flag for flag in FLAGS if flag in line.split()]


def machine(device: str = "cpu") -> str:
    """The machine and the libraries that decide about speed, in one line."""
    parts = [processor(), f"{os.cpu_count()} cores", f"{torch.get_num_threads()} threads"]
    parts += cpu_flags()
    if device.startswith("cuda"):
        parts.append(torch.cuda.get_device_name(device))
    parts.append(f"torch {torch.__version__}")
    for package in ("compressai", "constriction"):
        try:
            parts.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "; ".join(parts)


def number(value: float, digits: int = 4) -> str:
    """Significant digits without exponent, for CSVs."""
    return format(float(f"{value:.{digits}g}"), "f").rstrip("0").rstrip(".")


def write_csv(path: Path, rows: Sequence[Mapping], device: str = "cpu") -> None:
    """Rows to a CSV file, atomically; the columns are those of the first row.

    The machine goes into machine.json beside it, under the file's name.
    """
    write_text(path, csv_text(rows, rows[0]))
    record = path.with_name("machine.json")
    machines = json.loads(record.read_text()) if record.is_file() else {}
    machines[path.name] = machine(device)
    write_text(record, json.dumps(machines, indent=2, sort_keys=True) + "\n")
    print(f"Wrote {path}.")


def print_table(rows: Sequence[Mapping]) -> None:
    """Rows as an aligned table on standard output."""
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
