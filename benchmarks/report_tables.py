"""Tables of the README and the reports, generated from the CSVs between markers.

    python -m benchmarks.report_tables            # rewrite the blocks in place
    python -m benchmarks.report_tables --check    # exit 1 if a file differs, write nothing

A file holds lines `<!-- NAME:begin -->` and `<!-- NAME:end -->`; what stands between them is
replaced by the block NAME of `TABLES`, in a Chinese file by that of `CHINESE` or by the table
with its header translated. Before the tables are made, statistics/checkpoints.csv is written
from the metadata of the checkpoints, which says how far each was trained.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import tables_complexity, tables_original, tables_study, tables_trust
from benchmarks.bd_rate import MODELS, csv_text
from benchmarks.tables_common import SHORT, STATISTICS, fixed, markdown, rows_of
from models import checkpoint
from models.files import write_text
from models.metrics import ms_ssim_db
from models.training.inheritance import RUN, ancestors

FILES = ("README.md", "report.md", "report_CN.md")
MARKERS = re.compile(r"(<!-- (\w+):begin -->\n).*?(<!-- \2:end -->)", re.DOTALL)
CHECKPOINT_COLUMNS = (
    "model", "lmbda", "epoch", "N", "M", "steps", "images_seen", "hours", "hardware", "parent",
    "digest", "megabytes",
)  # fmt: skip

RUN_COLUMNS = (*RUN, "parent", "checkpoint")


def checkpoints(root: Path = Path("ckpts")) -> list[dict[str, str]]:
    """One row per checkpoint in the folder, from its metadata."""
    rows = []
    for path in sorted(root.glob("*/epoch_*.safetensors")):
        metadata = checkpoint.read_metadata(path)
        found = {**metadata, **metadata["provenance"]}
        found["megabytes"] = f"{path.stat().st_size / 1e6:.1f}"
        rows.append({name: str(found.get(name) or "") for name in CHECKPOINT_COLUMNS})
    return sorted(rows, key=lambda r: (MODELS.index(r["model"]), float(r["lmbda"])))


def training_runs(root: Path = Path("ckpts")) -> list[dict[str, str]]:
    """One row per run of `train.py` that a checkpoint of the folder comes from, parents first.

    "parent" is the run_id of the run before it, "checkpoint" whether its own weights are there.
    """
    runs: dict[str, dict] = {}
    for path in sorted(root.glob("*/epoch_*.safetensors")):
        lineage = ancestors(path)
        for k, run in reversed(list(enumerate(lineage))):
            parent = lineage[k + 1]["run_id"] if k + 1 < len(lineage) else None
            found = runs.setdefault(run["run_id"], {**run, "parent": parent, "checkpoint": None})
            found["checkpoint"] = found["checkpoint"] or (
                k == 0 and f"{path.parent.name}/{path.name}"
            )
    return [{name: str(run.get(name) or "") for name in RUN_COLUMNS} for run in runs.values()]


def results() -> str:
    """Our operating points beside the original study's."""
    original = {
        (r["model"], float(r["lmbda"])): r for r in rows_of("reference/seminar_2022_results")
    }
    header = ["model", "lambda", "bpp", "PSNR (dB)", "MS-SSIM", "MS-SSIM (dB)"]
    header += ["enc (s)", "dec (s)"]
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
            r["run_id"][:6], SHORT[r["model"]], f"{float(r['lmbda']):g}", f"{r['N']}, {r['M']}",
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


TABLES: dict[str, Callable[[], str]] = {
    "status": tables_study.status,
    "learned": tables_study.learned,
    "results": results,
    "bd_rates": bd_rates,
    "training": training,
    "speed": measured("codec_speed"),
    "scaling": scaling,
    "train_speed": measured("train_speed"),
    "optimizers": measured("optimizers"),
    "gap": tables_study.gap,
    "classical": tables_study.classical,
    "complexity_printed": tables_complexity.printed,
    "complexity": tables_complexity.corrected,
    "original_curves": tables_original.curves,
    "original_checkerboard": tables_original.checkerboard,
    "rd_figure": tables_study.first_figure,
    "fuzz": tables_trust.fuzz,
    **{
        f"figures_{name}": tables_study.figures(name)
        for name in (
            "univariate_density", "rd_curves", "complexity", "side_information",
            "reconstructions", "decoding_order", "training", "scaling",
        )
    },
}  # fmt: skip
CHINESE = {
    "status": tables_study.status_cn,
    "learned": tables_study.learned_cn,
    "fuzz": tables_trust.fuzz_cn,
}

HEADERS = {
    "model": "模型", "bpp, original": "bpp（原报告）", "PSNR, original": "PSNR（原报告）",
    "enc (s)": "编码 (s)", "dec (s)": "解码 (s)", "enc, original": "编码（原报告）",
    "dec, original": "解码（原报告）", "curve": "曲线", "against": "相对于", "metric": "指标",
    "range, or why there is none": "范围，或无法计算的原因", "steps": "步数", "crops": "图像块数",
    "hours": "小时", "hardware": "硬件", "started from": "初始权重", "run": "运行",
    "side": "边长", "peak rate": "峰值学习率", "committed": "已提交",
    "file (bytes)": "文件（字节）", "estimate (bytes)": "估计（字节）",
    "gap (bytes)": "差（字节）", "gap": "差",
    "parameters": "参数量", "transforms (G)": "变换 (G)", "hyperprior (G)": "超先验 (G)",
    "context (G)": "上下文 (G)", "total (G)": "合计 (G)", "thop / total": "thop / 合计",
    "parameters, counted here": "参数量（本文）",
    "parameters, first print": "参数量（原报告第一版）",
    "MACs, first print": "MACs（原报告第一版）",
    "parameters, second print": "参数量（第二版）", "MACs, second print": "MACs（第二版）",
    "MACs of 64x3x256x256, counted here": "64x3x256x256 的 MACs（本文）",
    "MACs of 1x3x512x768, counted here": "1x3x512x768 的 MACs（本文）",
    "original's curve": "原报告曲线", "same architecture, published": "同结构的公开曲线",
    "the same, PSNR": "同左，PSNR", "original's model before it": "原报告的前一模型",
    "ratio": "比值",
    "Checkerboard's PSNR (dB)": "Checkerboard 的 PSNR (dB)",
    "JPEG at that PSNR (bpp)": "同 PSNR 的 JPEG (bpp)", "codec": "编解码器",
    "points in common": "共同点数", "largest difference in bpp (%)": "bpp 最大差 (%)",
    "in PSNR (dB)": "PSNR 最大差 (dB)", "remark": "备注", "megapixels": "百万像素",
    "encode (s/Mpx)": "编码 (s/Mpx)", "decode (s/Mpx)": "解码 (s/Mpx)",
    "peak memory, encode (MB)": "峰值内存，编码 (MB)",
    "peak memory, decode (MB)": "峰值内存，解码 (MB)",
}  # fmt: skip
SENTENCES = {
    "No results are committed yet.\n": "尚无提交的结果。\n",
    "No BD-rates are committed yet.\n": "尚无提交的 BD-rate。\n",
    "No checkpoints are committed yet.\n": "尚无提交的检查点。\n",
    "Not measured.\n": "尚未测量。\n",
}


def translated(block: str) -> str:
    """A table with its header in Chinese; other blocks by `SENTENCES`, or as they are."""
    if not block.startswith("| "):
        return SENTENCES.get(block, block)
    header, rest = block.split("\n", 1)
    cells = [HEADERS.get(cell, cell) for cell in header[2:-2].split(" | ")]
    return f"| {' | '.join(cells)} |\n{rest}"


def fill(text: str, chinese: bool = False) -> str:
    """The text with every marked block made anew; KeyError for a marker without a table."""

    def block(name: str) -> str:
        if not chinese:
            return TABLES[name]()
        return CHINESE[name]() if name in CHINESE else translated(TABLES[name]())

    return MARKERS.sub(lambda m: f"{m[1]}{block(m[2])}{m[3]}", text)


def filled() -> dict[Path, str]:
    """Every file of `FILES` that exists, as it should be."""
    paths = [path for path in map(Path, FILES) if path.exists()]
    return {path: fill(path.read_text("utf-8"), path.stem.endswith("_CN")) for path in paths}


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report_tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="only say which files would change")
    options = parser.parse_args(arguments)
    made = {
        STATISTICS / "checkpoints.csv": csv_text(checkpoints(), CHECKPOINT_COLUMNS),
        STATISTICS / "training_runs.csv": csv_text(training_runs(), RUN_COLUMNS),
    }
    if not options.check:  # the tables read them
        for path, text in made.items():
            write_text(path, text)
    made |= filled()
    changed = [p for p, text in made.items() if not p.exists() or p.read_text("utf-8") != text]
    for path in changed:
        print(f"{path} {'differs from' if options.check else 'was made anew from'} the CSVs")
        if not options.check:
            write_text(path, made[path])
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
