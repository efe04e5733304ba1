"""codec.py: compress, decompress, info; damaged files and wrong checkpoints."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import codec
from models import checkpoint
from models.coding.container import Header, pack, unpack
from models.images import read_image, to_uint8
from tests.helpers import NAMES
from tests.programs import LAMBDAS, ROOT, SIZES, files_in, one_line, read_csv, save_checkpoints


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
    for field in ("model", "width", "height", "bytes", "digest"):
        assert re.search(rf"^{field} +{said[field]}$", text, re.M)


def test_the_best_quality_is_the_default_and_epochs_can_be_chosen(ckpts, photographs, tmp_path):
    file = tmp_path / "a.lic"
    common = ["compress", str(photographs / "small.png"), "--ckpt_dir", str(ckpts), str(file)]
    common.append("--overwrite")
    for extra, path in (
        ([], checkpoint.path_for("Hyperprior", 12, LAMBDAS[1], ckpts)),
        (["--epoch_num", "3"], checkpoint.path_for("Hyperprior", 3, LAMBDAS[1], ckpts)),
        (["--lmbda", "0.0067"], checkpoint.path_for("Hyperprior", 12, LAMBDAS[0], ckpts)),
    ):
        assert codec.main([*common, *extra]) == 0
        assert unpack(file.read_bytes())[0].digest == checkpoint.read_metadata(path)["digest"]
        one = ["--checkpoint", str(path)]
        assert (
            codec.main(["decompress", str(file), str(tmp_path / "a.png"), "--overwrite", *one]) == 0
        )


HEADERS = {  # model, side: what is said of it
    ("Hyperprior", 65535): "--max_pixels",
    ("Strange", 8): "Unknown model 'Strange'",
    ("Hyperprior", 8): "--checkpoint FILE",  # tables of no checkpoint here
}


@pytest.mark.parametrize("model,side", HEADERS)
def test_a_file_that_cannot_be_decoded_is_one_sentence(model, side, ckpts, tmp_path, capsys):
    file, words = tmp_path / "file.lic", HEADERS[model, side]
    file.write_bytes(pack(Header(model, 0.0067, "mse", "00" * 8, side, side, ()), [b"", b""]))
    arguments = ["decompress", str(file), str(tmp_path / "out.png"), "--ckpt_dir", str(ckpts)]
    assert codec.main(arguments) == 1
    one_line(capsys, "codec.py: ", words)
    assert files_in(tmp_path) == ["file.lic"]


def test_other_refusals_of_the_codec(ckpts, photographs, compressed, tmp_path, capsys):
    picture, file = str(photographs / "small.png"), str(compressed / "Factorized.lic")
    out, new, taken = (str(tmp_path / name) for name in ("out.png", "new.lic", "taken"))
    (tmp_path / "taken").write_text("old")
    (tmp_path / "taken.png").write_text("old")
    other = str(checkpoint.find("Factorized", ckpts)[1])
    as_hyperprior = ["--checkpoint", other, "--model_name", "Hyperprior"]
    for words, arguments in (
        ("No such file", ["compress", "nowhere.png", new]),
        ("No such file", ["decompress", "nowhere.lic", out]),
        ("No such file", ["info", "nowhere.lic"]),
        ("not an image", ["compress", file, new]),
        ("over itself", ["compress", picture, picture, "--overwrite"]),
        ("over itself", ["compress", file, "-o", str(compressed)]),
        ("is a folder", ["compress", picture, str(tmp_path)]),
        ("name of a picture", ["compress", picture, out, "--overwrite"]),  # of *.png, the last
        ("--overwrite", ["compress", picture, taken]),
        ("--overwrite", ["decompress", file, f"{taken}.png"]),
        ("--overwrite", ["decompress", file, "-o", new[:-4], "--csv", taken]),
        ("-o DIR", ["compress", picture]),
        ("-o DIR", ["compress", picture, picture, picture]),
        ("-o DIR", ["compress", str(photographs), new]),
        ("-o DIR", ["compress", picture, new, "--csv", taken]),
        ("is to be a folder", ["compress", picture, "-o", new]),
        (
            "no device cuda:99",
            ["compress", str(photographs), "-o", new[:-4], "--device", "cuda:99"],
        ),
        ("no image in", ["decompress", str(photographs), "-o", taken]),
        ("formats written", ["decompress", file, str(tmp_path / "out.xyz")]),
        ("more than the limit", ["decompress", file, out, "--max_pixels", "3499"]),
        ("more than the limit", ["compress", picture, new, "--max_pixels", "3499"]),
        ("written with another", ["decompress", file, out, "--checkpoint", other]),
        ("Lambda 3 is out of reach", ["compress", picture, new, "--lmbda", "3"]),
        ("bpp is a number", ["compress", picture, new, "--bpp", "nan"]),
        ("more than the 30 asked for", ["compress", picture, new, "--bytes", "30"]),
        ("holds a Factorized", ["compress", picture, new, *as_hyperprior]),
    ):
        places = [] if arguments[0] == "info" else ["--ckpt_dir", str(ckpts)]
        assert codec.main([*arguments, *places]) == 1, words
        one_line(capsys, "codec.py: ", words)
    assert files_in(tmp_path) == ["taken", "taken.png"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}
    compress = ["compress", picture, new]
    for words in (["info", file, out], [*compress, "--no_such_flag"], [*compress, "--effort", "-1"],
                  [*compress, "--lmbda", "0.01", "--bpp", "1"]):  # fmt: skip
        with pytest.raises(SystemExit, match="2"):
            codec.main(words)


def test_many_files_in_one_run(ckpts, photographs, tmp_path, capsys, monkeypatch):
    """Folders within folders, twin names, one that fails; again, what exists is left out."""
    pictures, out, back = (tmp_path / name for name in ("pictures", "out", "back"))
    for name in ("a.png", "sub/b.png", "sub/b.bmp", "c.png"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(photographs / "small.png").save(pictures / name)
    (pictures / "c.png").write_bytes(b"half")
    single = photographs / "odd.png"
    loads, load = [], checkpoint.load
    monkeypatch.setattr(checkpoint, "load", lambda *words: loads.append(1) or load(*words))
    places = ["--ckpt_dir", str(ckpts), "--csv", str(tmp_path / "sizes.csv")]
    words = ["compress", str(pictures), str(single), "-o", str(out), *places]
    assert codec.main(words) == 1 and len(loads) == 1
    said = capsys.readouterr()
    assert said.out == f"{out}: 4 written, 0 there already, 1 failed.\n"
    assert [line for line in said.err.splitlines() if "c.png" in line] == said.err.splitlines()[-1:]
    written = ["a.lic", "odd.lic", "sub/b.bmp.lic", "sub/b.png.lic"]
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*")) == written
    rows = read_csv(tmp_path / "sizes.csv")
    assert [row["file"] for row in rows] == [str(out / written[k]) for k in (0, 2, 3, 1)]
    for row in rows:
        size = Path(row["file"]).stat().st_size
        pixels = int(row["width"]) * int(row["height"])
        assert int(row["bytes"]) == size and float(row["bpp"]) == pytest.approx(8 * size / pixels)
        assert int(row["picture_bytes"]) == Path(row["picture"]).stat().st_size

    (out / "a.lic").write_bytes(b"kept")
    assert codec.main([*words, "--overwrite"]) == 1 and (out / "a.lic").stat().st_size > 4
    (pictures / "c.png").unlink()
    (out / "sub" / "b.bmp.lic").unlink()
    assert codec.main(words[:-2]) == 0  # without the CSV, which exists
    assert capsys.readouterr().out.endswith(f"{out}: 1 written, 3 there already, 0 failed.\n")
    words = ["decompress", str(out), "-o", str(back), "--suffix", ".bmp", *places, "--overwrite"]
    assert codec.main(words) == 0
    names = sorted(p.relative_to(back).as_posix() for p in back.rglob("*.*"))
    assert names == ["a.bmp", "odd.bmp", "sub/b.bmp.bmp", "sub/b.png.bmp"]
    assert read_image(back / "odd.bmp").shape[:2] == SIZES["odd.png"]
    files = {row["file"] for row in read_csv(tmp_path / "sizes.csv")}
    assert files == {row["file"] for row in rows}
    twice = ["compress", str(single), str(tmp_path / "x" / "odd.png"), "-o", str(out)]
    assert codec.main(twice) == 1
    assert "use two folders" in capsys.readouterr().err


def test_what_is_said_of_a_picture(ckpts, photographs, tmp_path, capsys):
    """That its colours were converted, or that the file is larger; transparency needs a flag."""
    pixels = Image.new("RGBA", (70, 50), (90, 90, 90, 128))
    pixels.save(tmp_path / "clear.webp", lossless=True, icc_profile=b"no profile")  # 100 bytes
    words = ["compress", str(tmp_path / "clear.webp"), str(tmp_path / "a.lic")]
    words += ["--ckpt_dir", str(ckpts), "--model_name", "Factorized"]
    assert codec.main(words) == 1
    assert "--background white" in capsys.readouterr().err
    assert codec.main([*words, "--background", "#ff0000"]) == 0
    error = capsys.readouterr().err
    assert "profile is damaged" in error and "is larger than" in error
    with pytest.raises(SystemExit, match="2"):
        codec.main([*words, "--background", "nocolour"])


def test_a_broken_checkpoint_beside_the_right_one_does_not_matter(ckpts, compressed, tmp_path):
    right = checkpoint.find("Factorized", ckpts)[0]
    folder = tmp_path / "Factorized"
    folder.mkdir()
    shutil.copy(right, folder)
    (folder / "epoch_0_lmbda_1.safetensors").write_bytes(b"half")
    arguments = ["decompress", str(compressed / "Factorized.lic"), str(tmp_path / "out.png")]
    assert codec.main([*arguments, "--ckpt_dir", str(tmp_path)]) == 0


def test_the_weights_are_found_from_any_folder(photographs, tmp_path, monkeypatch, capsys):
    """And they are the study's, though the folder has some of its own."""
    save_checkpoints(tmp_path / "ckpts", ["Hyperprior"])
    weights = str(ROOT / "ckpts" / "Hyperprior")
    command = [sys.executable, ROOT / "codec.py", "compress", photographs / "small.png", "a.lic"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert weights in done.stdout
    monkeypatch.chdir(tmp_path)
    assert codec.main(["decompress", "a.lic", "a.png"]) == 0
    assert weights in capsys.readouterr().out
    assert read_image(tmp_path / "a.png").shape[:2] == SIZES["small.png"]


def test_files_go_through_pipes(ckpts, photographs, tmp_path, capfdbinary):
    """Named ones, and the standard ones; the line that tells of the file does not."""
    places = ["--ckpt_dir", str(ckpts)]
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert codec.main(["compress", str(photographs / "small.png"), str(pipe), *places]) == 0
    reader.join()
    out, error = capfdbinary.readouterr()
    assert out == b"" and b"bits per pixel" in error
    data, before = (photographs / "small.png").read_bytes(), os.dup(0)
    try:
        for command in ("compress", "decompress"):
            end, start = os.pipe()
            os.dup2(end, 0)
            os.close(end)
            os.write(start, data)  # less than a pipe holds
            os.close(start)
            assert codec.main([command, "-", "-", *places]) == 0
            data, error = capfdbinary.readouterr()
            assert b"checkpoint" in error
            assert command != "compress" or data == read[0]
    finally:
        os.dup2(before, 0)
        os.close(before)
    (tmp_path / "a.png").write_bytes(data)
    assert read_image(tmp_path / "a.png").shape[:2] == SIZES["small.png"]
