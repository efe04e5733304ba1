"""A training step of ours against one of CompressAI's example, same model, batch and crop.

    python -m benchmarks.train_speed [--model Hyperprior] [--N 128] [--M 192] [--batch 8]

Ours is what `train.py` does with Adam: channels_last, fused GDN, fp32 or bf16 autocast,
gradient clipping, exponential average of the weights. Theirs is the arithmetic of
`examples/train.py`: NCHW, fp32, the rate-distortion loss, clipping, Adam, and a second Adam
for the quantiles (ours are solved by bisection). Data loading is left out of both. All run
in one process, in turn. A CPU without bf16 instructions (see machine.json) emulates bf16.

Writes train_speed.csv.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

import models
from benchmarks.records import add_outdir, cpu_flags, number, outdir, print_table, write_csv
from benchmarks.timing import alternate, ratio, spread
from evaluation.reference import import_compressai
from models.cli import choose_device
from models.presets import TWINS
from training.loss import RateDistortion
from training.optimizers import build_optimizer

LMBDA, LEARNING_RATE, CLIP, DECAY = 0.013, 1e-4, 1.0, 0.999


def our_step(name: str, N: int, M: int, x: Tensor, half: bool) -> Callable[[], float]:
    """One optimiser step of `training.loop`, as a function that returns the loss."""
    torch.manual_seed(0)
    model = models.build(name, N, M).to(x.device, memory_format=torch.channels_last).train()
    averaged = copy.deepcopy(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    means = [p for p in averaged.parameters() if p.requires_grad]
    loss, optimizer = RateDistortion(LMBDA), build_optimizer("adam", model, LEARNING_RATE)
    x = x.contiguous(memory_format=torch.channels_last)

    def step() -> float:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=half):
            output = model(x, quantization="noise")
        terms = loss(output, x)
        terms.loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(means, parameters, 1 - DECAY)
        optimizer.zero_grad(set_to_none=True)
        return terms.loss.item()

    return step


def their_step(name: str, N: int, M: int, x: Tensor) -> Callable[[], float]:
    """One step with CompressAI's model and the arithmetic of its example."""
    torch.manual_seed(0)
    theirs = getattr(import_compressai().models, TWINS[name].compressai_class)
    model = theirs(N, M).to(x.device).train()
    auxiliary = [p for n, p in model.named_parameters() if n.endswith(".quantiles")]
    rest = [p for n, p in model.named_parameters() if not n.endswith(".quantiles")]
    optimizer = torch.optim.Adam(rest, lr=LEARNING_RATE)
    auxiliary_optimizer = torch.optim.Adam(auxiliary, lr=1e-3)
    pixels = x.shape[0] * x.shape[2] * x.shape[3]

    def step() -> float:
        optimizer.zero_grad()
        auxiliary_optimizer.zero_grad()
        output = model(x)
        rates = [p.log().sum() / (-math.log(2) * pixels) for p in output["likelihoods"].values()]
        distortion = torch.nn.functional.mse_loss(output["x_hat"], x)
        loss = LMBDA * 255**2 * distortion + sum(rates)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        auxiliary_loss = model.aux_loss()
        auxiliary_loss.backward()
        auxiliary_optimizer.step()
        return loss.item()

    return step


def measure(name: str, N: int, M: int, x: Tensor, rounds: int, device: str) -> list[dict]:
    """The rows of one model."""
    tasks = {
        "CompressAI fp32": their_step(name, N, M, x),
        "ours fp32": our_step(name, N, M, x, half=False),
        "ours bf16": our_step(name, N, M, x, half=True),
    }
    seconds = alternate(tasks, rounds, device=device)
    flags = cpu_flags()
    bf16 = device != "cpu" or "avx512_bf16" in flags or "amx_bf16" in flags
    rows = []
    for task, values in seconds.items():
        middle, low, high = (number(v) for v in spread(values))
        rows.append(
            {
                "model": name, "N": N, "M": M, "batch": len(x), "crop": x.shape[-1],
                "device": device, "bf16_instructions": "yes" if bf16 else "no",
                "step": task, "seconds": middle, "quartiles": f"{low} to {high}",
                "images_per_second": number(len(x) / float(middle), 3),
                "times_faster": number(ratio(seconds["CompressAI fp32"], values), 3),
            }
        )  # fmt: skip
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", type=models.canonical_name, default=["Hyperprior"])
    parser.add_argument("--N", type=int, default=128)
    parser.add_argument("--M", type=int, default=192)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add_outdir(parser)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test of the program")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.models if name not in TWINS]:
        parser.error(f"CompressAI has no model like {unknown[0]}; choose from {', '.join(TWINS)}")
    folder = outdir(parser, options, free=["rounds"])
    if options.quick:
        options.N, options.M, options.batch, options.crop, options.rounds = 8, 12, 2, 64, 1
    device = str(choose_device(options.device))
    x = torch.rand(options.batch, 3, options.crop, options.crop, device=device)
    rows = [
        row
        for name in options.models
        for row in measure(name, options.N, options.M, x, options.rounds, device)
    ]
    print_table(rows)
    write_csv(folder / "train_speed.csv", rows, device)


if __name__ == "__main__":
    main()
