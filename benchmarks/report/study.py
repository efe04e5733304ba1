"""Blocks of the report that say where the study stands.

What a sentence claims follows from the CSVs, so a block stays true when they change.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from benchmarks.report import original
from benchmarks.report.tables import fixed, markdown, rows_of
from evaluation.curves import PAIRS
from evaluation.plots import IMAGES
from models.coding.orders import checkerboard, raster, wavefront
from models.presets import OPERATING_POINTS, STUDIED, short

KODAK_LATENT = 32, 48  # of an image of 512x768


def bd_rate(curve: str, against: str) -> str:
    """A PSNR BD-rate of statistics/bd_rate.csv in words, or why there is none."""
    for r in rows_of("bd_rate"):
        if (r["curve"], r["against"], r["metric"]) == (curve, against, "psnr"):
            value = r["bd_rate_percent"]
            return f"{float(value):+.1f} %" if value else "-"
    return "-"


def _list(pairs: list[tuple[str, str]], nothing: str) -> str:
    """'a x, b y' of those that have a value, `nothing` if none has."""
    return ", ".join(f"{name} {value}" for name, value in pairs if value != "-") or nothing


def _against_original() -> list[tuple[str, str]]:
    return [(short(m), bd_rate(m, f"{m} (original study)")) for m in STUDIED]


def _among_ours() -> list[tuple[str, str]]:
    return [(f"{short(m)} / {short(other)}", bd_rate(m, other)) for m, other in PAIRS]


def _seconds(model: str) -> str:
    times = sorted({f"{float(r['time(dec)']):.2f}" for r in rows_of(model)}, key=float)
    return "-".join(dict.fromkeys((times[0], times[-1]))) + " s" if times else ""


def _facts() -> dict[str, str]:
    """The numbers that the sentences are made of."""
    trained = [r for r in rows_of("checkpoints") if r["steps"]]
    runs = rows_of("training_runs")
    tested = {m: rows_of(m) for m in STUDIED}
    images = [r["image"] for m in STUDIED for r in rows_of(f"per_image/{m}")]
    seconds = original.decoding_seconds() or [0.0]
    ratios = [rate / joint for _, joint, rate, _ in original.ratios()] or [0.0]
    return {
        "points": str(len(OPERATING_POINTS)),
        "trained": str(len(trained)),
        "tested": str(sum(map(len, tested.values()))),
        "images": str(len(set(images))),
        "least": f"{min((int(r['steps']) for r in trained), default=0):,}",
        "most": f"{max((int(r['steps']) for r in trained), default=0):,}",
        "runs": str(len(runs)),
        "hours": f"{sum(float(r['hours'] or 0) for r in runs):.1f}",
        "hardware": "; ".join(sorted({r["hardware"] for r in runs if r["hardware"]})) or "-",
        "seconds": _seconds(STUDIED[2]),
        "slowest": f"{min(seconds):.0f}-{max(seconds):.0f} s",
        "ratios": f"{min(ratios):.2f}-{max(ratios):.2f}",
        "raster": f"{len(raster(*KODAK_LATENT)):,}",
        "wavefront": f"{len(wavefront(*KODAK_LATENT)):,}",
        "two": f"{len(checkerboard(*KODAK_LATENT))}",
    }


def missing() -> list[str]:
    """Operating points without a checkpoint, 'Joint 0.0067' and so on."""
    have = {(r["model"], float(r["lmbda"])) for r in rows_of("checkpoints")}
    return [
        f"{short(p.model)} {p.lmbda:g}" for p in OPERATING_POINTS if (p.model, p.lmbda) not in have
    ]


def _on(facts: dict[str, str], text: str) -> str:
    return text.format(**facts) if facts["tested"] != "0" else ""


def status() -> str:
    """Which operating points are trained, how far, and whether the numbers are final."""
    facts, absent = _facts(), missing()
    lines = [
        f"**{'Preliminary.' if absent else 'Complete.'}** {facts['trained']} of the "
        f"{facts['points']} operating points have a checkpoint, {facts['tested']} are tested"
        f"{_on(facts, ' on {images} images each')}."
    ]
    if absent:
        lines.append(f"Not trained yet: {', '.join(absent)}.")
    if facts["trained"] != "0":
        lines.append(
            f"Training took {facts['runs']} runs, the last of a checkpoint {facts['least']} to "
            f"{facts['most']} steps, and {facts['hours']} hours in all, on: {facts['hardware']}."
        )
    return " ".join(lines) + "\n"


def learned() -> str:
    """The three sentences of the first screen."""
    facts = _facts()
    seconds = facts["seconds"] or "a time that is not measured yet"
    return (
        "1. **Rate and distortion.** BD-rates (PSNR, sizes of real files, negative is better) of "
        "our curves against the original study's are: "
        f"{_list(_against_original(), 'none yet, for want of trained points')}; among our own: "
        f"{_list(_among_ours(), 'none yet')} ([3.2](#32-bd-rates) has all of them).\n"
        "2. **Decoding.** Autoregressive does not mean serial: positions on a wavefront do not "
        f"depend on each other, so a Kodak image takes {facts['wavefront']} steps in place of "
        f"{facts['raster']}, and integer entropy parameters make the symbols independent of order, "
        f"threads and batch; our Joint decodes an image in {seconds}, the original's took "
        f"{facts['slowest']}.\n"
        f"3. **The checkerboard.** The original's result, {facts['ratios']} times its Joint "
        "model's rate at the same lambda, comes from its bit stream and not from the method: it "
        "coded two full grids, each with zeros in the holes; ours codes each position once, in "
        f"{facts['two']} steps.\n"
    )


def gap() -> str:
    """Real files against the estimate of `forward`, means over images."""
    rows = []
    for model in STUDIED:
        found = rows_of(f"per_image/{model}")
        for lmbda in dict.fromkeys(r["lmbda"] for r in found):
            at = [r for r in found if r["lmbda"] == lmbda]
            bits = sum(int(r["bits"]) for r in at) / len(at)
            areas = [int(r["width"]) * int(r["height"]) for r in at]
            estimate = sum(
                float(r["estimate_bpp"]) * area for r, area in zip(at, areas, strict=True)
            ) / len(at)
            rows.append([
                short(model), lmbda, f"{bits / 8:.1f}", f"{estimate / 8:.1f}",
                f"{(bits - estimate) / 8:+.1f}", f"{100 * (bits / estimate - 1):+.2f} %",
            ])  # fmt: skip
    header = ["model", "lambda", "file (bytes)", "estimate (bytes)", "gap (bytes)", "gap"]
    return markdown(header, rows) if rows else "No results are committed yet.\n"


def classical() -> str:
    """Classical codecs measured here against the published points."""
    rows = [
        [r["codec"], r["matched_points"] or "-", fixed(r["max_bpp_difference_percent"], 2),
         fixed(r["max_psnr_difference_db"], 3), fixed(r["bd_rate_percent"], 2), r["reason"] or "-"]
        for r in rows_of("classical_agreement")
    ]  # fmt: skip
    header = ["codec", "points in common", "largest difference in bpp (%)", "in PSNR (dB)",
              "BD-rate (%)", "remark"]  # fmt: skip
    return markdown(header, rows) if rows else "Not measured.\n"


def figures(name: str) -> Callable[[], str]:
    """A block with all committed figures whose names begin so: those of notebooks/<name>.ipynb."""

    def block() -> str:
        found = [p for suffix in ("svg", "png") for p in sorted(IMAGES.glob(f"{name}*.{suffix}"))]
        lines = [f"![{re.sub(r'_+', ' ', p.stem)}]({p.as_posix()})\n" for p in found]
        return "\n".join(lines) or f"Figures `{name}*` are not committed yet.\n"

    return block


def first_figure() -> str:
    """The R-D curves in PSNR for the first screen."""
    for path in (IMAGES / f"rd_curves_psnr.{suffix}" for suffix in ("svg", "png")):
        if path.exists():
            return f"![R-D curves on Kodak, PSNR]({path.as_posix()})\n"
    return "The R-D figure is drawn by `notebooks/rd_curves.ipynb` and is not committed yet.\n"
