"""What the command-line programs share: devices, and failures that become one sentence."""

from __future__ import annotations

import argparse
import errno
import io
import math
import os
import platform
import re
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
    """The device of a --device flag; "auto" is the first GPU, or the CPU where there is none.

    UsageError for another name and for a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"Unknown device {name!r}; choose auto, cpu, cuda or cuda:1.")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"There is no device {name} on this machine; choose --device cpu.")
    return device


def number(
    kind: type[int] | type[float], least: float, most: float = math.inf
) -> Callable[[str], int | float]:
    """An argparse type: a finite number from `least` to `most`.

    number(int, 1, 8) takes "3" and refuses "0", "2.5" and "nan" with what it wants.
    """
    bounds = f"from {least} to {most}" if math.isfinite(most) else f"of at least {least}"
    wanted = f"a {'whole ' * (kind is int)}number {bounds}"

    def read(text: str) -> int | float:
        with suppress(ValueError, OverflowError):
            value = kind(text)
            if math.isfinite(value) and least <= value <= most:
                return value
        raise argparse.ArgumentTypeError(f"needs {wanted}, not {text[:40]!r}")

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
    with suppress(OSError):  # not Linux
        name = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        if name:
            return name[1].strip()
    return platform.processor() or platform.machine()


def sentence(error: BaseException) -> str | None:
    """A foreseen failure in one line; None for anything else, which is a mistake in the code."""
    if isinstance(error, (CodecError, ImportError)):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        if error.errno == errno.ENOSPC:
            what = "The disk is full, make room and try again"
        return f"{what}: {error.filename}." if error.filename else f"{what}."
    torch_memory = re.search("out of memory|allocate memory", str(error))
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and torch_memory):
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
        self.done, self.start = 0, time.monotonic()
        self.last_line = self.start
        off = not sys.stderr.isatty()
        self.bar = tqdm(total=total, desc=label, unit=unit, leave=False, disable=off)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def step(self, note: str = "") -> None:
        """One more is done; `note` says how it stands."""
        self.done += 1
        self.bar.set_postfix_str(note, refresh=False)
        self.bar.update()
        if self.done == self.total:
            self.bar.close()
        now = time.monotonic()
        if self.bar.disable and self.done < self.total and now - self.last_line >= self.seconds:
            self.last_line = now
            state = (self.done, self.total, now - self.start)
            words = {"prefix": self.label, "unit": self.unit, "postfix": note}
            print(tqdm.format_meter(*state, ncols=0, **words), file=sys.stderr, flush=True)
