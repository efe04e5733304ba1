"""The block on damaged files of the reports: statistics/fuzz.csv and failures_found.csv.

The first is written by `python -m tests.fuzz --out statistics/fuzz.csv`; the second is kept by
hand, one row per failure that tests or reviews found, with the test that keeps it away.
"""

from __future__ import annotations

from benchmarks.report.tables import markdown, rows_of
from models.presets import short

COUNTS = ("cases", "refused", "decoded", "failures")
HEADER = ["model", "damaged files", "refused in a sentence", "decoded", "failures left", "CPU (s)"]
HEADER_CN = ["模型", "受损文件", "以一句话拒绝", "解出图像", "剩余失败", "CPU 时间 (s)"]


def _table(header: list[str], total: str) -> str:
    found = rows_of("fuzz")
    rows = [
        [short(r["model"]), *(f"{int(r[name]):,}" for name in COUNTS), r["seconds"]] for r in found
    ]
    sums = [f"{sum(int(r[name]) for r in found):,}" for name in COUNTS]
    rows.append([total, *sums, f"{sum(float(r['seconds']) for r in found):.1f}"])
    return markdown(header, rows)


def _list(column: str) -> str:
    found = rows_of("failures_found")
    lines = []
    for r in found:
        cause = f"{r['found_by']}: " if column == "failure" else ""
        lines.append(f"* {cause}{r[column]} (`{r['test']}`)\n")
    return "".join(lines)


def fuzz() -> str:
    """Cases tried, failures left, and failures found on the way."""
    if not rows_of("fuzz"):
        return "Not measured.\n"
    count = len(rows_of("failures_found"))
    return (
        f"{_table(HEADER, 'all')}\n{count} failures were found on the way, each put right and kept "
        f"away by the test in brackets:\n\n{_list('failure')}"
    )


def fuzz_cn() -> str:
    if not rows_of("fuzz"):
        return "尚未测量。\n"
    count = len(rows_of("failures_found"))
    return (
        f"{_table(HEADER_CN, '合计')}\n"
        f"过程中发现 {count} 处失败，均已改正，括号内的测试防止其再现：\n\n"
        f"{_list('failure_cn')}"
    )
