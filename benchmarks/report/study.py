"""Blocks of the report that say where the study stands.

What a sentence claims follows from the CSVs, so a block stays true when they change.
"""

from __future__ import annotations

from benchmarks.report import comparisons, original, speed
from benchmarks.report.tables import hardware, percent, rows_of, span
from evaluation.curves import PAIRS
from models.coding.orders import checkerboard, raster, wavefront
from models.presets import OPERATING_POINTS, STUDIED, points, short

KODAK_LATENT = 32, 48  # of an image of 512x768
JOINT, CHECKERBOARD = STUDIED[2:]


def steps() -> tuple[int, int, int]:
    """Steps of a Kodak image in the order raster, wavefront, checkerboard."""
    orders = (raster, wavefront, checkerboard)
    return tuple(len(order(*KODAK_LATENT)) for order in orders)  # type: ignore[return-value]


def bd_rate(curve: str, against: str) -> str | None:
    """A PSNR BD-rate of statistics/bd_rate.csv whose curve has all its points; else None."""
    for r in rows_of("bd_rate"):
        if (r["curve"], r["against"], r["metric"]) == (curve, against, "psnr"):
            complete = int(r["points"] or 0) >= len(points(curve))
            return (
                percent(float(r["bd_rate_percent"])) if r["bd_rate_percent"] and complete else None
            )
    return None


def _list(pairs: list[tuple[str, str | None]]) -> str:
    """'a x, b y' of those that have a value."""
    return ", ".join(f"{name} {value}" for name, value in pairs if value)


def missing() -> list[str]:
    """Operating points without a checkpoint, 'Joint 0.0067' and so on."""
    have = {(r["model"], float(r["lmbda"])) for r in rows_of("checkpoints")}
    return [
        f"{short(p.model)} {p.lmbda:g}" for p in OPERATING_POINTS if (p.model, p.lmbda) not in have
    ]


def status() -> str:
    """Which operating points are trained, how far, and whether the numbers are final."""
    trained, runs = rows_of("checkpoints"), rows_of("training_runs")
    absent = missing()
    tested = sum(len(rows_of(model)) for model in STUDIED)
    images = {r["image"] for model in STUDIED for r in rows_of(f"per_image/{model}")}
    lines = [
        f"**{'Preliminary.' if absent else 'Complete.'}** {len(trained)} of the "
        f"{len(OPERATING_POINTS)} operating points have a checkpoint, {tested} are tested"
        f"{f' on {len(images)} images each' if tested else ''}."
    ]
    if absent:
        lines.append(f"Not trained yet: {', '.join(absent)}.")
    if trained:
        hours = sum(float(r["hours"] or 0) for r in runs)
        spent = [float(r["lineage_steps"]) for r in trained if r.get("lineage_steps")]
        whole = f"; a checkpoint has {span(spent, ',.0f')} steps behind it" if spent else ""
        machines = sorted({hardware(r["hardware"]) for r in runs if r["hardware"]})
        lines.append(
            f"Training took {len(runs)} runs and {hours:.1f} hours{whole}. "
            f"Hardware: {'; '.join(machines) or '-'}."
        )
    return " ".join(lines) + "\n"


def searched() -> str:
    """What the encoder's search gains, with as many steps as all models have."""
    if not (rows := comparisons.searched_alike()):
        return "Not measured for all models"
    gains = span([float(r["bd_rate_percent"]) for r in rows], "+.1f", " %")
    price = span([float(r["seconds"]) for r in rows], ".0f", " s")
    return (
        f"{rows[0]['effort']} steps of descent on an image's latents change the rate by {gains} "
        f"(BD-rates in PSNR), for {price} of two cores; files and decoder stay the same"
    )


def learned() -> str:
    """The findings of the first screen, in numbers."""
    found = _list([(short(m), bd_rate(m, f"{m} (original study)")) for m in STUDIED])
    own = _list([(f"{short(m)} against {short(o)}", bd_rate(m, o)) for m, o in PAIRS])
    serial, wave, two = steps()
    faster = speed.faster(JOINT, "decode")
    grids, theirs = original.grid_ratios(), original.ratios()
    rates = (
        f"BD-rates in PSNR of our complete curves (negative: less rate): against the original's "
        f"{found or 'none yet'}; among ours {own or 'none yet'}"
    )
    ratio = f"{faster} as fast as CompressAI's, in one run" if faster else "-"
    lost = f"rises by a factor of {span(grids, '.2f')}" if grids else "has not been measured"
    made = [rate / joint for _, joint, rate, _ in theirs]
    return (
        f"1. **Rate and distortion.** {rates}. All of them are in [3.2](#32-bd-rates), and what "
        "each point's training has cost stands beside it in [3.1](#31-rate-distortion-curves).\n"
        f"2. **Decoding.** An autoregressive codec need not decode serially: on a wavefront a "
        f"Kodak image takes {wave} steps in place of {serial:,}, and integer entropy parameters "
        "make the symbols independent of order, threads and batch. Our Joint decodes "
        f"{ratio} ([3.4](#34-coding-time)).\n"
        f"3. **The checkerboard.** The original's needs {span(made, '.2f')} times the rate of its "
        f"Joint at the same lambda. It codes two full grids; ours, coded in that way, {lost} and "
        f"otherwise takes {two} steps and each position once. The rest of the original's "
        f"ratio, and its PSNR, {span(original.psnr_losses(), '.1f', ' dB')} below its Joint's, "
        "stay unexplained ([erratum 3](#53-errata)).\n"
        f"4. **The encoder's search.** {searched()} ([3.6](#36-the-encoders-search)).\n"
    )
