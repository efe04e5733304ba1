"""The block on damaged files of the report: statistics/fuzz.csv and failures_found.csv.

The first is written by `python -m tests.fuzz --out statistics/fuzz.csv`; the second is kept by
hand, one row per failure that tests or reviews found, with the test that keeps it away.
"""

from __future__ import annotations

from collections import Counter

from benchmarks.report.tables import markdown, rows_of
from models.presets import short

COUNTS = ("cases", "refused", "decoded", "failures")
HEADER = ["model", "damaged files", "refused in a sentence", "decoded", "failures left", "CPU (s)"]


def fuzz() -> str:
    """Cases tried, failures left, and how many failures were found on the way."""
    measured, failures = rows_of("fuzz"), rows_of("failures_found")
    if not measured:
        return "Not measured.\n"
    rows = [
        [short(r["model"]), *(f"{int(r[name]):,}" for name in COUNTS), r["seconds"]]
        for r in measured
    ]
    sums = [f"{sum(int(r[name]) for r in measured):,}" for name in COUNTS]
    rows.append(["all", *sums, f"{sum(float(r['seconds']) for r in measured):.1f}"])
    kinds = Counter(r["found_by"].lower() for r in failures).most_common()
    listed = ", ".join(f"{kind} {count}" for kind, count in kinds)
    return (
        f"{markdown(HEADER, rows)}\n{len(failures)} failures were found on the way and mended "
        f"({listed}). Each has a test that keeps it away: "
        "[`failures_found.csv`](statistics/failures_found.csv).\n"
    )
