"""The tables of README.md and report.md: for each marker its CSVs and columns; see `Table`."""

from __future__ import annotations

from functools import partial

import pandas as pd

from benchmarks.report.markdown import POINT, Table
from evaluation import curves
from evaluation.curves import compare, curve_of, load_curve
from evaluation.metrics import bd_psnr
from evaluation.results import STATISTICS
from models.presets import CATALOGUE, STUDIED

Frame = pd.DataFrame


def mean_bytes(images: Frame) -> Frame:
    """Of the files and of their estimates, for each operating point."""
    images["estimate"] = images.eval("estimate_bpp * width * height")
    bits = images.groupby(POINT, sort=False)[["bits", "estimate"]].mean()
    return (bits / 8).reset_index()


def file_rounded_noise(images: Frame, noise: Frame) -> Frame:
    """Mean bytes of files and estimates beside the rate under noise."""
    return mean_bytes(images).merge(noise, on=POINT)


def reconstructions(files: Frame, images: Frame, theirs: Frame) -> Frame:
    """Each codec beside its plain file at the same lambda and the original's."""
    images["codec"], images["image"] = images["model"], images["image"].str.removesuffix(".png")
    images["setting"] = "lambda " + images["lmbda"].astype(str)
    rows = files.merge(images, "left", ["codec", "setting", "image"], suffixes=("", "_2"))
    return rows.merge(theirs, "left", ["codec", "image"], suffixes=("", "_3"))


def against_classical(rows: Frame, metric: str) -> Frame:
    """BD-rates in a metric, a row for each model of the study and a column for each codec."""
    rows = rows[rows["against"].isin(CLASSICAL) & (rows["metric"] == metric)]
    table = rows.pivot(index="curve", columns="against", values="bd_rate_percent")
    return table.loc[list(STUDIED)].reset_index()


def search_gains(rows: Frame) -> Frame:
    """Of each model: BD-rates of 50 and 200 steps against none, in PSNR and in MS-SSIM, and the
    losses and seconds at lambda 0.013."""
    table = []
    for model in STUDIED:
        own = rows[rows["model"] == model]
        by_effort = {
            effort: curve_of(model, own[own["effort"] == effort].to_dict("records"))
            for effort in (0, 50, 200)
        }
        row = {"model": model}
        for effort, metric in ((50, "psnr"), (200, "psnr"), (200, "ms_ssim")):
            gain = compare(by_effort[effort], by_effort[0], metric)["bd_rate_percent"]
            row[f"{metric}_{effort}"] = float(gain)
        for r in own[own["lmbda"] == 0.013].to_dict("records"):
            row |= {f"loss_{r['effort']}": r["loss_percent"], f"s_{r['effort']}": r["seconds"]}
        table.append(row)
    return Frame(table)


def any_rates(rows: Frame, sizes: Frame) -> Frame:
    """BD-rates of four checkpoints and of one, with gains, against the four; how the losses between
    them stand, and the sizes; and CompressAI's models of variable rate against its plain ones."""
    table = []
    for model in STUDIED:
        own = rows[rows["model"] == model]
        gained = own[(own["checkpoints"] > 1) & (own["gain"] != 1)]
        parts = own[own["checkpoints"] > 1], own[own["checkpoints"] == 1]
        plain = curve_of(model, parts[0][parts[0]["gain"] == 1].to_dict("records"))
        pair = (curve_of(model, part.to_dict("records")) for part in parts)
        four, one = (float(compare(c, plain, "psnr")["bd_rate_percent"]) for c in pair)
        near = sizes[sizes["model"] == model]
        table.append({
            "codec": model, "four": four, "one": one, "mean": gained["loss_percent"].mean(),
            "most": gained["loss_percent"].max(), "least_size": near["least_percent"].min(),
            "mean_size": near["mean_percent"].mean(),
        })  # fmt: skip
    for name in ("bmshj2018-hyperprior", "mbt2018-mean", "mbt2018"):
        curve, plain = (load_curve(f"{name}{end}", STATISTICS) for end in ("-vbr", ""))
        one = float(compare(curve, plain, "psnr")["bd_rate_percent"])
        table.append({"codec": f"CompressAI {name}-vbr", "one": one})
    return Frame(table)


def equal_terms(rows: Frame) -> Frame:
    """The runs of one prior, lambda and length: means over seeds and images, and by how many
    percent its file of an image is larger than that of another prior, same seed and image: the
    mean, over seeds first, its 95 % interval over images, and the means of the seeds."""
    table = []
    for (lmbda, steps), own in rows.groupby(["lmbda", "steps"], sort=False):
        sizes = own.pivot(index=["image", "seed"], columns="prior", values="bytes")
        for prior, runs in own.groupby("prior", sort=False):
            row = {"lmbda": lmbda, "steps": steps, "prior": prior, "seeds": runs["seed"].nunique()}
            row |= {name: runs[name].mean() for name in ("bpp", "psnr", "held_out_bpp")}
            for key, other in AGAINST.items():
                if other != prior and other in sizes:
                    change = (100 * (sizes[prior] / sizes[other] - 1)).dropna()
                    values = curves.mean_interval(change.groupby("image").mean())
                    row |= zip((key, f"{key}_low", f"{key}_high"), values, strict=True)
                    if row["seeds"] > 1:
                        seeds = change.groupby("seed").mean()
                        row |= {f"{key}_least": seeds.min(), f"{key}_most": seeds.max()}
            table.append(row)
    return Frame(table)


def original_curves(*_: Frame) -> Frame:
    """BD-rates of the original's curves against published ones and the one before; BD-PSNR."""
    rows = []
    for model, before in {STUDIED[0]: None, **dict(curves.PAIRS)}.items():
        curve = load_curve(model + curves.ORIGINAL, STATISTICS)
        published = CATALOGUE[model].published
        names = {name: name for name in ("JPEG", "JPEG2000", "BPG444", published)}
        names |= {"before": before + curves.ORIGINAL} if before else {}
        others = {key: load_curve(name, STATISTICS) for key, name in names.items()}
        row = {k: float(compare(curve, c, "psnr")["bd_rate_percent"]) for k, c in others.items()}
        ends = (zip(*c.pairs("psnr"), strict=True) for c in (others[published], curve))
        psnr = bd_psnr(*next(ends), *next(ends)).value
        rows.append(row | {"model": model, "other": before, "same": row[published], "psnr": psnr})
    return Frame(rows)


MODEL, LAMBDA = ("model", "{model:short}"), ("lambda", "{lmbda}")
WIDTHS, SIDE = ("model (N, M)", "{model:short} ({N}, {M})"), ("direction", "{direction}")
RATE, PSNR = ("rate (bpp)", "{bpp:three}"), ("PSNR (dB)", "{psnr:.2f}")
COST_OF_ALL = [
    ("steps in all", "{lineage_steps:,.0f}"), ("megapixels", "{lineage_megapixels:three}"),
    ("1e15 MACs", "{lineage_petamacs:three}"),
]  # fmt: skip
AGAINST = {"scale": "scale", "means": "mean and scale", "causal": "causal context"}
EQUAL_TERMS = [
    ("prior", "{prior}"), ("seeds", "{seeds}"), RATE,
    ("against scale", "{scale:+.1f} % [{scale_low:+.1f}, {scale_high:+.1f}]"),
    ("its seeds", "{scale_least:+.1f} to {scale_most:+.1f}"),
    *((f"against {AGAINST[key]}", f"{{{key}:+.1f}} % [{{{key}_low:+.1f}}, {{{key}_high:+.1f}}]")
      for key in ("means", "causal")),
]  # fmt: skip
CLASSICAL = (*curves.MEASURED, *curves.PUBLISHED)
PER_IMAGE = (
    "{image_mean_percent:+.1f} % [{image_interval_low_percent:+.1f}, "
    "{image_interval_high_percent:+.1f}]"
)
SHORT_RUN = [  # of runs that differ in one thing
    ("run", "{run}"), ("held-out loss after 50 steps", "{val_loss:.3f}"),
    ("after 300 steps", "{val_loss_2:.3f}"), ("rate (bpp)", "{val_bpp_2:three}"),
    ("PSNR (dB)", "{val_psnr_2:.2f}"), ("seconds", "{seconds_2:three}"),
]  # fmt: skip
SECONDS, TRANSFORMS = ("seconds", "{seconds:three}"), ("transforms (s)", "{transforms_s:three}")
ENTROPY = ("entropy coding (s)", "{entropy_s:three}")
TWIN: dict = {  # our rows in fp32, CompressAI's to their right
    "beside": ("codec", "fp32", "CompressAI"), "words": 2,
    "on": ["model", "direction", "height", "width"],
}  # fmt: skip
THEIRS = "reference/seminar_2022_results"

TABLES: dict[str, Table] = {
    "results": Table("{model}", [
        MODEL, LAMBDA, RATE, PSNR, ("MS-SSIM (dB)", "{ms_ssim:decibel}"),
    ]),
    "bd_rates": Table("bd_rate", [
        ("our curve", "{curve:short}"), ("against", "{against:short}"),
        ("pooled, PSNR", "{bd_rate_percent:+.1f} %"),
        ("pooled, MS-SSIM", "{bd_rate_percent_2:+.1f} %"), ("per image, PSNR", PER_IMAGE),
    ], where=f"curve in {list(STUDIED)} and against not in {list(CLASSICAL)}",
       beside=("metric", "psnr", "ms_ssim"), on=["curve", "against"], words=2),
    **{
        name: Table("bd_rate", [
            ("our curve", "{curve:short}"), *((name, f"{{{name}:+.1f}} %") for name in CLASSICAL),
        ], rows=partial(against_classical, metric=metric))
        for name, metric in (("bd_classical", "psnr"), ("bd_classical_ms_ssim", "ms_ssim"))
    },
    "images": Table("training/images", [
        ("repository", "[{repository}](https://github.com/{repository})"),
        ("licence", "{licence}"), ("photographs", "{count}"),
    ], rows=lambda images: images.value_counts(["repository", "licence"]).reset_index(), words=2),
    "training": Table("checkpoints", [
        MODEL, LAMBDA, ("N, M", "{N}, {M}"), ("steps of the last run", "{steps:,.0f}"),
        ("crops a step", "{batch:.0f} x {patch_size}x{patch_size}"), ("peak rate", "{lr}"),
        ("hours", "{hours:three}"), ("runs in all", "{lineage_runs}"), *COST_OF_ALL,
    ], computed={"batch": "images_seen / steps"}),
    **{
        name: Table(name, SHORT_RUN, beside=("step", 50, 300), on=["run"])
        for name in ("optimizers", "seeds", "warm_start", "kept_latents")
    },
    "train_speed": Table("train_speed", [
        WIDTHS, ("step", "{step}"), ("crops", "{batch} x {crop}x{crop}"),
        ("seconds", "{seconds:three}"), ("crops per second", "{images_per_second:three}"),
        ("times faster", "{times_faster:three}"),
    ], words=2),
    "exactness": Table("integer_rate", [
        MODEL, LAMBDA, RATE, ("integers for floats", "{integers_percent:+.3f} %"),
        ("range coder", "{coder_percent:+.3f} %"), ("together", "{together_percent:+.3f} %"),
    ], rows=lambda frame: frame.set_index("model").loc[list(STUDIED)].reset_index(),
       computed={"lmbda": "weights.str.replace('.*lmbda_|.safetensors', '', regex=True)"}),
    "float_context": Table("float_context", [
        LAMBDA, ("latents", "{latents}"), ("broken", "{broken}"), ("indexes", "{indexes}"),
        ("means", "{means}"),
    ]),
    "range_coder": Table("range_coder", [
        ("coder", "{coder}"), ("calls", "{calls:,.0f}"), ("encoding (ms)", "{encode_ms:three}"),
        ("decoding (ms)", "{decode_ms:three}"),
        ("bytes above the entropy", "{over_entropy_percent:+.3f} %"),
    ]),
    "coding": Table("speed", [
        WIDTHS, SIDE, SECONDS, TRANSFORMS, ENTROPY, ("CompressAI (s)", "{seconds_2:three}"),
        ("CompressAI / ours", "{compressai_over_ours:three}"),
    ], where="height == 512", **TWIN),
    "speed": Table("speed", [
        WIDTHS, SIDE, ("megapixels", "{megapixels}"), SECONDS, ("least, most", "{least}, {most}"),
        TRANSFORMS, ENTROPY, ("peak memory (MB)", "{peak_mb:,.0f}"),
        ("CompressAI (s)", "{seconds_2:three}"), ("its memory (MB)", "{peak_mb_2:,.0f}"),
        ("CompressAI / ours", "{compressai_over_ours:three}"),
    ], **TWIN),
    "orders": Table("orders", [
        ("order", "{order}"), ("megapixels", "{megapixels}"), ("steps", "{steps:,.0f}"),
        ("seconds", "{seconds:three}"), ("least, most", "{least}, {most}"),
        ("seconds per megapixel", "{seconds_per_megapixel:three}"),
    ]),
    "byte_products": Table("codec_speed", [
        WIDTHS, SIDE, ("ours, fp32 (s)", "{ours_s:three}"), ("ours, bf16 (s)", "{ours_s_2:three}"),
        ("CompressAI (s)", "{compressai_s:three}"),
        ("CompressAI / ours, fp32", "{compressai_over_ours:three}"),
        ("CompressAI / ours, bf16", "{compressai_over_ours_2:three}"),
    ], where="device == 'cpu' and M == 320", beside=("precision", "fp32", "bf16"),
       on=["model", "N", "M", "device", "direction"], words=2),
    "precision": Table("precision", [
        MODEL, LAMBDA, ("PSNR in fp32 (dB)", "{psnr:.2f}"),
        ("read in bf16 (dB)", "{reader_db:+.4f}"),
        ("written and read in bf16 (dB)", "{both_db:+.4f}"), ("rate (%)", "{rate_percent:+.3f}"),
        ("symbols that differ (%)", "{symbols_percent:three}"),
        ("largest difference of a pixel (levels of 255)", "{largest_level}"),
    ]),
    "scaling": Table("scaling", [
        MODEL, ("megapixels", "{megapixels:three}"),
        ("encoding (s per megapixel)", "{seconds_per_megapixel:three}"),
        ("decoding (s per megapixel)", "{seconds_per_megapixel_2:three}"),
        ("peak memory, encoding (MB)", "{peak_mb:,.0f}"), ("decoding (MB)", "{peak_mb_2:,.0f}"),
    ], beside=("direction", "compress", "decompress"), on=["model", "megapixels"]),
    "classical": Table("classical_agreement", [
        ("codec", "{codec}"), ("points in common", "{matched_points}"),
        ("largest difference in rate (%)", "{max_bpp_difference_percent:.2f}"),
        ("in PSNR (dB)", "{max_psnr_difference_db:.3f}"), ("BD-rate (%)", "{bd_rate_percent:.2f}"),
    ]),
    "search": Table("search", [
        MODEL, ("BD-rate, PSNR, 50 steps", "{psnr_50:+.1f} %"),
        ("200 steps", "{psnr_200:+.1f} %"), ("MS-SSIM, 200 steps", "{ms_ssim_200:+.1f} %"),
        ("loss, 50 / 200 / 1,000", "{loss_50:+.1f} / {loss_200:+.1f} / {loss_1000:+.1f} %"),
        ("seconds of 200 steps", "{s_200:three}"),
    ], rows=search_gains),
    "priors": Table("per_image/priors", EQUAL_TERMS, rows=equal_terms,
                    where="lmbda == 0.013 and steps == 600"),
    "all_priors": Table("per_image/priors", [
        LAMBDA, ("steps", "{steps}"), *EQUAL_TERMS, PSNR,
        ("held out (bpp)", "{held_out_bpp:three}"),
    ], rows=equal_terms),
    "rates": Table("per_image/{model} noise", [
        MODEL, LAMBDA, ("file (bytes)", "{bits:,.0f}"), ("rounded (bytes)", "{estimate:,.0f}"),
        ("file above rounded", "{percent:+.2f} %"),
        ("noise above rounded, 4 images", "{noise:+.1f} %"),
    ], rows=file_rounded_noise, where="lmbda in [0.0067, 0.0483]", computed={
        "percent": "100 * (bits / estimate - 1)", "noise": "100 * (noise_bpp / rounded_bpp - 1)",
    }),
    "search_all": Table("search", [
        MODEL, LAMBDA, ("steps", "{effort}"), RATE, PSNR, ("encoding (s)", "{seconds:three}"),
        ("loss against no search", "{loss_percent:+.1f} %"),
        ("BD-rate against no search", "{bd_rate_percent:+.1f} %"),
    ], where="effort > 0"),
    "any_rate": Table("any_rate any_size", [
        ("codec", "{codec:short}"), ("four and gains, BD-rate", "{four:+.2f} %"),
        ("one model alone", "{one:+.2f} %"),
        ("loss between checkpoints, mean, most", "{mean:+.2f}, {most:+.2f} %"),
        ("size over target, least, mean", "{least_size:.1f}, {mean_size:.1f} %"),
    ], rows=any_rates),
    "any_rate_times": Table("any_rate_times", [
        MODEL, ("flags", "`{flags}`"), ("seconds", "{seconds:three}"),
        ("least, most", "{least}, {most}"), ("over plain", "{over_plain:.2f}"),
    ], words=2),
    "reconstructions": Table("reconstructions per_image/{model} reference/seminar_2022_kodim19", [
        ("codec", "{codec:short}"), ("setting", "{setting}"), RATE, PSNR,
        ("without search: rate (bpp)", "{bpp_2:three}"), ("PSNR (dB)", "{psnr_2:.2f}"),
        ("original: rate (bpp)", "{bpp_3:.3f}"), ("PSNR (dB)", "{psnr_3:.3f}"),
    ], rows=reconstructions, words=2),
    "complexity_printed": Table("macs reference/seminar_2022_complexity", [
        MODEL, ("images", "{batch} x {height}x{width}"),
        ("parameters, counted here", "{mega:.3f}M"), ("printed", "{parameters_2}"),
        ("MACs, counted here", "{giga:.3f}G"), ("printed", "{macs}"),
    ], on=["model", "batch"], where="M == 192 and batch == 1", words=2, computed={
        "mega": "thop_parameters / 1e6", "giga": "thop_macs / 1e9",
    }),
    "complexity": Table("macs", [
        MODEL, ("N, M", "{N}, {M}"), ("parameters", "{parameters:,.0f}"),
        ("transforms (1e9 MACs)", "{transforms_macs:giga}"), ("GDN", "{gdn_macs:giga}"),
        ("hyperprior", "{hyperprior_macs:giga}"), ("context", "{context_macs:giga}"),
        ("total", "{total_macs:giga}"), ("thop / total", "{ratio:three}"),
    ], where="batch == 1", computed={"ratio": "thop_macs / total_macs"}),
    "original_points": Table(f"{THEIRS} {{model}} checkpoints", [
        MODEL, LAMBDA, ("rate (bpp), theirs", "{bpp:three}"), ("ours", "{bpp_2:three}"),
        ("PSNR (dB), theirs", "{psnr_rgb_db:.2f}"), ("ours", "{psnr:.2f}"),
        ("encoding (s), theirs", "{encode_s:three}"), ("ours", "{time(enc):three}"),
        ("decoding (s), theirs", "{decode_s:three}"), ("ours", "{time(dec):three}"),
        ("our training steps", "{lineage_steps:,.0f}"),
    ]),
    "original_curves": Table(f"{THEIRS} reference/kodak_rd", [
        ("original's curve", "{model:short}"), ("JPEG", "{JPEG:+.1f} %"),
        ("JPEG2000", "{JPEG2000:+.1f} %"), ("BPG 4:4:4", "{BPG444:+.1f} %"),
        ("same architecture, published", "{same:+.1f} %"), ("the same, PSNR", "{psnr:+.2f} dB"),
        ("original's model before it", "{before:+.1f} % ({other:short})"),
    ], rows=original_curves),
    "original_checkerboard": Table(f"{THEIRS} full_grids", [
        LAMBDA, ("their Joint (bpp)", "{bpp:three}"), ("their Checkerboard (bpp)", "{bpp_2:three}"),
        ("ratio", "{times:.2f}"), ("Checkerboard's PSNR (dB)", "{psnr_rgb_db_2:.2f}"),
        ("against Joint's (dB)", "{change:+.2f}"),
        ("ours: two full grids over once", "{ratio:.2f}"),
    ], beside=("model", *STUDIED[2:]), on=["lmbda"],
       computed={"times": "bpp_2 / bpp", "change": "psnr_rgb_db_2 - psnr_rgb_db"}),
    "fuzz": Table("fuzz", [
        MODEL, ("damaged files", "{cases:,.0f}"), ("refused in a sentence", "{refused:,.0f}"),
        ("decoded", "{decoded:,.0f}"), ("failures left", "{failures:,.0f}"),
        ("CPU (s)", "{seconds:.1f}"),
    ], rows=lambda models: pd.concat([models, Frame([{**models.sum(), "model": "all"}])])),
}  # fmt: skip
