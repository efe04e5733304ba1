"""The encoder's search: its flags in codec.py and test.py, and the table of its gains."""

from __future__ import annotations

import pytest

import codec as program
from benchmarks.report import search as gains
from evaluation import bench
from evaluation.results import Results
from evaluation.tables import write
from models import search
from models.errors import DataError, UsageError
from tests.helpers import each_model
from tests.programs import (
    LAMBDAS,
    SecondCodec,
    files_in,
    load_test_program,
    one_line,
    read_csv,
    result_row,
)

# codec.py -----------------------------------------------------------------------------------


@pytest.fixture
def compress(ckpts, photographs, tmp_path):
    """Run codec.py compress into tmp_path / 'a.lic'; returns the exit code."""

    def run(*flags):
        words = [photographs / "small.png", tmp_path / "a.lic", "--ckpt_dir", ckpts, *flags]
        return program.main(["compress", "--overwrite", *map(str, words)])

    return run


@each_model
def test_codec_searches_and_decodes(name, compress, ckpts, tmp_path, capsys):
    model = ["--model_name", name]
    assert compress(*model) == 0
    plain = (tmp_path / "a.lic").read_bytes()
    assert compress(*model, "--effort", "0") == 0
    assert (tmp_path / "a.lic").read_bytes() == plain
    assert compress(*model, "--effort", "3") == 0
    assert (tmp_path / "a.lic").read_bytes() != plain
    words = ["decompress", tmp_path / "a.lic", tmp_path / "a.png", "--ckpt_dir", ckpts]
    assert program.main(list(map(str, words))) == 0
    assert "\r" not in capsys.readouterr().err


def test_an_interrupted_search_writes_nothing_and_says_so(compress, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        yield
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "_descent", interrupted)
    assert compress("--effort", "3") == 130
    one_line(capsys, "codec.py: interrupted; nothing was written.")
    assert files_in(tmp_path) == []


# test.py ------------------------------------------------------------------------------------


def test_the_test_searches_and_files_results_apart(ckpts, photographs, tmp_path, monkeypatch):
    driver = load_test_program()
    monkeypatch.setattr(bench, "DecoderProcess", SecondCodec)
    monkeypatch.setattr(driver, "draw", lambda *_: None)
    words = ["--ckpt_dir", ckpts, "--dataset_path", photographs / "small.png", "--device", "cpu"]
    words += ["--outdir", tmp_path, "--lmbda", LAMBDAS[1], "--model_name", "Factorized"]
    for effort in (0, 20):
        assert driver.main(list(map(str, [*words, "--effort", effort]))) == 0
    plain, searched = (
        read_csv(tmp_path / f"Factorized{end}.csv")[0] for end in ("", "-searched20")
    )
    loss = [
        float(row["lmbda"]) * 255**2 * 10 ** (-float(row["psnr"]) / 10) + float(row["bpp"])
        for row in (plain, searched)
    ]
    assert loss[1] < loss[0]


# The table of gains ------------------------------------------------------------------------


def test_the_table_of_gains_by_hand(tmp_path):
    """Half the rate at every quality is a BD-rate of -50 %, whatever lambdas were not searched."""
    write(tmp_path / "search_speed.csv", [], gains.SPEED)
    searched = tmp_path / "searched"
    curve = [result_row(0.1, bpp=1.0), result_row(0.2, bpp=2.0) | {"psnr": 35.0}]
    bent = result_row(0.3, bpp=2.5) | {"psnr": 34.0}  # off the chord
    Results(tmp_path, "Hyperprior").merge([*curve, bent])
    halved = [row | {"bits": row["bits"] // 2, "bpp": row["bpp"] / 2} for row in curve]
    Results(searched, "Hyperprior-searched50").merge(halved)
    Results(searched, "Hyperprior-searched9").merge(halved[:1])
    table = gains.table(tmp_path)
    assert [(r["effort"], r["lmbda"], float(r["bpp"]), r["bd_rate_percent"]) for r in table] == [
        ("0", "0.1", 1.0, ""), ("0", "0.2", 2.0, ""), ("0", "0.3", 2.5, ""),
        ("9", "0.1", 0.5, ""), ("50", "0.1", 0.5, "-50.000"), ("50", "0.2", 1.0, "-50.000"),
    ]  # fmt: skip
    error = 0.1 * 255**2 * 10 ** (-curve[0]["psnr"] / 10)
    by_hand = 100 * ((error + 0.5) / (error + 1.0) - 1)
    assert [r["loss_percent"] for r in table][:4] == ["", "", "", f"{by_hand:.3f}"]
    assert not any(r["seconds"] for r in table)  # what the results took was on another machine
    Results(searched, "Hyperprior-searched7").merge([result_row(0.1, "b.png")])
    with pytest.raises(UsageError, match="other images"):
        gains.table(tmp_path)


def test_what_cannot_be_compared_is_said(tmp_path):
    with pytest.raises(DataError, match=r"search_speed\.csv does not exist"):
        gains.table(tmp_path)
    write(tmp_path / "search_speed.csv", [], gains.SPEED)
    Results(tmp_path, "Hyperprior").merge([result_row(0.1)])
    Results(tmp_path / "searched", "Hyperprior-searched9").merge([result_row(0.1), result_row(0.2)])
    with pytest.raises(DataError, match=r"Hyperprior has no results at lambda 0\.2 without"):
        gains.table(tmp_path)


def test_seconds_of_a_search_follow_from_its_steps():
    row = {"model": "Hyperprior", "N": 192, "M": 320, "plain_s": 1.0, "others_s": 3.0}
    speeds = [row | {"step_s": 0.5}]
    times = [gains.seconds("Hyperprior", 0.025, effort, speeds) for effort in (0, 200)]
    assert times == ["1", "103"]
    assert gains.seconds("Hyperprior", 0.013, 200, speeds) == ""  # of the other width
