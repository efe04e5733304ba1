"""Blocks that show one CSV: results, BD-rates, training, what exactness costs, classical codecs."""

from __future__ import annotations

from collections import Counter

from benchmarks.report.comparisons import lineage
from benchmarks.report.tables import (
    fixed,
    hardware,
    machine,
    markdown,
    percent,
    rows_of,
    span,
    three,
)
from evaluation.metrics import ms_ssim_db
from models.presets import CATALOGUE, STUDIED, short

COST = ["training: steps", "megapixels", "1e15 MACs"]  # of a whole lineage


def cost(model: str, lmbda: str) -> list[str]:
    """The cells of `COST` of an operating point."""
    told = lineage(model, lmbda)
    steps = told.get("lineage_steps")
    rest = (three(told.get(f"lineage_{name}")) for name in ("megapixels", "petamacs"))
    return [f"{int(steps):,}" if steps else "-", *rest]


def results() -> str:
    """Our operating points: rate, quality, seconds, and what their training has cost."""
    rows = [
        [
            short(model), f"{float(r['lmbda']):g}", three(r["bpp"]), fixed(r["psnr"], 2),
            fixed(ms_ssim_db(float(r["ms_ssim"])) if r["ms_ssim"] else None, 2),
            fixed(r["time(enc)"], 2), fixed(r["time(dec)"], 2), *cost(model, r["lmbda"]),
        ]
        for model in STUDIED for r in rows_of(model)
    ]  # fmt: skip
    header = ["model", "lambda", "rate (bpp)", "PSNR (dB)", "MS-SSIM (dB)", "encoding (s)"]
    header += ["decoding (s)", *COST]
    return markdown(header, rows) if rows else "No results are committed yet.\n"


def curve_name(name: str) -> str:
    """The name of a curve of bd_rate.csv for a reader."""
    for model in STUDIED:
        if name.startswith(model):
            return name.replace(model, short(model), 1)
        if name == CATALOGUE[model].published:
            return f"{name.removeprefix('paper-')}, published"
    return name


def bd_rates() -> str:
    """BD-rates in PSNR and MS-SSIM; a comparison that cannot be made says why."""
    found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for r in rows_of("bd_rate"):
        found.setdefault((r["curve"], r["against"]), {})[r["metric"]] = r
    rows = []
    for (curve, against), metrics in found.items():
        cells = [curve_name(curve), curve_name(against)]
        for r in (metrics.get("psnr"), metrics.get("ms_ssim")):
            value = r and r["bd_rate_percent"]
            common = f" ({three(r['range_low_db'])} to {three(r['range_high_db'])} dB)" if r else ""
            cells.append(f"{percent(float(value))}{common}" if value else "-")
        reasons = (r["reason"] for r in metrics.values() if r["reason"])
        why = "; ".join(dict.fromkeys(reasons)) or "-"
        for model in STUDIED:
            why = why.replace(model, short(model))
        rows.append([*cells, why])
    header = ["our curve", "against", "BD-rate, PSNR", "BD-rate, MS-SSIM", "why there is none"]
    return markdown(header, rows, 2) if rows else "No BD-rates are committed yet.\n"


def training() -> str:
    """The last run of every checkpoint, and how many runs its weights went through."""
    runs = {r["run_id"]: r for r in rows_of("training_runs")}
    rows = []
    for r in runs.values():
        folder = r["checkpoint"].split("/")[0]
        if folder not in STUDIED:  # a run before the last one, or a trunk
            continue
        count, before = 1, r
        while before := runs.get(before["parent"], {}):
            count += 1
        batch = int(r["images_seen"]) / int(r["steps"])
        rows.append([
            short(r["model"]), f"{float(r['lmbda']):g}", f"{r['N']}, {r['M']}",
            f"{int(r['steps']):,}", f"{batch:.0f} x {r['patch_size']}x{r['patch_size']}", r["lr"],
            three(r["hours"]), str(count),
        ])  # fmt: skip
    rows.sort(key=lambda row: ([short(m) for m in STUDIED].index(row[0]), float(row[1])))
    header = ["model", "lambda", "N, M", "steps of the last run", "crops a step", "peak rate"]
    header += ["hours", "runs in all"]
    if not rows:
        return "No checkpoints are committed yet.\n"
    machines = sorted({hardware(r["hardware"]) for r in runs.values() if r["hardware"]})
    return f"{markdown(header, rows)}\nHardware: {'; '.join(machines)}.\n"


def images() -> str:
    """The training photographs by where they come from."""
    found = rows_of("training/images")
    counts = Counter((r["repository"], r["licence"]) for r in found)
    rows = [
        [f"[{place}](https://github.com/{place})", licence, str(count)]
        for (place, licence), count in counts.most_common()
    ]
    return markdown(["repository", "licence", "photographs"], rows, 2)


def ablation(name: str) -> str:
    """The runs of one of benchmarks.ablations: their losses early and late, and their cost."""
    runs: dict[str, list[dict[str, str]]] = {}
    for row in rows_of(name):
        runs.setdefault(row["run"], []).append(row)
    if not runs:
        return "Not measured yet.\n"
    rows = [
        [
            run, fixed(first["val_loss"], 3), fixed(last["val_loss"], 3), three(last["val_bpp"]),
            fixed(last["val_psnr"], 2), three(last["seconds"]),
        ]
        for run, (first, *_, last) in runs.items()
    ]  # fmt: skip
    first, *_, last = next(iter(runs.values()))
    header = [
        "run", f"held-out loss after {first['step']} steps", f"after {last['step']} steps",
        "rate (bpp)", "PSNR (dB)", "seconds",
    ]  # fmt: skip
    return markdown(header, rows)


def train_speed() -> str:
    """Seconds of a training step beside CompressAI's arithmetic."""
    rows = [
        [
            f"{short(r['model'])} ({r['N']}, {r['M']})", r["step"],
            f"{r['batch']} x {r['crop']}x{r['crop']}", three(r["seconds"]),
            three(r["images_per_second"]), three(r["times_faster"]),
        ]
        for r in rows_of("train_speed")
    ]  # fmt: skip
    header = ["model (N, M)", "step", "crops", "seconds", "crops per second", "times faster"]
    table = markdown(header, rows, 2)
    return f"{table}\nMachine: {machine('train_speed')}.\n" if rows else "Not measured.\n"


def gap() -> str:
    """Real files against the estimate of `forward`, means over images."""
    rows = []
    for model in STUDIED:
        found = rows_of(f"per_image/{model}")
        for lmbda in dict.fromkeys(r["lmbda"] for r in found):
            at = [r for r in found if r["lmbda"] == lmbda]
            bits, estimate = mean_bits(at)
            rows.append([
                short(model), lmbda, f"{bits / 8:,.1f}", f"{estimate / 8:,.1f}",
                f"{(bits - estimate) / 8:+.1f}", f"{100 * (bits / estimate - 1):+.2f} %",
            ])  # fmt: skip
    header = ["model", "lambda", "file (bytes)", "estimate (bytes)", "gap (bytes)", "gap"]
    return markdown(header, rows) if rows else "No results are committed yet.\n"


def mean_bits(rows: list[dict[str, str]]) -> tuple[float, float]:
    """Mean bits of the files of images, and of their estimates."""
    bits = sum(int(r["bits"]) for r in rows)
    areas = [int(r["width"]) * int(r["height"]) for r in rows]
    pairs = zip(rows, areas, strict=True)
    estimate = sum(float(r["estimate_bpp"]) * area for r, area in pairs)
    return bits / len(rows), estimate / len(rows)


def exactness() -> str:
    """What integers and the range coder cost in rate, for the same symbols."""
    found = sorted(rows_of("integer_rate"), key=lambda r: STUDIED.index(r["model"]))
    parts = ("integers", "coder", "together")
    rows = [
        [
            short(r["model"]), r["weights"].rpartition("lmbda_")[2].removesuffix(".safetensors"),
            three(r["bpp"]),
            *(f"{float(r[f'{name}_percent']):+.3f} %" for name in parts),
        ]
        for r in found
    ]  # fmt: skip
    header = ["model", "lambda", "rate (bpp)", "integers for floats", "range coder", "together"]
    return markdown(header, rows) if rows else "Not measured.\n"


def range_coder() -> str:
    """The two range coders at one call and at the wavefront's number of calls."""
    rows = [
        [
            {"ours": "constriction, as used here", "compressai": "CompressAI's rANS"}[r["coder"]],
            f"{int(r['calls']):,}", three(r["encode_ms"]), three(r["decode_ms"]),
            f"{float(r['over_entropy_percent']):+.3f} %",
        ]
        for r in rows_of("range_coder")
    ]  # fmt: skip
    header = ["coder", "calls", "encoding (ms)", "decoding (ms)", "bytes above the entropy"]
    table = markdown(header, rows)
    return f"{table}\nMachine: {machine('range_coder')}.\n" if rows else "Not measured.\n"


def classical() -> str:
    """Classical codecs measured here against the published points."""
    rows = [
        [r["codec"], r["matched_points"] or "-", fixed(r["max_bpp_difference_percent"], 2),
         fixed(r["max_psnr_difference_db"], 3), fixed(r["bd_rate_percent"], 2)]
        for r in rows_of("classical_agreement")
    ]  # fmt: skip
    header = ["codec", "points in common", "largest difference in rate (%)", "in PSNR (dB)",
              "BD-rate (%)"]  # fmt: skip
    return markdown(header, rows) if rows else "Not measured.\n"


def search() -> str:
    """What the encoder's search gains at each effort, and the seconds of an image; what there is
    without it, `results` shows."""
    rows = []
    for r in (r for r in rows_of("search") if r["effort"] != "0"):
        found = (r["loss_percent"], r["bd_rate_percent"])
        gains = [f"{float(gain):+.1f} %" if gain else "-" for gain in found]
        rows.append([
            short(r["model"]), r["lmbda"], r["effort"], three(r["bpp"]), fixed(r["psnr"], 2),
            three(r["seconds"]), *gains,
        ])  # fmt: skip
    header = ["model", "lambda", "steps", "rate (bpp)", "PSNR (dB)", "encoding (s)"]
    header += ["loss against no search", "BD-rate against no search"]
    if not rows:
        return "Not measured yet.\n"
    price = span([float(r["step_s"]) for r in rows_of("search_speed")], ".2f", " s")
    note = f"A step takes {price}. Machine: {machine('search_speed')}."
    return f"{markdown(header, rows)}\n{note}\n"


def reconstructions() -> str:
    """The photograph of the figure: every codec at one rate, and the original's numbers."""
    from benchmarks.report.original import KODIM19

    found = rows_of("reconstructions")
    rows = []
    for r in found:
        plain = ["-", "-"]
        for row in rows_of(f"per_image/{r['codec']}"):
            if row["image"] == f"{r['image']}.png" and r["setting"] == f"lambda {row['lmbda']}":
                plain = [three(row["bpp"]), fixed(row["psnr"], 2)]
        rows.append([
            short(r["codec"]), r["setting"], three(r["bpp"]), fixed(r["psnr"], 2), *plain,
            *KODIM19.get(r["codec"], ("-", "-")),
        ])  # fmt: skip
    header = ["codec", "setting", "rate (bpp)", "PSNR (dB)", "without search: rate (bpp)"]
    header += ["PSNR (dB)", "original: rate (bpp)", "PSNR (dB)"]
    if not rows:
        return "Not measured yet.\n"
    there = {r["codec"] for r in found}
    absent = [short(model) for model in STUDIED if model not in there]
    left = f"\nNo file as small as this was found for: {', '.join(absent)}.\n" if absent else ""
    return markdown(header, rows, 2) + left
