"""The encoder's search: its flags in codec.py and test.py, and the benchmark of its gains."""

from __future__ import annotations

import pytest

import codec as program
from benchmarks import search as gains
from benchmarks.__main__ import main
from evaluation import bench
from evaluation.results import Results
from models import search
from models.cli import Progress
from tests.helpers import NAMES
from tests.programs import (
    LAMBDAS,
    SecondCodec,
    files_in,
    load_test_program,
    one_line,
    read_csv,
    result_row,
)

each_model = pytest.mark.parametrize("name", NAMES)


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
    assert compress(*model, "--effort", "30") == 0
    assert (tmp_path / "a.lic").read_bytes() != plain
    words = ["decompress", tmp_path / "a.lic", tmp_path / "a.png", "--ckpt_dir", ckpts]
    assert program.main(list(map(str, words))) == 0
    assert "\r" not in capsys.readouterr().err


def test_a_bar_shows_what_the_search_has_reached(compress, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert compress("--effort", "3") == 0
    shown = capsys.readouterr().err
    assert "search:" in shown and "0/3" in shown


def test_plain_lines_show_it_where_there_is_no_terminal(capsys):
    with Progress("search", 3, "step", seconds=0) as progress:
        for k in range(3):
            progress.step(f"loss {k}")
    lines = capsys.readouterr().err.splitlines()
    for k, line in enumerate(lines, start=1):
        assert line.startswith("search: ") and f"{k}/3" in line and f"loss {k - 1}" in line
    assert len(lines) == 2  # the last step needs none


def test_a_file_has_the_size_asked_for_with_effort_and_without(compress, tmp_path, capsys):
    assert compress("--lmbda", LAMBDAS[1]) == 0
    size = (tmp_path / "a.lic").stat().st_size
    for effort in (0, 10):
        assert compress("--bytes", size, "--effort", effort) == 0
        assert 0.8 * size <= (tmp_path / "a.lic").stat().st_size <= size
        capsys.readouterr()
        assert compress("--bytes", 20, "--effort", effort) == 1
        one_line(capsys, "codec.py: ", "smallest file has", "20 asked for")
    assert files_in(tmp_path) == ["a.lic"]


def test_bad_values_are_one_sentence(compress, tmp_path, capsys):
    for words, flags in (
        ("0 or more, not -3", ["--effort", "-3"]),
        ("above 0, not 0", ["--bpp", "0"]),
        ("above 0, not nan", ["--bpp", "nan"]),
        ("above 0, not inf", ["--bpp", "inf"]),
        ("1 byte or more, not 0", ["--bytes", "0"]),
        ("keep one", ["--bytes", "900", "--bpp", "1"]),
    ):
        assert compress(*flags) == 1, words
        one_line(capsys, "codec.py: ", words)
    assert files_in(tmp_path) == []


def test_an_interrupted_search_writes_nothing_and_says_so(compress, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        yield 1.0, 1.0, 30.0
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


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("not -1", ["--effort", "-1"]),
        ("drop --effort", ["--effort", "1", "--model_name", "compressai:mbt2018"]),
        ("drop --effort", ["--effort", "1", "--metric", "ms-ssim"]),
    ],
)
def test_the_test_refuses_what_cannot_be_searched(words, flags, tmp_path, capsys):
    assert load_test_program().main([*flags, "--outdir", str(tmp_path)]) == 1
    one_line(capsys, "test.py: ", words)


SPEED = "model,N,M,plain_s,others_s,step_s\nHyperprior,192,320,{},1,1\n"


# The table of gains ------------------------------------------------------------------------


def test_the_table_of_gains_by_hand(tmp_path, capsys):
    """Half the rate at every quality is a BD-rate of -50 %, whatever lambdas were not searched."""
    plain, searched = tmp_path / "plain", tmp_path / "searched"
    curve = [result_row(0.1, bpp=1.0), result_row(0.2, bpp=2.0) | {"psnr": 35.0}]
    bent = result_row(0.3, bpp=2.5) | {"psnr": 34.0}  # off the chord
    Results(plain, "Hyperprior").merge([*curve, bent])
    halved = [row | {"bits": row["bits"] // 2, "bpp": row["bpp"] / 2} for row in curve]
    Results(searched, "Hyperprior-searched50").merge(halved)
    Results(searched, "Hyperprior-searched9").merge(halved[:1])
    words = ["search", "--resultdir", str(plain), "--outdir", str(plain), "--searched"]
    assert main([*words, str(searched)]) == 0
    table = read_csv(plain / "search.csv")
    assert [(r["effort"], r["lmbda"], float(r["bpp"]), r["bd_rate_percent"]) for r in table] == [
        ("0", "0.1", 1.0, ""), ("0", "0.2", 2.0, ""), ("0", "0.3", 2.5, ""),
        ("9", "0.1", 0.5, ""), ("50", "0.1", 0.5, "-50.000"), ("50", "0.2", 1.0, "-50.000"),
    ]  # fmt: skip
    error = 0.1 * 255**2 * 10 ** (-curve[0]["psnr"] / 10)
    by_hand = 100 * ((error + 0.5) / (error + 1.0) - 1)
    assert [r["loss_percent"] for r in table][:4] == ["", "", "", f"{by_hand:.3f}"]
    assert not any(r["seconds"] for r in table)  # what the results took was on another machine
    Results(searched, "Hyperprior-searched7").merge([result_row(0.1, "b.png")])
    capsys.readouterr()
    assert main([*words, str(searched)]) == 1
    one_line(capsys, "other images")
    assert main([*words, str(tmp_path)]) == 1
    one_line(capsys, "run test.py with --effort")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("search_speed.csv", "model,N,M\n", "no column plain_s"),
        ("search_speed.csv", SPEED.format("much"), "column plain_s: 'much' is not a number"),
        ("per_image/Hyperprior.csv", "lmbda,image\n", "no column"),
    ],
)
def test_damaged_tables_end_in_one_sentence(file, text, message, tmp_path, capsys):
    Results(tmp_path, "Hyperprior").merge([result_row(0.1)])
    Results(tmp_path, "Hyperprior-searched9").merge([result_row(0.1), result_row(0.2)])
    words = ["search", "--resultdir", str(tmp_path), "--outdir", str(tmp_path / "out")]
    words += ["--searched", str(tmp_path)]
    assert main(words) == 1
    one_line(capsys, "search: Hyperprior has no results at lambda 0.2 without a search")
    (tmp_path / file).write_text(text)
    assert main(words) == 1
    one_line(capsys, "search: ", file, message)
    assert not (tmp_path / "out").exists()


def test_seconds_of_a_search_follow_from_its_steps():
    row = {"model": "Hyperprior", "N": 192, "M": 320, "plain_s": 1.0, "others_s": 3.0}
    speeds = [row | {"step_s": 0.5}]
    times = [gains.seconds("Hyperprior", 0.025, effort, speeds) for effort in (0, 200)]
    assert times == ["1", "103"]
    assert gains.seconds("Hyperprior", 0.013, 200, speeds) == ""  # of the other width
