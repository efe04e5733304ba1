"""Tables of the README and the reports, generated from the CSVs between markers.

    python -m benchmarks.report_tables            # rewrite the tables in place
    python -m benchmarks.report_tables --check    # exit 1 if a file differs, write nothing

A file holds lines `<!-- NAME:begin -->` and `<!-- NAME:end -->`; what stands between them is
replaced by the table NAME of `TABLES`. Before the tables are made, statistics/checkpoints.csv
is written from the metadata of the checkpoints, which says how far each was trained.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.bd_rate import MODELS, csv_text
from models import checkpoint
from models.files import write_text

FILES = ("README.md", "report.md", "report_CN.md")
STATISTICS = Path("statistics")
MARKERS = re.compile(r"(<!-- (\w+):begin -->\n).*?(<!-- \2:end -->)", re.DOTALL)
CHECKPOINT_COLUMNS = (
    "model", "lmbda", "epoch", "N", "M", "steps", "images_seen", "hours", "hardware", "parent",
    "digest", "megabytes",
)  # fmt: skip


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of statistics/<name>.csv; none if the file does not exist."""
    path = STATISTICS / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def checkpoints(root: Path = Path("ckpts")) -> list[dict[str, str]]:
    """One row per checkpoint in the folder, from its metadata."""
    rows = []
    for path in sorted(root.glob("*/epoch_*.safetensors")):
        metadata = checkpoint.read_metadata(path)
        found = {**metadata, **metadata["provenance"]}
        found["megabytes"] = f"{path.stat().st_size / 1e6:.1f}"
        rows.append({name: str(found.get(name) or "") for name in CHECKPOINT_COLUMNS})
    return sorted(rows, key=lambda r: (MODELS.index(r["model"]), float(r["lmbda"])))


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers, set right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def fixed(text: str | None, digits: int) -> str:
    """A number of a CSV with so many decimals; a dash where there is none."""
    return f"{float(text):.{digits}f}" if text else "-"


def results() -> str:
    """Our operating points beside the original study's."""
    original = {
        (r["model"], float(r["lmbda"])): r for r in rows_of("reference/seminar_2022_results")
    }
    header = ["model", "lambda", "bpp", "PSNR (dB)", "MS-SSIM", "enc (s)", "dec (s)"]
    header += [f"{name}, original" for name in ("bpp", "PSNR", "enc", "dec")]
    rows = []
    for model in MODELS:
        for row in rows_of(model):
            other = original.get((model, float(row["lmbda"])), {})
            rows.append([
                model,
                f"{float(row['lmbda']):g}",
                fixed(row["bpp"], 4),
                fixed(row["psnr"], 2),
                fixed(row["ms_ssim"], 4),
                fixed(row["time(enc)"], 2),
                fixed(row["time(dec)"], 2),
                fixed(other.get("bpp"), 4),
                fixed(other.get("psnr_rgb_db"), 2),
                fixed(other.get("encode_s"), 2),
                fixed(other.get("decode_s"), 2),
            ])  # fmt: skip
    return markdown(header, rows) if rows else "No results are committed yet.\n"


def bd_rates() -> str:
    """BD-rates; a comparison that cannot be made says why."""
    rows = []
    for row in rows_of("bd_rate"):
        value = row["bd_rate_percent"]
        span = f"{fixed(row['range_low_db'], 1)} to {fixed(row['range_high_db'], 1)} dB"
        shown = [f"{float(value):+.1f} %", span] if value else ["-", row["reason"]]
        rows.append([row["curve"], row["against"], row["metric"], *shown])
    header = ["curve", "against", "metric", "BD-rate", "range, or why there is none"]
    return markdown(header, rows) if rows else "No BD-rates are committed yet.\n"


def training() -> str:
    """How far each checkpoint was trained."""
    rows = [
        [
            r["model"], f"{float(r['lmbda']):g}", f"{r['N']}, {r['M']}", f"{int(r['steps']):,}",
            f"{int(r['images_seen']):,}", fixed(r["hours"], 2), r["hardware"], r["parent"] or "-",
        ]
        for r in rows_of("checkpoints")
    ]  # fmt: skip
    header = ["model", "lambda", "N, M", "steps", "crops", "hours", "hardware", "started from"]
    return markdown(header, rows) if rows else "No checkpoints are committed yet.\n"


def speed() -> str:
    """Our codecs beside CompressAI's in one process."""
    rows = rows_of("codec_speed")
    return markdown(list(rows[0]), [list(r.values()) for r in rows]) if rows else "Not measured.\n"


TABLES: dict[str, Callable[[], str]] = {
    "results": results,
    "bd_rates": bd_rates,
    "training": training,
    "speed": speed,
}


def fill(text: str) -> str:
    """The text with every marked table made anew; KeyError for a marker without a table."""
    return MARKERS.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}{m[3]}", text)


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report_tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="only say which files would change")
    options = parser.parse_args(arguments)
    made = {STATISTICS / "checkpoints.csv": csv_text(checkpoints(), CHECKPOINT_COLUMNS)}
    if not options.check:  # the tables read it
        write_text(*next(iter(made.items())))
    made |= {path: fill(path.read_text("utf-8")) for path in map(Path, FILES) if path.exists()}
    changed = [p for p, text in made.items() if not p.exists() or p.read_text("utf-8") != text]
    for path in changed:
        print(f"{path} {'differs from' if options.check else 'was made anew from'} the CSVs")
        if not options.check:
            write_text(path, made[path])
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
