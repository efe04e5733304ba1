"""What long work shows: a bar on a terminal, plain lines anywhere else."""

import sys
from argparse import ArgumentTypeError

import pytest

from models.cli import Progress, number
from training.log import Log

ROW = {"step": 2, "epoch": 0, "loss": 1.5, "bpp": 0.5, "psnr": 30.0, "lr": 1e-4}


def test_a_terminal_gets_a_bar_with_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("lambda 1", 3, "image") as progress:
        for _ in range(3):
            progress.step()
    shown = capsys.readouterr().err
    assert "lambda 1:   0%|" in shown and "0/3" in shown and "left" not in shown


def test_plain_lines_show_it_where_there_is_no_terminal(capsys):
    with Progress("search", 3, "step", seconds=0) as progress:
        for k in range(3):
            progress.step(f"loss {k}")
    lines = capsys.readouterr().err.splitlines()
    for k, line in enumerate(lines, start=1):
        assert line.startswith("search: ") and f"{k}/3" in line and f"loss {k - 1}" in line
    assert len(lines) == 2  # the last step needs none


@pytest.mark.parametrize("terminal", [False, True])
def test_training_gives_plain_lines_or_a_bar(terminal, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    log = Log(tmp_path)
    log.begin(0, 4)
    log.advance(2, "loss 1.5")
    log.record(ROW)
    log.close()
    said, (line,) = capsys.readouterr(), (tmp_path / "train.log").read_text().splitlines()
    assert "epoch 0  step 2  loss 1.5000  0.5000 bpp  PSNR 30.00 dB  lr 1.00e-04" in line
    assert "left 0:00:0" in line
    if terminal:
        assert "0/4" in said.err and not said.out
    else:
        assert said.out.startswith("epoch 0") and line.endswith(said.out[:-1]) and not said.err


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (number(int, 1, 8), ["1", "8"], ["0", "9", "2.5", "nan", "", "1" * 5000]),
        (number(int, 0), ["0", "7"], ["-1", "1" * 5000]),
        (number(float, 1e-9), ["1e-9", "3"], ["0", "-1", "nan", "inf", "x"]),
        (number(float, 0, 1), ["0", "1"], ["-0.1", "1.1", "nan", "-inf"]),
    ],
)
def test_a_number_flag_takes_what_lies_within_its_bounds(read, good, bad):
    assert [read(text) for text in good] == [float(text) for text in good]
    for text in bad:
        with pytest.raises(ArgumentTypeError, match="^needs a .*number"):
            read(text)
