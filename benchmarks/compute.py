"""Held-out loss against what the training of a checkpoint has cost, over its whole lineage.

    python -m benchmarks.compute        # writes statistics/compute.csv and compute_fits.csv

A checkpoint's lineage is every run of `train.py` that its weights went through, each as far as
the next one took it. The cost is counted, not timed: steps, pixels of the training crops, and
multiply-accumulates (MACs) of the networks as `benchmarks.complexity` counts them (convolutions
without masked taps, and GDN). A trained part costs 3 times its forward pass (forward, gradient of
its input, gradient of its weights), a fixed one costs 1; on kept latents the transforms cost one
analysis of every view of a training photograph and nothing afterwards. Not counted: validation,
averaging, data, what an interrupted run did twice, and the optimiser (Muon's orthogonalisation is
3 % of a step of Hyperprior on four crops of 256x256 at 128 and 192 channels, 5 % at 192 and 320).

compute.csv has a row for each validation in statistics/training/, in the loss of that run's own
lambda: losses compare at one lambda only. Runs that held out other photographs (`splits` of
`benchmarks.held_out`) are brought to the first ones: their losses are multiplied by what the
study's checkpoint of that lambda has on those over what it has on these (held_out.csv).
compute_fits.csv has the power law L = floor + a C^-b through those of a model and lambda (see
`points_of`), C in units of 1e15 MACs.
"""

from __future__ import annotations

import argparse
from dataclasses import astuple, dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from benchmarks.complexity import count
from benchmarks.held_out import ONE_FOLDER, THREE_FOLDERS
from benchmarks.power_law import MIN_POINTS, PowerLaw, fit
from benchmarks.records import curve_file, number
from evaluation.curves import measured_curve, read_rows, reference_curve
from evaluation.metrics import trade_off
from evaluation.results import STATISTICS
from models.errors import DataError
from models.files import csv_text, write_text
from models.presets import STUDIED, TWINS, ZOO_LAMBDAS
from training.inheritance import TRANSFORMS, ancestors

TRAINED, FIXED = 3, 1  # times the forward pass
# The runs on the GPU, which may be told of as ancestors from before these told what they had seen.
# The first part of its trunk saw a third of the photographs: nothing compares with its validations.
SEEN = dict.fromkeys(
    (
        "420ecc96aa23", "c33d2dec3869", "db8f776d1759", "d45b78b7523e", "da022940b55f",
        "05a17b69711a", "5c46b13cdb43", "546275596916", "9095eefa3334",
    ),
    ONE_FOLDER,
) | {"c119738ab419": None}  # fmt: skip
# "joined_by" of runs that are told of as ancestors from before any had it (see `ancestors`).
JOINED_BY = {
    "40c78662fc3d": "672293ebcc4f", "6755eddd9f17": "2a7706d2ac21",
    "c0a8e0901891": "39978ce45c65",
}  # fmt: skip

COLUMNS = (
    "model", "N", "M", "lmbda", "run", "step", "rate", "lineage_steps", "lineage_megapixels",
    "lineage_petamacs", "val_loss", "checkpoint",
)  # fmt: skip
FIT_COLUMNS = (
    "model", "N", "M", "lmbda", "points", "through", "from_petamacs", "to_petamacs", "a", "b",
    "floor", "floor_low", "floor_high", "rms", "held_out", "kodak", "zoo_kodak", "target",
    "meets_petamacs", "meets_low", "meets_high",
)  # fmt: skip


@dataclass(frozen=True)
class Spent:
    """The cost of training: steps, pixels of the crops, multiply-accumulates."""

    steps: int = 0
    pixels: int = 0
    macs: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def cells(self) -> dict[str, str]:
        """As columns of a CSV."""
        return {
            "lineage_steps": str(self.steps),
            "lineage_megapixels": number(self.pixels / 1e6),
            "lineage_petamacs": number(self.macs / 1e15),
        }


@cache
def macs_per_pixel(model: str, N: int, M: int) -> tuple[float, float]:
    """MACs of a forward pass for a pixel: of both transforms with GDN, of everything else."""
    side = 64
    true = count(model, N, M, (1, side, side)).true
    transforms = true["transforms"] + true["gdn"]
    return transforms / side**2, (true.total() - transforms) / side**2


@cache
def training_pixels() -> int:
    """Pixels of the study's training photographs, which are analysed once to be kept."""
    images = read_rows(STATISTICS / "training" / "images.csv")
    return sum(int(i["width"]) * int(i["height"]) for i in images if i["use"] == "training")


def spent(run: dict, steps: int | None = None, images: int | None = None) -> Spent:
    """What a run of a lineage has cost, to its end or after so many steps and crops.

    ValueError if parts other than the transforms are fixed: nothing counts those yet.
    """
    steps = run["steps"] if steps is None else steps
    images = run["images_seen"] if images is None else images
    pixels = images * run["patch_size"] ** 2
    transforms, rest = macs_per_pixel(run["model"], run["N"], run["M"])
    half = transforms / 2  # g_s mirrors g_a
    fixed = set(run.get("fixed") or ())
    if not fixed <= set(TRANSFORMS):
        raise ValueError(f"Run {run['run_id']} fixed {', '.join(sorted(fixed))}.")
    if fixed == set(TRANSFORMS):
        analysed = (run.get("latent_views") or 1) * training_pixels()
        return Spent(steps, pixels, round(TRAINED * rest * pixels + half * analysed))
    factors = [FIXED if part in fixed else TRAINED for part in TRANSFORMS]
    return Spent(steps, pixels, round((half * sum(factors) + TRAINED * rest) * pixels))


def lineage(path: Path) -> Spent:
    """The cost of a checkpoint: of every run that its weights went through."""
    return sum(map(spent, ancestors(path)), Spent())


def lineages(root: Path) -> dict[str, list[dict]]:
    """Every run that a checkpoint of the folder comes from, by id: itself, at its longest, and
    the runs before it, as far as they were taken over."""
    found: dict[str, tuple[tuple[int, int, bool], list[dict]]] = {}
    for path in sorted(root.rglob("epoch_*.safetensors")):
        runs = ancestors(path)
        for k, run in enumerate(runs):
            told = lineage_of(runs, k)
            reach = run["steps"] or 0, len(told), k == 0  # its own checkpoint knows it best
            if run["run_id"] not in found or reach > found[run["run_id"]][0]:
                found[run["run_id"]] = reach, told
    return {run_id: told for run_id, (_, told) in found.items()}


def lineage_of(runs: list[dict], k: int) -> list[dict]:
    """The lineage of runs[k] from that of runs[0], a later one: without what others joined."""
    later = {run["run_id"] for run in runs[:k]}
    for i in range(k + 1, len(runs)):
        if runs[i].get("joined_by", JOINED_BY.get(runs[i]["run_id"])) in later:
            return runs[k:i]
    return runs[k:]


def finals(root: Path) -> set[str]:
    """The ids of the runs that the study's checkpoints, trunks aside, come from."""
    paths = root.glob("*/epoch_*.safetensors")
    return {run["run_id"] for path in paths for run in ancestors(path)[:1]}


def to_first_photographs(run: dict) -> float | None:
    """What a run's validations are multiplied by; None where nothing tells."""
    seen = run.get("data_fingerprint") or SEEN.get(run["run_id"], THREE_FOLDERS)
    if seen == THREE_FOLDERS:
        return 1.0
    rows = [r for r in read_rows(STATISTICS / "held_out.csv") if float(r["lmbda"]) == run["lmbda"]]
    own = [r for r in rows if r["model"] == run["model"]] or rows
    losses = {r["data_fingerprint"]: float(r["loss"]) for r in reversed(own)}
    return losses[THREE_FOLDERS] / losses[seen] if seen in losses else None


def curve_of(run: dict, final: bool) -> list[dict[str, str]]:
    """The rows of a run's curve that have a validation, brought to the first photographs; none
    where it is not kept or does not compare."""
    factor = to_first_photographs(run)
    if factor is None:
        return []
    path = curve_file(run, final, STATISTICS)
    rows = [row for row in read_rows(path) if row["val_loss"]] if path.exists() else []
    if factor == 1:
        return rows
    return [row | {"val_loss": number(factor * float(row["val_loss"]), 6)} for row in rows]


def measurements(root: Path = Path("ckpts")) -> list[dict[str, str]]:
    """The rows of compute.csv: models in the study's order, then lambdas, runs and steps.

    "rate" is the schedule: "constant", or "falling" for a run that cools down; "checkpoint" says
    of the last row of a run that the study's final weights are its.
    """
    rows = []
    last = finals(root)
    for run, *before in lineages(root).values():
        base = sum(map(spent, before), Spent())
        curve = curve_of(run, run["run_id"] in last)
        constant = all(float(row["lr"]) == run["lr"] for row in curve)
        rows += [
            {
                **{name: str(run[name]) for name in ("model", "N", "M", "lmbda")},
                "run": run["run_id"][:6],
                "step": row["step"],
                "rate": "constant" if constant else "falling",
                **(base + spent(run, int(row["step"]), int(row["images"]))).cells(),
                "val_loss": row["val_loss"],
                "checkpoint": "final" if row is curve[-1] and run["run_id"] in last else "",
            }
            for row in curve
        ]
    return sorted(rows, key=lambda r: (*_key(r), r["run"], int(r["step"])))


def _key(row: dict[str, str]) -> tuple:
    return STUDIED.index(row["model"]), int(row["N"]), int(row["M"]), float(row["lmbda"])


def points_of(rows: list[dict[str, str]]) -> tuple[str, list[tuple[float, float]]]:
    """What to fit of the rows of one model and lambda: what it is, and (petamacs, loss).

    All validations at a constant rate; where no run had one, the ends of the runs, but for those
    that one with less compute undercuts: in the midst of a cool-down the loss tells little.
    """
    if constant := [r for r in rows if r["rate"] == "constant"]:
        return "constant rate", sorted(map(_point, constant))
    ends = sorted(_point(list(own)[-1]) for _, own in groupby(rows, lambda r: r["run"]))
    return "ends of runs", [p for k, p in enumerate(ends) if all(p[1] < q[1] for q in ends[:k])]


def _point(row: dict[str, str]) -> tuple[float, float]:
    return float(row["lineage_petamacs"]), float(row["val_loss"])


def target(model: str, lmbda: float, held_out: float) -> dict[str, str]:
    """The held-out loss at which we expect to meet CompressAI's zoo; {} where nothing tells.

    The zoo's weights are not at hand, and Kodak is not the held-out photographs: what our final
    checkpoint has there (`held_out`) is multiplied by the zoo's loss over ours, both on Kodak and
    both from mean rate and mean PSNR.
    """
    try:
        quality = ZOO_LAMBDAS["mse"].index(lmbda)
        zoo = reference_curve(TWINS[model].published, STATISTICS)
        rows = read_rows(STATISTICS / f"{model}.csv")
        place = [float(row["lmbda"]) for row in rows].index(lmbda)
    except (DataError, KeyError, ValueError):  # not of the zoo, or not tested
        return {}
    ours = measured_curve(model, STATISTICS)
    kodak = trade_off(ours.bpp[place], ours.psnr[place], lmbda)
    theirs = trade_off(zoo.bpp[quality], zoo.psnr[quality], lmbda)
    values = {"held_out": held_out, "kodak": kodak, "zoo_kodak": theirs}
    values["target"] = held_out * theirs / kodak
    return {name: number(value) for name, value in values.items()}


def fits(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of compute_fits.csv, one for each model, width and lambda of `rows`."""
    wanted = {
        (r["model"], r["lmbda"]): target(r["model"], float(r["lmbda"]), float(r["val_loss"]))
        for r in rows
        if r["checkpoint"]
    }
    made = []
    for _, group in groupby(rows, _key):
        own = list(group)
        through, points = points_of(own)
        row = dict.fromkeys(FIT_COLUMNS, "") | {k: own[0][k] for k in ("model", "N", "M", "lmbda")}
        row |= {"points": str(len(points)), "through": through}
        row |= {"from_petamacs": number(points[0][0]), "to_petamacs": number(points[-1][0])}
        row |= wanted.get((row["model"], row["lmbda"]), {})
        if len(points) >= MIN_POINTS:
            row |= _fitted(fit(points), row["target"])
        made.append(row)
    return made


def _fitted(law: PowerLaw, level: str) -> dict[str, str]:
    cells = {"a": law.a, "b": law.b, "floor": law.floor}
    cells |= {"floor_low": law.floors[0], "floor_high": law.floors[-1], "rms": law.rms}
    if level:
        low, high = law.range_of_meeting(float(level))
        cells |= {"meets_petamacs": law.meets(float(level)), "meets_low": low, "meets_high": high}
    return {name: number(value) for name, value in cells.items()}


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compute",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    rows = measurements()
    for name, made, columns in (
        ("compute", rows, COLUMNS),
        ("compute_fits", fits(rows), FIT_COLUMNS),
    ):
        write_text(STATISTICS / f"{name}.csv", csv_text(made, columns))
        print(f"Wrote {STATISTICS / f'{name}.csv'}.")


if __name__ == "__main__":
    main()
