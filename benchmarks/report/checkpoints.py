"""How far each checkpoint was trained, from the checkpoints' metadata: the rows of checkpoints.csv.

The cost of a checkpoint is that of its lineage, every run of `train.py` that its weights went
through, each as far as the next one took it. It is counted, not timed: steps, pixels of the crops,
and multiply-accumulates (MACs) of the networks as `benchmarks.complexity` counts them. A trained
part costs 3 times its forward pass (forward, gradients of input and weights), a fixed one once; on
kept latents the transforms cost one analysis of every view of a training photograph. Not counted:
validation, averaging, data, the optimiser, and what an interrupted run did twice.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from benchmarks.complexity import count
from benchmarks.records import number
from evaluation.results import STATISTICS
from evaluation.tables import read
from models import checkpoint
from models.errors import DataError
from models.presets import STUDIED
from training.inheritance import TRANSFORMS, ancestors

COLUMNS = (
    "model", "lmbda", "epoch", "N", "M", "steps", "images_seen", "patch_size", "lr", "hours",
    "hardware", "parent", "data_fingerprint", "digest", "megabytes", "lineage_runs",
    "lineage_steps", "lineage_megapixels", "lineage_petamacs",
)  # fmt: skip
TRAINED, FIXED = 3, 1  # times the forward pass
CKPTS = Path("ckpts")


@cache
def macs_per_pixel(model: str, N: int, M: int) -> tuple[float, float]:
    """MACs of a forward pass for a pixel: of one transform with its GDN, of everything else."""
    counts = count(model, N, M, (1, 64, 64))
    transforms = counts["transforms_macs"] + counts["gdn_macs"]  # g_s mirrors g_a
    return transforms / 2 / 64**2, (counts["total_macs"] - transforms) / 64**2


@cache
def training_pixels() -> int:
    """Pixels of the study's training photographs, which are analysed once to be kept."""
    images = read(STATISTICS / "training" / "images.csv", {"width": int, "height": int, "use": str})
    return sum(i["width"] * i["height"] for i in images if i["use"] == "training")


def pixels(run: dict) -> int:
    """Of all crops of a run."""
    return run["images_seen"] * run["patch_size"] ** 2


def macs(run: dict) -> int:
    """Of a run of a lineage. DataError if parts other than the transforms are fixed."""
    fixed = set(run.get("fixed") or ())
    if not fixed <= set(TRANSFORMS):
        raise DataError(f"Run {run['run_id']} fixed {', '.join(sorted(fixed))}: not counted yet.")
    transform, rest = macs_per_pixel(run["model"], run["N"], run["M"])
    seen = pixels(run) * sum(FIXED if part in fixed else TRAINED for part in TRANSFORMS)
    if len(fixed) == len(TRANSFORMS):
        seen = training_pixels() * (run.get("latent_views") or 1)
    return round(transform * seen + TRAINED * rest * pixels(run))


def checkpoints(root: Path = CKPTS) -> list[dict[str, str]]:
    """A row for each checkpoint of the study, in the order of models and lambdas."""
    rows = []
    for path in sorted(root.glob("*/epoch_*.safetensors")):
        metadata, runs = checkpoint.read_metadata(path), ancestors(path)
        row = {
            **metadata["config"], **metadata["provenance"], **metadata,
            "parent": runs[1]["run_id"] if runs[1:] else "",
            "megabytes": f"{path.stat().st_size / 1e6:.1f}",
            "lineage_runs": len(runs),
            "lineage_steps": sum(run["steps"] for run in runs),
            "lineage_megapixels": number(sum(map(pixels, runs)) / 1e6),
            "lineage_petamacs": number(sum(map(macs, runs)) / 1e15),
        }  # fmt: skip
        rows.append({name: str(row.get(name) or "") for name in COLUMNS})
    return sorted(rows, key=lambda row: (STUDIED.index(row["model"]), float(row["lmbda"])))
