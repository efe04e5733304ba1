"""The original study's own numbers, beside ours and beside published curves."""

from __future__ import annotations

from benchmarks.report.blocks import cost
from benchmarks.report.comparisons import rate_at
from benchmarks.report.tables import STATISTICS, fixed, markdown, percent, rows_of, three
from evaluation.curves import (
    PAIRS,
    Curve,
    compare,
    original_curve,
    reference_curve,
)
from evaluation.metrics import bd_psnr
from models.errors import DataError
from models.presets import CATALOGUE, OPERATING_POINTS, STUDIED, short

JOINT, CHECKERBOARD = STUDIED[2:]
NAMES = ("JPEG", "JPEG2000", "BPG444")  # published curves
# Section 3.2 of the original report, kodim19: rate in bpp and PSNR in dB, as printed.
KODIM19 = {
    "Factorized": ("0.250", "28.496"), "Hyperprior": ("0.255", "29.357"),
    "JPEG": ("0.221", "23.890"),
}  # fmt: skip


def against(model: str, other: str) -> float | None:
    """BD-rate in percent of the original's curve of a model against a published one, or another
    of the original's."""
    theirs = original_curve(model, STATISTICS)
    anchor = (original_curve if other in STUDIED else reference_curve)(other, STATISTICS)
    value = compare(theirs, anchor, "psnr").get("bd_rate_percent")
    return float(value) if value else None


def below_published(model: str) -> float:
    """BD-PSNR in dB of the original's curve against the published one of the architecture."""
    curves = (
        reference_curve(CATALOGUE[model].published, STATISTICS),
        original_curve(model, STATISTICS),
    )
    (anchor, test) = (tuple(zip(*curve.points("psnr"), strict=True)) for curve in curves)
    return bd_psnr(*anchor, *test).value


def _cell(value: float | None) -> str:
    return "-" if value is None else percent(value)


def curves() -> str:
    """BD-rates of the original study's curves against published ones and among themselves."""
    before = dict(PAIRS)
    rows = []
    for model in STUDIED:
        try:
            published = CATALOGUE[model].published
            row = [short(model), *(_cell(against(model, name)) for name in (*NAMES, published))]
            row += [f"{below_published(model):+.2f} dB"]
            other = before.get(model)
            row += [f"{_cell(against(model, other))} ({short(other)})" if other else "-"]
        except DataError:
            continue
        rows.append(row)
    header = ["original's curve", "JPEG", "JPEG2000", "BPG 4:4:4", "same architecture, published",
              "the same, PSNR", "original's model before it"]  # fmt: skip
    return markdown(header, rows) if rows else "No reference values are committed.\n"


def points() -> str:
    """Every row of the original's tables of results beside ours, trained or not."""
    theirs = {(r["model"], float(r["lmbda"])): r for r in rows_of("reference/seminar_2022_results")}
    ours = {(m, float(r["lmbda"])): r for m in STUDIED for r in rows_of(m)}
    rows = []
    for point in OPERATING_POINTS:
        key = point.model, point.lmbda
        old, new = theirs.get(key, {}), ours.get(key, {})
        rows.append([
            short(point.model), f"{point.lmbda:g}",
            three(old.get("bpp")), three(new.get("bpp")),
            fixed(old.get("psnr_rgb_db"), 2), fixed(new.get("psnr"), 2),
            three(old.get("encode_s")), three(new.get("time(enc)")),
            three(old.get("decode_s")), three(new.get("time(dec)")),
            cost(point.model, str(point.lmbda))[0] if new else "not tested yet",
        ])  # fmt: skip
    header = ["model", "lambda"]
    for what in ("rate (bpp)", "PSNR (dB)", "encoding (s)", "decoding (s)"):
        header += [f"{what}, theirs", "ours"]
    return markdown([*header, "our training: steps"], rows)


def ratios() -> list[tuple[float, float, float, float]]:
    """(lambda, Joint's bpp, Checkerboard's bpp, Checkerboard's PSNR) of the original."""
    found = rows_of("reference/seminar_2022_results")
    joint = {r["lmbda"]: float(r["bpp"]) for r in found if r["model"] == JOINT}
    return [
        (float(r["lmbda"]), joint[r["lmbda"]], float(r["bpp"]), float(r["psnr_rgb_db"]))
        for r in found
        if r["model"] == CHECKERBOARD and r["lmbda"] in joint
    ]


def psnr_losses() -> list[float]:
    """dB by which the original's Checkerboard lies below its Joint, rising lambda."""
    curves = (original_curve(model, STATISTICS).psnr for model in (JOINT, CHECKERBOARD))
    return [joint - checkerboard for joint, checkerboard in zip(*curves, strict=True)]


def grid_ratios() -> list[float]:
    """Rate of our Checkerboard coded on two full grids over that of each position once."""
    return [float(r["ratio"]) for r in rows_of("full_grids")]


def checkerboard() -> str:
    """The original's checkerboard beside its Joint and JPEG, and ours coded in its way."""
    try:
        jpeg: Curve = reference_curve("JPEG", STATISTICS)
    except DataError:
        return "No reference values are committed.\n"
    measured = {float(r["lmbda"]): r["ratio"] for r in rows_of("full_grids")}
    rows = []
    for (lmbda, joint, rate, psnr), loss in zip(ratios(), psnr_losses(), strict=True):
        rows.append([
            f"{lmbda:g}", three(joint), three(rate), f"{rate / joint:.2f}", f"{psnr:.2f}",
            f"{-loss:+.2f}", f"{rate / rate_at(jpeg, psnr):.2f}",
            fixed(measured.get(lmbda), 2),
        ])  # fmt: skip
    header = [
        "lambda", "their Joint (bpp)", "their Checkerboard (bpp)", "ratio",
        "Checkerboard's PSNR (dB)", "against Joint's (dB)", "rate over JPEG's at that PSNR",
        "ours: two full grids over once",
    ]  # fmt: skip
    return markdown(header, rows)


def decoding_seconds() -> list[float]:
    """The original's decoding times of Joint, seconds per image, rising lambda."""
    found = rows_of("reference/seminar_2022_results")
    return [float(r["decode_s"]) for r in found if r["model"] == JOINT]
