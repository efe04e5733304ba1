"""Blocks of what compute buys: the cost of every lineage, and the power laws of the loss."""

from __future__ import annotations

from benchmarks.held_out import ONE_FOLDER, THREE_FOLDERS
from benchmarks.records import curve_file
from benchmarks.report import tables
from benchmarks.report.tables import fixed, markdown, percent, rows_of, three
from evaluation.curves import read_rows
from models.presets import OPERATING_POINTS, short

DECADE = 10  # a law through points that span less compute describes them and predicts nothing


def lineages() -> str:
    """What each final checkpoint has cost, and where the zoo would be met at its lambda."""
    targets = {(r["model"], r["lmbda"]): r["target"] for r in rows_of("compute_fits")}
    rows = [
        [
            short(r["model"]), r["lmbda"], f"{int(r['lineage_steps']):,}",
            three(r["lineage_megapixels"]), three(r["lineage_petamacs"]),
            fixed(r["val_loss"], 4), fixed(targets.get((r["model"], r["lmbda"])), 4),
        ]
        for r in rows_of("compute") if r["checkpoint"]
    ]  # fmt: skip
    header = ["model", "lambda", "steps", "megapixels", "1e15 MACs", "held-out loss"]
    header += ["at which the zoo is met"]
    return markdown(header, rows) if rows else "Not counted.\n"


def held_out() -> str:
    """Each checkpoint's loss on both sets of photographs, and the ratio."""
    sets = ("of three folders", THREE_FOLDERS), ("of one", ONE_FOLDER)
    losses = {
        (r["model"], r["lmbda"], r["data_fingerprint"]): float(r["loss"])
        for r in rows_of("held_out")
    }
    own = {(r["model"], r["lmbda"]): r["data_fingerprint"] for r in rows_of("checkpoints")}
    rows = []
    for model, lmbda in dict.fromkeys(key[:2] for key in losses):
        pair = [losses[model, lmbda, mark] for _, mark in sets]
        held = [name for name, mark in sets if mark == own.get((model, lmbda))] or ["-"]
        shown = [f"{loss:.4g}" for loss in pair]
        rows.append([short(model), lmbda, *held, *shown, f"{pair[0] / pair[1]:.3f}"])
    header = ["model", "lambda", "held out itself", "loss on those of three folders"]
    header += ["on those of one", "ratio"]
    return markdown(header, rows) if rows else "Not measured yet.\n"


def rounding() -> str:
    """What the last tenth of a run, with real rounding, does to the held-out photographs; of the
    checkpoints that train g_s and whose curve has a validation where it begins."""
    ends = [r for r in rows_of("training_runs") if r["checkpoint"]]
    held = {(r["model"], r["lmbda"]) for r in ends if "g_s" in r["fixed"]}
    rows = []
    for p in OPERATING_POINTS:
        if (p.model, f"{p.lmbda:g}") in held:
            continue
        curve = [r for r in rows_of(f"training/{p.model}_lmbda_{p.lmbda:g}") if r["val_loss"]]
        begins = [r for r in curve if 10 * int(r["step"]) == 9 * int(curve[-1]["step"])]
        for before, after in zip(begins, curve[-1:], strict=False):
            change = float(after["val_loss"]) / float(before["val_loss"]) - 1
            pairs = (
                f"{float(before[name]):.{digits}f} to {float(after[name]):.{digits}f}"
                for name, digits in (("val_loss", 3), ("val_bpp", 3), ("val_psnr", 2))
            )
            peak = max(float(r["lr"]) for r in curve)
            rate = f"{float(before['lr']) / peak:.2f}"
            rows.append([short(p.model), f"{p.lmbda:g}", rate, *pairs, percent(100 * change)])
    header = ["model", "lambda", "rate, of the largest", "held-out loss", "rate (bpp)"]
    return markdown([*header, "PSNR (dB)", "loss"], rows) if rows else "Not measured yet.\n"


def views() -> str:
    """The priors that went on with more views of the photographs: what the run before ended with
    on the held-out ones, and what theirs did."""
    runs = {r["run_id"]: r for r in rows_of("training_runs")}
    rows = []
    for run in (r for r in runs.values() if r.get("latent_views")):
        before = runs.get(run["parent"], {})
        if any(before.get(name) != run[name] for name in ("model", "lmbda", "fixed")):
            continue  # another prior, another loss, or everything trained
        pair = [before.get("latent_views") or "1", run["latent_views"]]
        if int(pair[0]) >= int(pair[1]):
            continue
        cells = [short(run["model"]), run["lmbda"]]
        for number, stage in zip(pair, (before, run), strict=True):
            path = curve_file(stage, bool(stage["checkpoint"]), tables.STATISTICS)
            validations = [r for r in read_rows(path) if r["val_loss"]]
            last = [r for r in validations if int(r["step"]) <= int(stage["steps"])][-1]
            bpp, loss = fixed(last["val_bpp"], 4), fixed(last["val_loss"], 3)
            cells += [number, f"{int(last['step']):,}", bpp, loss]
        rows.append(cells)
    header = ["model", "lambda", "views", "steps", "rate (bpp)", "held-out loss"]
    header += ["then views", "steps", "rate (bpp)", "held-out loss"]
    return markdown(header, rows) if rows else "Not measured yet.\n"


def law(row: dict[str, str]) -> str:
    """The power law of a row of compute_fits.csv, C in 1e15 MACs."""
    return f"{float(row['floor']):.3g} + {float(row['a']):.3g} C^-{float(row['b']):.2f}"


def laws() -> str:
    """A sentence for each fit: what went into it, what it says, and how far it can be trusted."""
    rows = rows_of("compute_fits")
    lines = [f"* {_sentence(r)}\n" for r in rows if r["b"]]
    if few := [int(r["points"]) for r in rows if not r["b"]]:
        between = f"{min(few)} to {max(few)}" if min(few) < max(few) else min(few)
        pairs = "pair" if len(few) == 1 else "pairs"
        lines.append(
            f"* The other {len(few)} {pairs} of a model and a lambda: too few points ({between}) "
            "for a fit.\n"
        )
    return "".join(lines) or "Not fitted.\n"


def _sentence(row: dict[str, str]) -> str:
    start, end = float(row["from_petamacs"]), float(row["to_petamacs"])
    text = (
        f"{short(row['model'])} ({row['N']}, {row['M']}) at lambda {row['lmbda']}: "
        f"L = `{law(row)}`, C in 1e15 MACs, through {row['points']} points ({row['through']}) "
        f"from {start:.3g} to {end:.3g}, root mean square error {float(row['rms']):.2g}; "
        f"floors from {float(row['floor_low']):.4g} to {float(row['floor_high']):.4g} "
        "fit as well."
    )
    if end < DECADE * start:
        text += (
            f" The points span a factor of {end / start:.1f} in compute: the law describes them "
            "and predicts nothing."
        )
    if not row["target"]:
        return f"{text} No final checkpoint has been tested there, so nothing tells the zoo's loss."
    reach = f" It would meet the zoo, at {float(row['target']):.3g}, "
    if row["meets_petamacs"] == "inf":
        return f"{text}{reach}never: its floor is above that."
    return f"{text}{reach}at {float(row['meets_petamacs']):,.3g} ({_between(row)})."


def _between(row: dict[str, str]) -> str:
    low, high = (float(row[name]) for name in ("meets_low", "meets_high"))
    return f"from {low:,.3g} to {'never' if high == float('inf') else f'{high:,.3g}'}"
