"""Blocks that show one CSV: results, BD-rates, training runs, measurements."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.report.tables import fixed, markdown, rows_of
from evaluation.metrics import ms_ssim_db
from models.presets import STUDIED, short


def results() -> str:
    """Our operating points beside the original study's."""
    original = {
        (r["model"], float(r["lmbda"])): r for r in rows_of("reference/seminar_2022_results")
    }
    header = ["model", "lambda", "bpp", "PSNR (dB)", "MS-SSIM", "MS-SSIM (dB)"]
    header += ["enc (s)", "dec (s)"]
    header += [f"{name}, original" for name in ("bpp", "PSNR", "enc", "dec")]
    rows = []
    for model in STUDIED:
        for row in rows_of(model):
            other = original.get((model, float(row["lmbda"])), {})
            rows.append([
                model,
                f"{float(row['lmbda']):g}",
                fixed(row["bpp"], 4),
                fixed(row["psnr"], 2),
                fixed(row["ms_ssim"], 4),
                fixed(row["ms_ssim"] and str(ms_ssim_db(float(row["ms_ssim"]))), 2),
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
    """Every run of the training, those before the ones that ended in a checkpoint included."""
    rows = [
        [
            r["run_id"][:6], short(r["model"]), f"{float(r['lmbda']):g}", f"{r['N']}, {r['M']}",
            f"{int(r['steps']):,}", f"{int(r['images_seen']):,}", r["patch_size"], r["lr"],
            fixed(r["hours"], 2), r["hardware"], r["parent"][:6] or "-",
            "yes" if r["checkpoint"] else "-",
        ]
        for r in rows_of("training_runs")
    ]  # fmt: skip
    header = [
        "run", "model", "lambda", "N, M", "steps", "crops", "side", "peak rate", "hours",
        "hardware", "started from", "committed",
    ]  # fmt: skip
    return markdown(header, rows, 2) if rows else "No checkpoints are committed yet.\n"


def measured(name: str) -> Callable[[], str]:
    """A block with statistics/<name>.csv as it is."""

    def block() -> str:
        rows = rows_of(name)
        cells = [list(r.values()) for r in rows]
        return markdown(list(rows[0]), cells) if rows else "Not measured.\n"

    return block


def scaling() -> str:
    """Time and memory against the size of the image, both directions in a row."""
    found = rows_of("scaling")
    ways = {
        way: {(r["model"], r["megapixels"]): r for r in found if r["direction"] == way}
        for way in ("compress", "decompress")
    }
    rows = [
        [*key, *(ways[w][key]["seconds_per_megapixel"] for w in ways),
         *(ways[w][key]["peak_mb"] for w in ways)]
        for key in ways["compress"]
    ]  # fmt: skip
    header = ["model", "megapixels", "encode (s/Mpx)", "decode (s/Mpx)"]
    header += ["peak memory, encode (MB)", "peak memory, decode (MB)"]
    return markdown(header, rows) if rows else "Not measured.\n"
