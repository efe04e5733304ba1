"""Blocks of seconds and memory: beside CompressAI in one run, by stage, by size of the image."""

from __future__ import annotations

from benchmarks.report.tables import machine, markdown, rows_of, span, three
from models.presets import STUDIED, short

JOINT = STUDIED[2]


def ratios(model: str, direction: str) -> list[float]:
    """CompressAI's seconds over ours, one for each width and precision."""
    return [
        float(r["compressai_over_ours"])
        for r in rows_of("codec_speed")
        if (r["model"], r["direction"]) == (model, direction) and r["compressai_over_ours"]
    ]


def coding() -> str:
    """Seconds and peak memory of a Kodak-sized image, ours and CompressAI's in one process."""
    found = rows_of("codec_speed")
    precise = any(r.get("precision") for r in found)
    rows = [
        [
            f"{short(r['model'])} ({r['N']}, {r['M']})", *([r["precision"]] if precise else []),
            r["direction"], three(r["ours_s"]), three(r["compressai_s"]),
            three(r["compressai_over_ours"]), r["ours_peak_mb"], r["compressai_peak_mb"] or "-",
        ]
        for r in found
    ]  # fmt: skip
    header = ["model (N, M)", *(["precision"] if precise else []), "direction", "ours (s)"]
    header += ["CompressAI (s)", "CompressAI / ours", "our peak memory (MB)", "CompressAI's (MB)"]
    if not rows:
        return "Not measured.\n"
    return f"{markdown(header, rows, 2)}\nMachine: {machine('codec_speed')}.\n"


def stages() -> str:
    """Where the seconds go: transforms, entropy parameters from z, the coding loop."""
    rows = [
        [
            f"{short(r['model'])} ({r['N']}, {r['M']})", r["direction"],
            three(r["g_a_s"] or r["g_s_s"]), three(r["h_a_s"]), three(r["h_s_s"]),
            three(r["entropy_s"]), three(r["all_s"]),
        ]
        for r in rows_of("codec_stages")
        if (r["N"], r["M"]) == ("192", "320")
    ]  # fmt: skip
    header = ["model (N, M)", "direction", "transform (s)", "h_a (s)", "h_s in integers (s)"]
    header += ["context and coder (s)", "all (s)"]
    return markdown(header, rows, 2) if rows else "Not measured.\n"


def seconds() -> str:
    """Joint's decoding in the three measurements of this report, and why they differ."""
    tested = [float(r["time(dec)"]) for r in rows_of(JOINT)]
    timed = [
        float(r["ours_s"]) for r in rows_of("codec_speed")
        if (r["model"], r["direction"]) == (JOINT, "decode")
    ]  # fmt: skip
    original = [
        float(r["decode_s"])
        for r in rows_of("reference/seminar_2022_results")
        if r["model"] == JOINT
    ]
    if not (tested and timed):
        return "Not measured.\n"
    return (
        f"Joint decodes an image in {span(timed, '.2f', ' s')} in the table above and in "
        f"{span(tested, '.2f', ' s')} in [3.1](#31-rate-distortion-curves). The first is the "
        "median of repeated decodings of one image in one process, with random weights that have "
        "the statistics of trained ones; the second the mean over 24 images, each decoded once "
        "by a second process, with trained weights, on a machine that may have done other work. "
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
