"""codec.py: compress, decompress, info; damaged files and wrong checkpoints."""

import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

import codec
from models import checkpoint
from models.coding.container import Header, pack, unpack
from models.images import read_image, to_uint8
from models.presets import OperatingPoint
from tests.helpers import NAMES, M, N, make, peak_memory
from tests.programs import LAMBDAS, ROOT, SIZES, files_in, one_line


@pytest.fixture(scope="module")
def compressed(ckpts, photographs, tmp_path_factory):
    """One file per model, written by codec.py."""
    folder = tmp_path_factory.mktemp("compressed")
    for name in NAMES:
        arguments = ["compress", str(photographs / "small.png"), str(folder / f"{name}.lic")]
        arguments += ["--model_name", name.lower(), "--ckpt_dir", str(ckpts), "--lmbda", "0.0067"]
        assert codec.main(arguments) == 0
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_codec_round_trip_and_info(name, ckpts, photographs, compressed, tmp_path, capsys):
    file, out = compressed / f"{name}.lic", tmp_path / "back.bmp"
    assert codec.main(["decompress", str(file), str(out), "--ckpt_dir", str(ckpts)]) == 0
    model = checkpoint.load(checkpoint.find(name, ckpts, lmbda=0.0067)[0])
    expected = to_uint8(model.decompress([file.read_bytes()]))
    assert np.array_equal(read_image(out), expected)
    capsys.readouterr()
    assert codec.main(["info", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["model"], said["lmbda"], said["digest"]) == (name, 0.0067, model.digest)
    assert (said["height"], said["width"]) == SIZES["small.png"]
    assert list(said["stream_bytes"]) == list(model.streams)
    assert said["bytes"] == file.stat().st_size
    assert said["bytes"] == said["header_bytes"] + sum(said["stream_bytes"].values())
    assert said["bpp"] == pytest.approx(8 * said["bytes"] / (70 * 50))
    assert codec.main(["info", str(file)]) == 0
    text = capsys.readouterr().out
    assert "50x70 pixels" in text and name in text and f"{said['bytes']} bytes" in text


def test_the_best_quality_is_the_default_and_epochs_can_be_chosen(ckpts, photographs, tmp_path):
    file = tmp_path / "a.lic"
    common = ["compress", str(photographs / "small.png"), str(file), "--ckpt_dir", str(ckpts)]
    for extra, path in (
        ([], checkpoint.path_for("Hyperprior", 12, LAMBDAS[1], ckpts)),
        (["--epoch_num", "3"], checkpoint.path_for("Hyperprior", 3, LAMBDAS[1], ckpts)),
        (["--lmbda", "0.0067"], checkpoint.path_for("Hyperprior", 12, LAMBDAS[0], ckpts)),
    ):
        assert codec.main([*common, *extra]) == 0
        assert unpack(file.read_bytes())[0].digest == checkpoint.read_metadata(path)["digest"]
        one = ["--checkpoint", str(path)]
        assert codec.main(["decompress", str(file), str(tmp_path / "a.png"), *one]) == 0


def huge_claim():
    return pack(Header("Hyperprior", 0.0067, "mse", "00" * 8, 65535, 65535, ()), [b"", b""])


DAMAGES = {
    "not a file of ours": (lambda data: b"GIF89a" + data, "not a file compressed"),
    "empty": (lambda data: b"", "not a file compressed"),
    "truncated": (lambda data: data[:-5], "cut short"),
    "longer": (lambda data: data + bytes(10), "longer than it says"),
    "much longer": (lambda data: data + bytes(100_000), "longer than it says"),
    "flipped": (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "checksum"),
    "bomb": (lambda data: huge_claim(), "--max_pixels"),
    "other model": (
        lambda data: pack(Header("Strange", 1, "mse", "00" * 8, 8, 8, ()), [b""]),
        "Unknown model 'Strange'",
    ),
    "other tables": (
        lambda data: pack(Header("Hyperprior", 1, "mse", "00" * 8, 8, 8, ()), [b"", b""]),
        "--checkpoint FILE",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_file_is_one_sentence_and_no_output(case, ckpts, compressed, tmp_path, capsys):
    damage, words = DAMAGES[case]
    file = tmp_path / "file.lic"
    file.write_bytes(damage((compressed / "Hyperprior.lic").read_bytes()))
    arguments = ["decompress", str(file), str(tmp_path / "out.png"), "--ckpt_dir", str(ckpts)]
    assert codec.main(arguments) == 1
    one_line(capsys, "codec.py: ", words)
    assert files_in(tmp_path) == ["file.lic"]


def test_other_refusals_of_the_codec(ckpts, photographs, compressed, tmp_path, capsys):
    picture, file = str(photographs / "small.png"), str(compressed / "Factorized.lic")
    out = str(tmp_path / "out.png")
    other = str(checkpoint.find("Factorized", ckpts)[1])
    as_hyperprior = ["--checkpoint", other, "--model_name", "Hyperprior"]
    for words, arguments in (
        ("does not exist", ["compress", "nowhere.png", out]),
        ("No such file", ["decompress", "nowhere.lic", out]),
        ("No such file", ["info", "nowhere.lic"]),
        ("not an image", ["compress", file, out]),
        ("same file", ["compress", picture, picture]),
        ("is a folder", ["compress", picture, str(tmp_path)]),
        ("can be written", ["decompress", file, str(tmp_path / "out.xyz")]),
        ("more than the limit", ["decompress", file, out, "--max_pixels", "3499"]),
        ("more than the limit", ["compress", picture, out, "--max_pixels", "3499"]),
        ("written with another", ["decompress", file, out, "--checkpoint", other]),
        ("Lambda 3 is out of reach", ["compress", picture, out, "--lmbda", "3"]),
        ("A lambda is a number above 0", ["compress", picture, out, "--lmbda", "-1"]),
        ("--lmbda and --bpp each say", ["compress", picture, out, "--lmbda", "0.01", "--bpp", "1"]),
        ("--bytes and --psnr each say", ["compress", picture, out, "--bytes", "9", "--psnr", "9"]),
        ("a number of bits above 0", ["compress", picture, out, "--bpp", "0"]),
        ("1 byte or more, not 0", ["compress", picture, out, "--bytes", "0"]),
        ("dB from 0 to 100, not 120", ["compress", picture, out, "--psnr", "120"]),
        ("more than the 30 asked for", ["compress", picture, out, "--bytes", "30"]),
        ("less than the 99 asked for", ["compress", picture, out, "--psnr", "99"]),
        ("holds a Factorized", ["compress", picture, out, *as_hyperprior]),
    ):
        places = [] if arguments[0] == "info" else ["--ckpt_dir", str(ckpts)]
        assert codec.main([*arguments, *places]) == 1, words
        one_line(capsys, "codec.py: ", words)
    assert files_in(tmp_path) == []


def test_a_broken_checkpoint_beside_the_right_one_does_not_matter(ckpts, compressed, tmp_path):
    right = checkpoint.find("Factorized", ckpts)[0]
    folder = tmp_path / "Factorized"
    folder.mkdir()
    shutil.copy(right, folder)
    (folder / "epoch_0_lmbda_1.safetensors").write_bytes(b"half")
    arguments = ["decompress", str(compressed / "Factorized.lic"), str(tmp_path / "out.png")]
    assert codec.main([*arguments, "--ckpt_dir", str(tmp_path)]) == 0


def saved(root, epoch, lmbda, demonstration, seed=0):
    """A Hyperprior's checkpoint; returns its path."""
    model = make("Hyperprior", seed)
    model.point = OperatingPoint("Hyperprior", lmbda, "low", N, M)
    path = checkpoint.path_for("Hyperprior", epoch, lmbda, root)
    checkpoint.save(path, model, config={}, provenance={"demonstration": demonstration})
    return path


def test_what_a_demonstration_trained_is_not_taken_unasked(photographs, tmp_path, capsys):
    """Of whatever epoch and lambda; and which file was taken is said."""
    trained = saved(tmp_path, 199, 0.0067, False)
    shown = saved(tmp_path, 999, 0.0483, True, seed=1)
    file = tmp_path / "a.lic"
    words = ["compress", str(photographs / "small.png"), str(file), "--ckpt_dir", str(tmp_path)]
    for more, path in (([], trained), (["--lmbda", "0.0483"], shown)):
        assert codec.main([*words, *more]) == 0
        said = capsys.readouterr().out
        assert str(path) in said and ("by a demonstration" in said) == (path == shown)
        back = ["decompress", str(file), str(tmp_path / "a.png"), "--ckpt_dir", str(tmp_path)]
        assert codec.main(back) == 0
        assert str(path) in capsys.readouterr().out


def test_the_weights_are_found_from_any_folder(photographs, tmp_path, monkeypatch, capsys):
    """And they are the study's, though the folder has some of its own."""
    saved(tmp_path / "ckpts", 999, 0.0483, False)
    weights = str(ROOT / "ckpts" / "Hyperprior")
    command = [sys.executable, ROOT / "codec.py", "compress", photographs / "small.png", "a.lic"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert weights in done.stdout
    monkeypatch.chdir(tmp_path)
    assert codec.main(["decompress", "a.lic", "a.png"]) == 0
    assert weights in capsys.readouterr().out
    assert read_image(tmp_path / "a.png").shape[:2] == SIZES["small.png"]


def test_a_file_goes_into_a_pipe_and_comes_out_of_one(ckpts, photographs, tmp_path, capfd):
    """The line that tells of it does not."""
    places = ["--ckpt_dir", str(ckpts)]
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert codec.main(["compress", str(photographs / "small.png"), str(pipe), *places]) == 0
    reader.join()
    out, error = capfd.readouterr()
    assert out == "" and "bits per pixel" in error
    writer = threading.Thread(target=lambda: pipe.write_bytes(read[0]), daemon=True)
    writer.start()
    assert codec.main(["decompress", str(pipe), str(tmp_path / "a.png"), *places]) == 0
    writer.join()
    assert read_image(tmp_path / "a.png").shape[:2] == SIZES["small.png"]


def test_info_on_a_sparse_file_of_gigabytes_costs_no_memory(compressed, tmp_path, capsys):
    file = tmp_path / "sparse.lic"
    shutil.copy(compressed / "Hyperprior.lic", file)
    with file.open("r+b") as opened:
        opened.truncate(3 << 29)
    before = peak_memory()
    assert codec.main(["info", str(file)]) == 1
    one_line(capsys, "longer than it says")
    assert peak_memory() - before < 64 << 20
