"""codec.py: compress, decompress, info; damaged files and wrong checkpoints."""

import json
import shutil

import numpy as np
import pytest

import codec
from models import checkpoint
from models.coding.container import Header, pack
from models.images import read_image, to_uint8
from tests.helpers import NAMES
from tests.programs import LAMBDAS, SIZES, files_in, one_line


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
        assert codec.read_file(file, None)[1].digest == checkpoint.read_metadata(path)["digest"]
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
        ("no checkpoint with lambda 3", ["compress", picture, out, "--lmbda", "3"]),
        ("holds a Factorized", ["compress", picture, out, "--checkpoint", other,
                                "--model_name", "Hyperprior"]),
    ):  # fmt: skip
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
