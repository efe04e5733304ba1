"""What a run tells: progress bar or plain lines, train.log, curve.csv, TensorBoard."""

from __future__ import annotations

import math
import shlex
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from models.files import write_text

TRAINING, VALIDATION = ("loss", "bpp", "psnr"), ("val_loss", "val_bpp", "val_psnr")
COLUMNS = ("step", "epoch", "images", "seconds", "lr", *TRAINING, *VALIDATION)


class Log:
    """Writes train.log, curve.csv and tensorboard/ into `folder`, and talks to the terminal.

    Without a folder, as in all processes but the first, it says and writes nothing.
    """

    def __init__(self, folder: Path | None = None, *, tensorboard: bool = False):
        self.folder, self.tensorboard = folder, tensorboard
        self.text = (folder / "train.log").open("a", encoding="utf-8") if folder else None
        self.curve: TextIO | None = None
        self.bar = self.board = None

    def begin(self, start: int, total: int) -> None:
        """Open the curve and the progress bar; steps are counted from `start` to `total`.

        Rows of the curve after `start` are dropped, since their steps will be done again.
        """
        if self.folder is None:
            return
        self.start, self.total, self.began = start, total, time.monotonic()
        path = self.folder / "curve.csv"
        rows = path.read_text(encoding="utf-8").splitlines()[1:] if path.is_file() else []
        whole = (row for row in rows if row.count(",") == len(COLUMNS) - 1)  # not cut short
        kept = [row for row in whole if int(row.partition(",")[0]) <= start]
        write_text(path, "\n".join([",".join(COLUMNS), *kept]) + "\n")
        self.curve = path.open("a", newline="", encoding="utf-8")
        if self.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter

                folder = str(self.folder / "tensorboard")
                self.board = SummaryWriter(folder, purge_step=start + 1)
                self.say(f"To watch it: tensorboard --logdir {shlex.quote(folder)}")
            except ImportError:
                self.say("TensorBoard is not installed: the curve goes to curve.csv only.")
        if sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=start, unit="step", dynamic_ncols=True)

    def say(self, text: str, *, beside_bar: bool = True) -> None:
        """One line for train.log and the reader, who may do without where there is a bar."""
        if self.folder is None:
            return
        if self.bar is None:
            print(text, flush=True)
        elif beside_bar:
            self.bar.write(text)
        self._write(self.text, f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def advance(self, step: int, text: str) -> None:
        """A step is done; `text` is its figures."""
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(step - self.bar.n)

    def record(self, row: dict) -> None:
        """A row of the curve, of which columns may be missing, and a plain line of it."""
        if self.folder is None:
            return
        cells = (row.get(name, "") for name in COLUMNS)
        line = ",".join(f"{c:.6g}" if isinstance(c, float) else str(c) for c in cells)
        self._write(self.curve, line + "\n")
        for name in ("lr", *TRAINING, *VALIDATION):
            if self.board is not None and name in row:
                tag = f"training/{name}".replace("training/val_", "validation/")
                self.board.add_scalar(tag, row[name], row["step"])
        parts = [f"epoch {row['epoch']}", f"step {row['step']}"]
        if "loss" in row:
            parts.append(figures(row["loss"], row["bpp"], row.get("psnr", math.nan)))
        if "val_loss" in row:
            parts.append(f"held out: {figures(*(row[name] for name in VALIDATION))}")
        pace = (time.monotonic() - self.began) / max(1, row["step"] - self.start)
        left = timedelta(seconds=round(pace * (self.total - row["step"])))
        self.say("  ".join([*parts, f"lr {row['lr']:.2e}  left {left}"]), beside_bar=False)

    def close(self) -> None:
        """Close all files; nothing more can be told."""
        for file in (self.bar, self.board, self.curve, self.text):
            if file is not None:
                file.close()

    def _write(self, file, text: str) -> None:
        try:
            file.write(text)
            file.flush()
        except OSError as error:  # a full disk must not stop the training
            print(f"Cannot write to {self.folder}: {error.strerror}.", file=sys.stderr)


def figures(loss: float, bpp: float, psnr: float) -> str:
    """Loss, rate in bits per pixel and PSNR in dB, if there is one (NaN), in words."""
    words = f"loss {loss:.4f}  {bpp:.4f} bpp"
    return words if math.isnan(psnr) else f"{words}  PSNR {psnr:.2f} dB"


def psnr_of(mse: float) -> float:
    """PSNR in dB of a mean square error of values in [0, 1]."""
    return math.inf if mse == 0 else -10 * math.log10(mse)
