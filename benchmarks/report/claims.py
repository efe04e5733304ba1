"""The table of claims: what the papers and the original say, our evidence, a verdict.

Verdicts that rest on numbers are computed from the CSVs; the others rest on a test or a proof
that the evidence names.
"""

from __future__ import annotations

from benchmarks.report import original, speed, study
from benchmarks.report.blocks import mean_bits
from benchmarks.report.comparisons import (
    NO,
    PART,
    UNTESTED,
    YES,
    compute_ratio,
    in_words,
    our_curve,
    rates_against,
    verdict,
)
from benchmarks.report.tables import STATISTICS, markdown, percent, rows_of, span
from evaluation.curves import classical_curve, reference_curve
from models.errors import DataError
from models.presets import STUDIED, short

FACTORIZED, HYPERPRIOR, JOINT, CHECKERBOARD = STUDIED
SMALL_GAP, SMALL_COST = 1.0, 0.5  # percent
FASTER = 40  # times, in the abstract of He et al.
HALF = 0.05  # bit: two densities that differ by less are as good as each other

Judged = tuple[str, str]  # evidence, verdict


def _classical(model: str, codec: str) -> list[float] | None:
    read = reference_curve if codec == "BPG444" else classical_curve
    try:
        ours = our_curve(model)
        return rates_against(ours, read(codec, STATISTICS)) if ours else None
    except DataError:
        return None


def beats_classical(model: str, *codecs: str) -> Judged:
    """Whether all points of ours need less rate than the classical codecs at equal PSNR.

    Where none does, that refutes nothing: published weights have had far more training.
    """
    found = {codec: _classical(model, codec) or [] for codec in codecs}
    words = (f"{codec}: {in_words(values)}" for codec, values in found.items())
    everything = [value for values in found.values() for value in values]
    judged = verdict(everything)
    short_of = "; published weights have had 4 to 5 million steps" if judged == NO else ""
    return f"ours against {'; '.join(words)}{short_of}", UNTESTED if judged == NO else judged


def beats_ours(model: str, other: str) -> Judged:
    """Whether a model needs less rate than another of ours, and after how much training."""
    curves = our_curve(model), our_curve(other)
    values = rates_against(curves[0], curves[1]) if curves[0] and curves[1] else []
    compute = compute_ratio(model, other)
    cost = f", after {compute:.2f} times the training compute" if compute == compute else ""
    names = f"{short(model)} against {short(other)}"
    return f"{names}: {in_words(values)}{cost}", verdict(values, compute if cost else 1.0)


def estimates() -> Judged:
    """Whether the relaxed rate is that of real files."""
    gaps = []
    for model in STUDIED:
        found = rows_of(f"per_image/{model}")
        for lmbda in {r["lmbda"] for r in found}:
            bits, estimate = mean_bits([r for r in found if r["lmbda"] == lmbda])
            gaps.append(100 * (bits / estimate - 1))
    if not gaps:
        return "no results yet", UNTESTED
    holds = max(map(abs, gaps)) < SMALL_GAP
    return f"files against estimates: {span(gaps, '+.2f', ' %')}", YES if holds else PART


def integers() -> Judged:
    """What exact entropy parameters cost in rate."""
    values = [float(r["integers_percent"]) for r in rows_of("integer_rate")]
    if not values:
        return "not measured", UNTESTED
    holds = max(values) < SMALL_COST
    return f"integers cost {span(values, '+.3f', ' %')} of rate", YES if holds else PART


def checkerboard_speed() -> Judged:
    """Decoding in two steps against serial decoding, whole images."""
    seconds = {
        (r["model"], r["N"], r["M"]): r for r in rows_of("codec_speed")
        if (r["direction"], r["precision"]) == ("decode", "fp32")
    }  # fmt: skip
    found = [
        float(row["compressai_s"]) / float(seconds[CHECKERBOARD, *key[1:]]["ours_s"])
        for key, row in seconds.items()
        if key[0] == JOINT and row["compressai_s"] and (CHECKERBOARD, *key[1:]) in seconds
    ]
    if not found:
        return "not measured", UNTESTED
    judged = YES if min(found) > FASTER else PART if min(found) > 1 else NO
    return (
        f"CompressAI's serial Joint takes {span(found, '.1f')} times as long to decode an image "
        "as our Checkerboard on a CPU, transforms included"
    ), judged


def serial() -> Judged:
    """Whether a causal context forces serial decoding."""
    one, wave, _ = study.steps()
    faster = speed.faster(JOINT, "decode")
    times = f"; {faster} as fast as CompressAI's" if faster else ""
    return f"{wave} steps in place of {one:,}, the same symbols (tested){times}", NO


def original_beats(codec: str, *models: str) -> Judged:
    """Whether the original's own curves are better than a published classical one."""
    try:
        values = {m: original.against(m, codec) for m in models}
    except DataError:
        return "no reference values", UNTESTED
    shown = ", ".join(f"{short(m)} {percent(v)}" for m, v in values.items() if v is not None)
    known = [v for v in values.values() if v is not None]
    return f"BD-rates of its curves against {codec.replace('444', '')}: {shown}", verdict(known)


def below_published() -> Judged:
    """'1 dB lower than the official results'."""
    losses = {m: original.below_published(m) for m in STUDIED}
    shown = ", ".join(f"{short(m)} {v:+.2f} dB" for m, v in losses.items())
    near = [abs(v + 1) < 0.25 for v in losses.values()]
    return f"BD-PSNR of its curves: {shown}", YES if all(near) else PART if any(near) else NO


def piecewise() -> Judged:
    """'As good a performance as the piecewise linear function'."""
    rows = rows_of("univariate_density")
    more = {r["target"]: float(r["chain"]) - float(r["piecewise_linear"]) for r in rows}
    if not more:
        return "not measured", UNTESTED
    shown = ", ".join(f"{name} {value:+.3f}" for name, value in more.items())
    close = [abs(value) < HALF for value in more.values()]
    judged = YES if all(close) else PART if any(close) else NO
    return f"bit per symbol that the chain loses more, at equal size: {shown}", judged


def normalised() -> Judged:
    """'After removing the spatial coupling y basically follows N(0, I)'."""
    found = [r for r in rows_of("side_information") if r["model"] == short(HYPERPRIOR)]
    if not found:
        return "not measured", UNTESTED
    (r,) = found
    before, after = (float(r[f"{key}, neighbour"]) for key in ("|y|", "|normalised y|"))
    tails, std = float(r["kurtosis, after"]), float(r["std, after"])
    good = [abs(std - 1) < 0.1, abs(tails - 3) < 0.5, abs(after) < 0.05]
    return (
        f"y / sigma has standard deviation {std:.2f} and kurtosis {tails:.2f} (normal: 3); the "
        f"correlation of magnitudes of neighbours falls from {before:.2f} to {after:.2f}"
    ), YES if all(good) else PART if any(good) else NO


def complexity() -> Judged:
    """The MACs of the original's part 4."""
    ratios = [
        float(r["thop_macs"]) / float(r["total_macs"]) for r in rows_of("macs") if r["batch"] == "1"
    ]
    if not ratios:
        return "not counted", UNTESTED
    judged = YES if max(ratios) < 1.1 else NO
    return f"its rule gives {span(ratios, '.2f')} times the true number", judged


def subjective() -> Judged:
    """The original's kodim19 beside JPEG's."""
    rows = {r["codec"]: float(r["psnr"]) for r in rows_of("reconstructions")}
    ours = [rows[m] - rows["JPEG"] for m in (FACTORIZED, HYPERPRIOR) if m in rows]
    theirs = [float(original.KODIM19[m][1]) - 23.890 for m in (FACTORIZED, HYPERPRIOR)]
    text = f"PSNR above JPEG's: {span(theirs, '.1f', ' dB')} there"
    if not ours:
        return f"{text}; not measured here", UNTESTED
    judged = YES if min(ours) > 0 else PART if max(ours) > 0 else NO
    return f"{text}, {span(ours, '.1f', ' dB')} here at matched rate", judged


def rows() -> list[list[str]]:
    """Source, claim, evidence, verdict with a link."""
    entries: list[tuple[str, str, Judged, str]] = [
        ("Ballé 2017", "the rate relaxed by noise is that of the codec", estimates(),
         "33-files-against-the-estimate"),
        ("Ballé 2017", "better than JPEG and JPEG 2000",
         beats_classical(FACTORIZED, "JPEG", "JPEG2000"), "35-classical-codecs"),
        ("Ballé 2018", "side information saves rate", beats_ours(HYPERPRIOR, FACTORIZED),
         "32-bd-rates"),
        ("Minnen 2018", "a context and means save more", beats_ours(JOINT, HYPERPRIOR),
         "32-bd-rates"),
        ("Minnen 2018", "better than BPG in PSNR", beats_classical(JOINT, "BPG444"),
         "35-classical-codecs"),
        ("He 2021", "decoding more than 40 times faster than serial", checkerboard_speed(),
         "34-coding-time"),
        ("He 2021", "nearly the rate of the serial model (5 % more at most)", _nearly(),
         "32-bd-rates"),
        ("Ballé 2019", "integers make decoding exact at no loss", integers(),
         "33-files-against-the-estimate"),
        ("original", "K = 4 is as good as a piecewise-linear density", piecewise(),
         "113-the-univariate-density"),
        ("original", "y / sigma follows N(0, I)", normalised(), "122-our-work"),
        ("original", "the context forces strictly serial decoding", serial(), "132-our-work"),
        ("original", "the context model surpasses BPG", original_beats("BPG444", JOINT),
         "53-errata"),
        ("original", "better than JPEG, all models", original_beats("JPEG", *STUDIED),
         "53-errata"),
        ("original", "Hyperprior better than JPEG 2000", original_beats("JPEG2000", HYPERPRIOR),
         "53-errata"),
        ("original", "1 dB below the official results", below_published(), "53-errata"),
        ("original", "better pictures than JPEG at similar rate", subjective(),
         "37-reconstructions"),
        ("original", "the operations of its part 4", complexity(), "4-model-complexity"),
    ]  # fmt: skip
    return [
        [source, claim, evidence, f"[{judged}](#{anchor})"]
        for source, claim, (evidence, judged), anchor in entries
    ]


def _nearly() -> Judged:
    """Checkerboard's rate at equal PSNR, of 5 % more at most."""
    curves = our_curve(CHECKERBOARD), our_curve(JOINT)
    values = rates_against(curves[0], curves[1]) if curves[0] and curves[1] else []
    evidence, _ = beats_ours(CHECKERBOARD, JOINT)
    return evidence, verdict([value - 5 for value in values])


def table() -> str:
    """The table of claims."""
    header = ["who", "claim", "evidence here", "verdict"]
    return markdown(header, rows(), 4)
