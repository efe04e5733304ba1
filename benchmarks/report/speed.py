"""Blocks of seconds and memory: beside CompressAI in one run, by stage, by size of the image."""

from __future__ import annotations

from benchmarks.report.tables import fixed, machine, markdown, rows_of, span, three
from models.layers.bf16 import PRECISIONS
from models.presets import CHANNELS, STUDIED, short

JOINT = STUDIED[2]


def studied(row: dict[str, str]) -> bool:
    """Whether a row is of one of the model's own widths; others serve comparisons of models."""
    return (int(row["N"]), int(row["M"])) in CHANNELS[row["model"]].values()


def ratios(model: str, direction: str, precision: str = "fp32") -> list[float]:
    """CompressAI's seconds over ours, one for each width of the study."""
    return [
        float(r["compressai_over_ours"])
        for r in rows_of("codec_speed")
        if (r["model"], r["direction"], r["precision"]) == (model, direction, precision)
        and r["compressai_over_ours"] and studied(r)
    ]  # fmt: skip


def faster(model: str, direction: str) -> str:
    """'3 to 4 times (fp32) and 5 to 6 times (bf16)', as far as they are measured."""
    found = ((p, ratios(model, direction, p)) for p in PRECISIONS)
    return " and ".join(f"{span(values, '.1f')} times ({p})" for p, values in found if values)


def coding() -> str:
    """Seconds and peak memory of a Kodak-sized image, ours and CompressAI's in one process."""
    rows = []
    for (model, N, M, direction), found in by_precision("codec_speed").items():
        plain, half = found["fp32"], found.get("bf16", {})
        if not studied(plain):
            continue
        rows.append([
            f"{short(model)} ({N}, {M})", direction, three(plain["ours_s"]),
            three(half.get("ours_s")), three(plain["compressai_s"]),
            three(plain["compressai_over_ours"]), three(half.get("compressai_over_ours")),
            plain["ours_peak_mb"], plain["compressai_peak_mb"] or "-",
        ])  # fmt: skip
    header = ["model (N, M)", "direction", "ours, fp32 (s)", "ours, bf16 (s)", "CompressAI (s)"]
    header += ["CompressAI / ours, fp32", "CompressAI / ours, bf16", "our peak memory, fp32 (MB)"]
    if not rows:
        return "Not measured.\n"
    table = markdown([*header, "CompressAI's (MB)"], rows, 2)
    return f"{table}\nMachine: {machine('codec_speed')}.\n"


def by_precision(name: str) -> dict[tuple[str, ...], dict[str, dict[str, str]]]:
    """The CPU's rows of a CSV: (model, N, M, direction) -> precision -> row."""
    found: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for r in rows_of(name):
        if r["device"] == "cpu":
            key = (r["model"], r["N"], r["M"], r["direction"])
            found.setdefault(key, {})[r["precision"]] = r
    return found


def stages() -> str:
    """Where the seconds go: transforms, entropy parameters from z, the coding loop."""
    rows = []
    for (model, N, M, direction), found in by_precision("codec_stages").items():
        if (N, M) != ("192", "320"):
            continue
        plain, half = found["fp32"], found.get("bf16", {})
        transform = "g_a_s" if direction == "encode" else "g_s_s"
        rows.append([
            f"{short(model)} ({N}, {M})", direction, three(plain[transform]),
            three(half.get(transform)), three(plain["h_a_s"]), three(plain["h_s_s"]),
            three(plain["entropy_s"]),
        ])  # fmt: skip
    header = ["model (N, M)", "direction", "transform, fp32 (s)", "transform, bf16 (s)"]
    header += ["h_a (s)", "h_s in integers (s)", "context and coder (s)"]
    return markdown(header, rows, 2) if rows else "Not measured.\n"


def precision() -> str:
    """What bf16 costs in error and rate, by checkpoint; which of them were replaced since."""
    final = {r["run_id"] for r in rows_of("training_runs") if r["checkpoint"]}
    measured = rows_of("precision")
    replaced = [f"{short(r['model'])} {r['lmbda']}" for r in measured if r["run_id"] not in final]
    rows = [
        [
            short(r["model"]), r["lmbda"], fixed(r["psnr"], 2), f"{float(r['reader_db']):+.4f}",
            f"{float(r['both_db']):+.4f}", f"{float(r['rate_percent']):+.3f}",
            three(r["symbols_percent"]), r["largest_level"],
        ]
        for r in measured
    ]  # fmt: skip
    header = ["model", "lambda", "PSNR in fp32 (dB)", "read in bf16 (dB)"]
    header += ["written and read in bf16 (dB)", "rate (%)", "symbols that differ (%)"]
    header += ["largest difference of a pixel (levels of 255)"]
    if not rows:
        return "Not measured yet.\n"
    note = f"\nCheckpoints that others have replaced since: {', '.join(replaced)}.\n"
    return markdown(header, rows) + (note if replaced else "")


def seconds() -> str:
    """Joint's decoding in the three measurements of this report, and why they differ."""
    tested = [float(r["time(dec)"]) for r in rows_of(JOINT)]
    timed = [
        float(r["ours_s"]) for r in rows_of("codec_speed")
        if (r["model"], r["direction"], r["precision"]) == (JOINT, "decode", "fp32")
        and studied(r)
    ]  # fmt: skip
    original = [
        float(r["decode_s"])
        for r in rows_of("reference/seminar_2022_results")
        if r["model"] == JOINT
    ]
    if not (tested and timed):
        return "Not measured.\n"
    return (
        f"In fp32 Joint decodes an image in {span(timed, '.2f', ' s')} in the table above and in "
        f"{span(tested, '.2f', ' s')} in [3.1](#31-rate-distortion-curves). The first is the "
        "median of repeated decodings of one image in one process, with random weights that have "
        "the statistics of trained ones; the second the mean over 24 images, each decoded once "
        "by a second process, with trained weights, on another day. "
        "Ratios within one run are worth more than seconds. The original's "
        f"{span(original, ',.0f', ' s')} are history: another machine, and one position at a "
        "time.\n"
    )


def scaling() -> str:
    """Cost for a megapixel and peak memory, of the smallest and the largest image."""
    found = rows_of("scaling")
    rows = []
    changes: dict[str, float] = {}
    for model in dict.fromkeys(r["model"] for r in found):
        cells = [short(model)]
        for direction in ("compress", "decompress"):
            own = [r for r in found if (r["model"], r["direction"]) == (model, direction)]
            small, large = (r["seconds_per_megapixel"] for r in (own[0], own[-1]))
            cells += [three(small), three(large)]
            changes[f"{short(model)}, {direction}ion".replace("compression", "encoding")
                    .replace("deencoding", "decoding")] = float(large) / float(small)  # fmt: skip
        peak = max(float(r["peak_mb"]) for r in found if r["model"] == model)
        rows.append([*cells, f"{peak:,.0f}"])
    if not rows:
        return "Not measured.\n"
    sizes = [f"{float(s):.3g}" for s in (found[0]["megapixels"], found[-1]["megapixels"])]
    header = ["model"]
    for word in ("encoding", "decoding"):
        header += [f"{word}, {size} megapixels (s per megapixel)" for size in sizes]
    worst = max(changes, key=changes.__getitem__)
    return (
        f"{markdown([*header, 'peak memory (MB)'], rows)}\nFrom the smallest to the largest "
        f"image the cost of a megapixel changes by a factor of {span(list(changes.values()))}; "
        f"the largest is {worst}. Each value is one run in a process of its own; machine: "
        f"{machine('scaling')}.\n"
    )
