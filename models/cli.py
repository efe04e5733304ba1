"""What the command-line programs share: devices, and failures that become one sentence."""

from __future__ import annotations

import argparse
import errno
import io
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from PIL import ImageColor
from tqdm import tqdm

from models.errors import CodecError, UsageError
from models.files import printable


def choose_device(name: str) -> torch.device:
    """The device of a --device flag; 'auto' is the first GPU, or the CPU where there is none.

    UsageError for a name that torch does not know and for a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"Unknown device {name!r}; choose auto, cpu, cuda or cuda:1.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"There is no device {name} on this machine; choose --device cpu.")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"The device {name} is not supported: choose auto, cpu, cuda or cuda:1.")
    return device


def number(
    kind: type[int] | type[float],
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float | None = None,
) -> Callable[[str], int | float]:
    """An argparse type: a finite number from `least` to `most`, or greater than `above`.

    number(int, 1, 8) takes "3" and refuses "0", "2.5" and "nan" with what it wants.
    """
    wanted = "a whole number" if kind is int else "a number"
    if above is not None:
        wanted += f" above {above:g}"
    elif math.isfinite(least):
        wanted += f" from {least} to {most}" if math.isfinite(most) else f" of at least {least}"

    def read(text: str) -> int | float:
        try:
            value = kind(text)
            good = math.isfinite(value) and least <= value <= most
        except (ValueError, OverflowError):
            good = False
        if not good or (above is not None and value <= above):
            raise argparse.ArgumentTypeError(f"needs {wanted}, not {text[:40]!r}")
        return value

    return read


def module_name(text: str) -> str:
    """An argparse type: what `import` takes, such as my_model or package.my_model."""
    if not all(part.isidentifier() for part in text.split(".")):
        raise argparse.ArgumentTypeError(f"needs a module's name, such as my_model, not {text!r}")
    return text


def colour(text: str) -> tuple[int, ...]:
    """An argparse type: sRGB, 0 to 255, of `white`, `#ffffff`, `rgb(255, 255, 255)`."""
    with suppress(ValueError):
        value = ImageColor.getrgb(text)
        if len(value) == 3:  # else with alpha
            return value
    raise argparse.ArgumentTypeError(f"needs a colour, such as white or #fff, not {text[:40]!r}")


def note(text: str) -> None:
    """A line on stderr, above what shows the progress."""
    tqdm.write(printable(text), file=sys.stderr)


def processor() -> str:
    """What the CPU is called."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def sentence(error: BaseException) -> str | None:
    """A foreseen failure in one line; None for anything else, which is a mistake in the code."""
    if isinstance(error, (CodecError, ImportError)):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            return f"The disk is full ({error.filename or 'no file name'}): make room, try again."
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{place}."
    text = str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "allocate memory" in text)
    ):
        return "There is not enough memory: use a smaller image, model or batch."
    return None


def guarded(
    program: str, work: Callable[[], int], left: str = "what was written so far is complete"
) -> int:
    """The exit code of `work`: its own, 1 after a foreseen failure in a line, 130 for Ctrl-C.

    `left` says what an interrupted program leaves behind.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not have every letter
            stream.reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as programs have it while they import
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return work()
    except KeyboardInterrupt:
        print(f"{program}: interrupted; {left}.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        line = sentence(error)
        if line is None:
            raise
        print(f"{program}: {printable(line)}", file=sys.stderr, flush=True)
        return 1


class Progress:
    """Steps done and time left on stderr: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, label: str, total: int, unit: str, seconds: float = 15.0):
        self.label, self.total, self.unit, self.seconds = label, total, unit, seconds
        self.done = 0
        self.first = self.said = 0.0
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=total, desc=label, unit=unit, leave=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def step(self, note: str = "") -> None:
        """One more is done; `note` says how it stands."""
        self.done += 1
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update()
            return
        now = time.monotonic()
        if self.done == 1:  # the first step holds the loading of models: time the others
            self.first = self.said = now
            return
        if now - self.said < self.seconds or self.done >= self.total:
            return
        self.said = now
        left = (now - self.first) / (self.done - 1) * (self.total - self.done)
        count = f"{self.done} of {self.total} {self.unit}s"
        line = f"{self.label}: {count}, about {left:.0f} s left"
        print(f"{line}; {note}" if note else line, file=sys.stderr, flush=True)
