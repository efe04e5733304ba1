"""test.py: from checkpoints and images to real files, tables and figures; what it refuses."""

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from evaluation import bench, results
from evaluation import photographs as photographs_of
from evaluation.bench import DecoderProcess
from evaluation.metrics import psnr
from evaluation.points import trained_point
from evaluation.results import Results, means, table
from models import checkpoint, cli
from models.coding.container import read_header
from models.coding.gain import Gain
from models.errors import CodecError, UsageError
from models.files import printable
from models.images import read_image, write_image
from tests.helpers import NAMES
from tests.programs import (
    LAMBDAS,
    SIZES,
    SecondCodec,
    files_in,
    load_test_program,
    one_line,
    read_csv,
    result_row,
    save_checkpoints,
)

driver = load_test_program()


@pytest.mark.parametrize("name", NAMES)
def test_every_model_goes_through_real_files(
    name, ckpts, photographs, tmp_path, capsys, monkeypatch
):
    if name != "Hyperprior":  # one process of a decoder stands for all
        monkeypatch.setattr(bench, "DecoderProcess", SecondCodec)
    out, res = tmp_path / "out", tmp_path / "res"
    code = driver.main([
        "--model_name", name.upper(), "--ckpt_dir", str(ckpts), "--dataset_path", str(photographs),
        "--outdir", str(out), "--resultdir", str(res), "--lmbda", "0.0483", "--json",
        "--epoch_num", "3", "--device", "cpu", "--entropy_device", "cuda",
    ])  # fmt: skip
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "no longer needed" in said.out and "epoch_3" in said.out
    rows = read_csv(res / "per_image" / f"{name}.csv")
    assert list(rows[0]) == list(results.IMAGE_COLUMNS)
    assert {row["image"] for row in rows} == set(SIZES)
    for row in rows:
        stem = Path(row["image"]).stem
        file = out / "lmbda_0.0483" / f"{stem}.lic"
        assert int(row["bits"]) == 8 * file.stat().st_size
        original = read_image(photographs / row["image"])
        decoded = read_image(file.with_suffix(".png"))
        assert float(row["psnr"]) == pytest.approx(psnr(original, decoded), abs=1e-5)
        assert (int(row["height"]), int(row["width"])) == SIZES[row["image"]] == decoded.shape[:2]
        assert (row["ms_ssim"] == "") == (min(SIZES[row["image"]]) < 161)
        assert 0 < float(row["estimate_bpp"]) < 2 * float(row["bpp"])
    (mean,) = read_csv(res / f"{name}.csv")
    assert ",".join(mean) == "lmbda,num_pixels,bits,bpp,psnr,time(enc),time(dec),ms_ssim"
    assert float(mean["bpp"]) == pytest.approx(np.mean([float(r["bpp"]) for r in rows]), abs=1e-6)
    assert float(mean["num_pixels"]) == np.mean([h * w for h, w in SIZES.values()])
    figures = [name for name in files_in(out) if name.startswith(("rd", "contact"))]
    assert figures == ["contact_sheet.png", "rd_psnr.png"]  # small.png has no MS-SSIM
    table = said.out.split("\n\n")[1].splitlines()
    assert len(table) == 2 and len(set(map(len, table))) == 1
    written = json.loads((res / f"{name}.json").read_text())
    assert written["results"]["bpp"] == [pytest.approx(float(mean["bpp"]), abs=1e-6)]


def test_a_lambda_between_checkpoints_is_one_of_theirs_at_a_gain(
    ckpts, photographs, tmp_path, monkeypatch, capsys
):
    """Of 0.0067 and 0.0483: 0.03 from the one above it, and its estimate knows the gain."""
    monkeypatch.setattr(bench, "DecoderProcess", SecondCodec)
    words = ["--model_name", "Hyperprior", "--ckpt_dir", ckpts, "--dataset_path", photographs]
    words += ["--outdir", tmp_path, "--lmbda", 0.03, 0.0483, "--device", "cpu"]
    assert driver.main(list(map(str, words))) == 0
    assert "lambda 0.03: " in (said := capsys.readouterr().out)
    assert "epoch_12_lmbda_0.0483.safetensors at a gain of 0.7881" in said
    rows = read_csv(tmp_path / "per_image" / "Hyperprior.csv")
    assert [row["lmbda"] for row in rows] == ["0.03", "0.03", "0.0483", "0.0483"]
    gained, plain = (
        {p.stem: p.read_bytes() for p in (tmp_path / f"lmbda_{lmbda}").glob("*.lic")}
        for lmbda in (0.03, 0.0483)
    )
    for row in rows[:2]:
        stem = Path(row["image"]).stem
        header = read_header(gained[stem])
        assert header.lmbda == read_header(plain[stem]).lmbda
        assert header.gain == Gain(math.sqrt(0.03 / 0.0483)).value
        assert int(row["bits"]) == 8 * len(gained[stem]) < 8 * len(plain[stem])
        streams = 8 * sum(header.lengths) / (int(row["width"]) * int(row["height"]))
        assert float(row["estimate_bpp"]) == pytest.approx(streams, rel=0.02)


def test_the_decoder_is_another_process_that_explains_failures(ckpts, photographs, tmp_path):
    point = trained_point(checkpoint.find("Factorized", ckpts)[0], "Factorized")
    data = point.load().encode(read_image(photographs / "small.png"))
    file = tmp_path / "small.lic"
    file.write_bytes(data[:-1])
    with DecoderProcess(point) as decoder:
        assert decoder.process.pid != os.getpid()
        with pytest.raises(UsageError, match=r"small\.lic.*cut short"):
            decoder.decode(file)
        decoder.process.kill()
        decoder.process.join()
        with pytest.raises(UsageError, match="exit code -9"):
            decoder.decode(file)


BROKEN = b"\x89PNG\r\n\x1a\nnothing"


def broken_image(folder):
    (folder / "broken.png").write_bytes(BROKEN)


def other_results(folder):
    Results(folder.parent / "res", "Hyperprior").merge([result_row(0.5, "kodim01.png")])
    write_image(folder / "a.png", np.zeros((8, 8, 3), np.uint8))


FAILURES = {
    "no checkpoint": ([], {"ckpt_dir": "nowhere"}, None, ("no checkpoint", "train.py")),
    "no such epoch": (["--epoch_num", "77"], {}, None, ("no checkpoint of epoch 77",)),
    "unknown model": (["--model_name", "Nope"], {}, None, ("Unknown model 'Nope'", "Factorized")),
    "empty folder": ([], {}, lambda folder: None, ("no image in",)),
    "no folder": ([], {"dataset_path": "nowhere"}, None, ("nowhere does not exist",)),
    "broken image": ([], {}, broken_image, ("broken.png",)),
    "large image": (["--max_pixels", "63"], {}, None, ("a.png has 8x8 = 64 pixels", "limit")),
    "other images": ([], {}, other_results, ("kodim01.png", "another --resultdir")),
    "no such device": (["--device", "cuda:99"], {}, None, ("no device cuda:99",)),
    "out of reach": (["--lmbda", "0.5"], {}, None, ("0.5 is out of reach",)),
    "other metric": (["--metric", "ms-ssim"], {}, None, ("--metric mse",)),
    "two choices": (["--quality", "1", "--lmbda", "1"], {}, None, ("drop one",)),
    "no zoo model": (["--model_name", "compressai:x", "--quality", "1"], {}, None, ("mbt2018",)),
    "no quality": (["--model_name", "compressai:mbt2018"], {}, None, ("--quality",)),
    "quality": (["--model_name", "compressai:mbt2018", "--quality", "9"], {}, None, ("1 to 8",)),
    "not the study's": (["--record"], {}, None, ("24 Kodak images", "drop it")),
    "two folders": (["--record"], {}, None, ("drop it or --resultdir",)),
    "no search": (["--effort", "1", "--metric", "ms-ssim"], {}, None, ("drop --effort",)),
    "search of another's": (
        ["--effort", "1", "--model_name", "compressai:mbt2018"], {}, None, ("drop --effort",)),
    "no module": (["--import_module", "no_such_module"], {}, None, ("no_such_module",)),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_what_cannot_be_tested_is_one_clear_line(case, ckpts, tmp_path, capsys):
    arguments, changed, prepare, words = FAILURES[case]
    folder = tmp_path / "images"
    folder.mkdir()
    (prepare or (lambda f: write_image(f / "a.png", np.zeros((8, 8, 3), np.uint8))))(folder)
    places = {"ckpt_dir": ckpts, "dataset_path": folder, "outdir": tmp_path / "out"}
    places |= {"resultdir": tmp_path / "res"} | changed
    if case == "not the study's":
        del places["resultdir"]
    places = [text for k, v in places.items() for text in (f"--{k}", str(v))]
    before = files_in(tmp_path)
    assert driver.main(["--model_name", "Hyperprior", *places, *arguments]) == 1
    one_line(capsys, "test.py: ", *words)
    assert files_in(tmp_path) == before


def test_results_are_recorded_only_when_asked_and_only_the_studys(monkeypatch, tmp_path, ckpts):
    class Chosen(Exception):
        pass

    def results_in(folder, name):
        raise Chosen(str(folder))

    kodak, mine = tmp_path / "kodak", tmp_path / "mine"
    for grey, folder in enumerate((kodak, mine)):
        write_image(folder / "a.png", np.full((8, 8, 3), grey, np.uint8))
    digest = hashlib.sha256((kodak / "a.png").read_bytes()).hexdigest()
    (tmp_path / "list").write_text(f"{digest}  a.png\n")
    monkeypatch.setattr(photographs_of, "KODAK", tmp_path / "list")
    monkeypatch.setattr(checkpoint, "STUDY", ckpts)
    monkeypatch.setattr(driver, "Results", results_in)
    monkeypatch.setattr(driver, "guarded", lambda _, work: work())
    name, others = "CheckerboardAutogressive", save_checkpoints(tmp_path / "others", NAMES[-1:])
    one = checkpoint.find(name, ckpts)[0]
    for arguments, folder, recorded in (
        (["--dataset_path", kodak], f"outputs/{name}/kodak", True),
        (["--dataset_path", kodak, "--lmbda", "0.03"], f"outputs/{name}/kodak", False),
        (["--dataset_path", kodak, "--checkpoint", one], f"outputs/{name}/kodak", False),
        (["--dataset_path", kodak, "--ckpt_dir", others], f"outputs/{name}/kodak", False),
        (["--dataset_path", kodak, "--effort", "1"], f"outputs/{name}-searched1/kodak", False),
        (["--dataset_path", mine], f"outputs/{name}/mine", False),
        (["--dataset_path", mine / "a.png"], f"outputs/{name}/a", False),
        ([], f"outputs/{name}", False),
        (["--outdir", "x"], "x", False),
        (["--resultdir", "y"], "y", False),
    ):
        words = list(map(str, ["--model_name", "Checkerboard", "--ckpt_dir", ckpts, *arguments]))
        with pytest.raises(Chosen, match=f"^{folder}$"):
            driver.main(words)
        with pytest.raises(Chosen if recorded else UsageError, match="^statistics$|--record"):
            driver.main([*words, "--record"])
    demonstration = checkpoint.path_for(name, 1, 0.5, ckpts)
    provenance = {"demonstration": True}
    checkpoint.save(demonstration, checkpoint.load(one), config={}, provenance=provenance)
    words = ["--model_name", name, "--ckpt_dir", ckpts, "--dataset_path", kodak, "--record"]
    with pytest.raises(UsageError, match="--record"):
        driver.main(list(map(str, words)))
    demonstration.unlink()


def test_odd_names_and_damage_in_folders_inside_folders(monkeypatch, tmp_path, ckpts, capsys):
    """Every readable image is measured, the others are named; what is stored is read again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "DecoderProcess", SecondCodec)
    names = ["a.png", "a.bmp", "inside/a.png", "x\r.png", "\x1b]0;title\x07.png", "caf\udce9.png"]
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(exist_ok=True)
        write_image(tmp_path / f"plain{path.suffix}", np.full((8, 8, 3), 9, np.uint8))
        (tmp_path / f"plain{path.suffix}").rename(path)
    (tmp_path / "photos" / "broken\x1b[0m.png").write_bytes(BROKEN)
    words = ["--ckpt_dir", str(ckpts), "--dataset_path", "photos", "--lmbda", str(LAMBDAS[0])]
    for _ in range(2):  # the second run reads what the first has stored
        assert driver.main(words) == 1
        said = capsys.readouterr()
        assert "6 image(s), without 1" in said.out
        one = r"test.py: left out: photos/broken\x1b[0m.png is not an image"
        assert said.err.startswith(one) and said.err.count("\n") == 1
        assert (said.out + said.err).replace("\n", "").isprintable()
    folder = tmp_path / "outputs/Hyperprior/photos"
    stored = {row["image"] for row in read_csv(folder / "per_image/Hyperprior.csv")}
    assert stored == {printable(name) for name in names}
    files = [p.relative_to(folder / "lmbda_0.0067") for p in folder.rglob("*.lic")]
    assert {"a.png.lic", "a.bmp.lic", "inside/a.lic", r"x\r.lic"} < set(map(str, files))
    assert len(files) == len(names)


# Results ------------------------------------------------------------------------------------


def test_means_by_hand(tmp_path):
    """MS-SSIM that an image does not have stands in no table."""
    small = result_row(0.5, "b.png", bpp=2.0, similarity=float("nan"))
    first, second = means([result_row(0.5), small, result_row(0.1)])
    keys = ("lmbda", "bpp", "bits", "num_pixels")
    assert [first[key] for key in keys] == [0.1, 1.0, 200, 200] and first["ms_ssim"] == 0.9
    assert [second[key] for key in keys] == [0.5, 1.5, 300, 200] and math.isnan(second["ms_ssim"])
    shown = [line.split()[6:8] for line in table([("x", first), ("x", second)]).splitlines()[1:]]
    assert shown == [["0.90000", "10.000"], ["-", "-"]]
    (stored,) = Results(tmp_path, "x").merge([small]) and read_csv(tmp_path / "x.csv")
    assert stored["ms_ssim"] == ""


def test_untested_lambdas_are_kept_and_tested_ones_replaced(tmp_path):
    store = Results(tmp_path, "Model")
    store.merge([result_row(0.0067), result_row(0.0483)])
    rows = store.merge([result_row(0.0483, bpp=3.0)])
    assert [(r["lmbda"], r["bpp"]) for r in rows] == [(0.0067, 1.0), (0.0483, 3.0)]
    stored = [(r["lmbda"], r["bpp"]) for r in read_csv(store.summary)]
    assert stored == [("0.0067", "1.000000"), ("0.0483", "3.000000")]


def test_results_on_other_images_are_not_mixed_or_overwritten(tmp_path):
    store = Results(tmp_path, "Model")
    store.merge([result_row(0.1)])
    before = store.summary.read_text(), store.per_image.read_text()
    with pytest.raises(UsageError, match="other images"):
        store.merge([result_row(0.1, "b.png")])
    assert (store.summary.read_text(), store.per_image.read_text()) == before
    store.per_image.write_text("lmbda,image\n1,2\n")
    with pytest.raises(UsageError, match=r"has no column .* Remove it, or choose another"):
        store.rows()
    store.per_image.unlink()
    with pytest.raises(UsageError, match="not known what it was measured on"):
        store.rows()


def test_foreseen_failures_are_sentences_and_others_are_not(capsys):
    full = OSError(28, "No space left on device", "x.png")
    assert "disk is full" in cli.sentence(full)
    assert "memory" in cli.sentence(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert cli.sentence(RuntimeError("shape mismatch")) is None
    kinds = CodecError.__subclasses__()
    assert len(kinds) == 7 and {cli.sentence(kind("a\n b")) for kind in kinds} == {"a b"}
    with pytest.raises(KeyError):
        cli.guarded("program", lambda: {}["mistake"])
