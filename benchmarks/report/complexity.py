"""Blocks of parameters and operations: the original's two prints, and the true counts."""

from __future__ import annotations

from benchmarks.complexity import BATCH, KODAK
from benchmarks.report.tables import markdown, rows_of, three
from models.presets import short

# Part 4 of the original report, as printed: README_CN.md at commit 069d72f (first pair) and
# README.md at commit c3df350 (second pair) of github.com/Ganlin-Yang/Coding-Summer-Seminar.
PRINTED = {
    "Factorized": ("2.887M", "771.752G", "2.887M", "72.352G"),
    "Hyperprior": ("2.887M", "771.752G", "4.969M", "74.014G"),
    "JointAutoregressiveHierarchicalPriors": ("12.053M", "1.730T", "12.053M", "162.232G"),
    "CheckerboardAutogressive": ("12.053M", "1.747T", "12.053M", "163.792G"),
}


def _of_size(size: tuple[int, int, int]) -> list[dict[str, str]]:
    wanted = tuple(map(str, size))
    return [
        r for r in rows_of("macs") if (r["batch"], r["height"], r["width"]) == wanted
    ]  # fmt: skip


def giga(number: str | float) -> str:
    """MACs in thousands of millions."""
    return f"{float(number) / 1e9:.3f}"


def printed() -> str:
    """The original report's two tables beside the same convention here."""
    large = {(r["model"], r["M"]): r for r in _of_size(BATCH)}
    rows = []
    for r in _of_size(KODAK):
        batch = large.get((r["model"], r["M"]))
        if batch is None:  # printed for the low rates only
            continue
        ours = f"{float(r['thop_parameters']) / 1e6:.3f}M"
        macs = giga(batch["thop_macs"]), giga(r["thop_macs"])
        old_params, old_macs, new_params, new_macs = PRINTED[r["model"]]
        rows.append([
            short(r["model"]), ours, f"{macs[0]}G", old_params, old_macs,
            f"{macs[1]}G", new_params, new_macs,
        ])  # fmt: skip
    header = [
        "model", "parameters, counted here", "MACs of 64x3x256x256, counted here",
        "parameters, first print", "MACs, first print",
        "MACs of 1x3x512x768, counted here", "parameters, second print", "MACs, second print",
    ]  # fmt: skip
    return markdown(header, rows) if rows else "Not counted.\n"


def corrected() -> str:
    """All parameters and true MACs for one Kodak image, by stage."""
    rows = [
        [
            short(r["model"]), f"{r['N']}, {r['M']}", f"{int(r['parameters']):,}",
            *(
                three(float(r[f"{stage}_macs"]) / 1e9)
                for stage in ("transforms", "gdn", "hyperprior", "context", "total")
            ),
            three(float(r["total_macs"]) / (512 * 768) / 1e3),
            three(float(r["thop_macs"]) / 1e9),
            three(float(r["thop_macs"]) / float(r["total_macs"])),
        ]
        for r in _of_size(KODAK)
    ]  # fmt: skip
    header = [
        "model", "N, M", "parameters", "transforms (1e9 MACs)", "GDN", "hyperprior",
        "context", "total", "1e3 MACs per pixel", "thop (1e9 MACs)", "thop / total",
    ]  # fmt: skip
    return markdown(header, rows) if rows else "Not counted.\n"
