"""How far each checkpoint was trained, from its metadata: the rows of two CSVs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.compute import lineage, lineage_of
from models import checkpoint
from models.presets import STUDIED
from training.inheritance import RUN, ancestors

CHECKPOINT_COLUMNS = (
    "model", "lmbda", "epoch", "N", "M", "steps", "images_seen", "hours", "hardware", "parent",
    "data_fingerprint", "digest", "megabytes", "lineage_steps", "lineage_megapixels",
    "lineage_petamacs",
)  # fmt: skip
RUN_COLUMNS = (*RUN, "parent", "checkpoint")


def checkpoints(root: Path = Path("ckpts")) -> list[dict[str, str]]:
    """One row per checkpoint in the folder, from its metadata."""
    rows = []
    for path in sorted(root.glob("*/epoch_*.safetensors")):
        metadata = checkpoint.read_metadata(path)
        found = {**metadata, **metadata["provenance"]}
        found["megabytes"] = f"{path.stat().st_size / 1e6:.1f}"
        found |= lineage(path).cells()
        _, *before = ancestors(path)  # not the name of a file, which another run may have taken
        found["parent"] = before[0]["run_id"] if before else None
        rows.append({name: str(found.get(name) or "") for name in CHECKPOINT_COLUMNS})
    return sorted(rows, key=lambda r: (STUDIED.index(r["model"]), float(r["lmbda"])))


def training_runs(root: Path = Path("ckpts")) -> list[dict[str, str]]:
    """One row per run of `train.py` that a checkpoint of the folder comes from, parents first.

    A run that others left at different steps is told as far as it is known to have gone.
    "parent" is the run_id of the run before it, "checkpoint" whether its own weights are there.
    """
    runs: dict[str, dict] = {}
    for path in sorted(root.rglob("epoch_*.safetensors")):
        told = ancestors(path)
        for k, run in reversed(list(enumerate(told))):
            _, *before = lineage_of(told, k)
            parent = before[0]["run_id"] if before else None
            run["fixed"] = " ".join(run.get("fixed") or ())
            found = runs.setdefault(run["run_id"], {**run, "parent": parent, "checkpoint": None})
            if (run["steps"] or 0) > (found["steps"] or 0):  # it went on after another had left it
                found |= run
            found |= {k: v for k, v in run.items() if found.get(k) is None}
            found["parent"] = found["parent"] or parent  # not told where it joined another lineage
            found["checkpoint"] = found["checkpoint"] or (
                k == 0 and path.relative_to(root).as_posix()
            )
    return [{name: str(run.get(name) or "") for name in RUN_COLUMNS} for run in runs.values()]
