"""The one reader and writer of CSVs: what is written is read again, damage is a sentence."""

from __future__ import annotations

import math

import pytest

from evaluation.tables import number, number_or_nan, read, write
from models.errors import DataError
from models.files import printable

KINDS = {"image": str, "bits": int, "bpp": number, "ms_ssim": number_or_nan}
TITLE = "\x1b]0;title\x07.png"
NAMES = ["a.png", "x\r.png", "a\nb,c\"d'", TITLE, "caf\udce9.png", "é 中.png", "", " "]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_again(tmp_path, name):
    row = {"image": name, "bits": 8, "bpp": 0.25, "ms_ssim": math.nan, "more": 1}
    write(tmp_path / "a.csv", [row, row | {"ms_ssim": 0.5}])
    first, second = read(tmp_path / "a.csv", KINDS)
    assert first["image"] == printable(name) and printable(name).isprintable()
    assert (first["bits"], first["bpp"], first["more"]) == (8, 0.25, "1")
    assert math.isnan(first["ms_ssim"]) and second["ms_ssim"] == 0.5
    write(tmp_path / "b.csv", [first, second])
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()


def test_printable_names_differ_where_names_do_and_stay():
    shown = [printable(name) for name in NAMES]
    assert len(set(shown)) == len(NAMES) and list(map(printable, shown)) == shown
    assert shown[0] == "a.png" and shown[1] == r"x\r.png" and shown[5] == "é 中.png"


HEAD = "image,bits,bpp,ms_ssim\n"
BROKEN = {
    "empty": ("", "no column image, bits, bpp, ms_ssim"),
    "column": ("image,bits,ms_ssim\n", "no column bpp"),
    "short": (f"{HEAD}a,1,2,3\nb,1\n", "line 3, has not as many cells"),
    "long": (f"{HEAD}a,1,2,3,4\n", "line 2, has not as many cells"),
    "text": (f"{HEAD}a,1,x,3\n", "line 2, column bpp: 'x' is not a number"),
    "no value": (f"{HEAD}a,1,,3\n", "line 2, column bpp: '' is not a number"),
    "not finite": (f"{HEAD}a,1,inf,3\n", "column bpp: 'inf' is not a number"),
    "not whole": (f"{HEAD}a,1.5,2,3\n", "column bits: '1.5' is not a whole number"),
    "quotes": (f'{HEAD}"a,1,2,3\n', "cannot be read as CSV"),
    "not UTF-8": (f"{HEAD}\xff", "cannot be read as CSV"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_table_is_one_sentence(tmp_path, case):
    content, message = BROKEN[case]
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=message) as caught:
        read(path, KINDS)
    assert str(caught.value).startswith(str(path)) and str(caught.value).endswith(".")


def test_a_table_that_is_not_there_is_an_error(tmp_path):
    for path in (tmp_path / "a.csv", tmp_path / "none" / "a.csv"):
        with pytest.raises(DataError, match="does not exist"):
            read(path)
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)


def test_no_rows_need_columns(tmp_path):
    write(tmp_path / "a.csv", [], KINDS)
    assert read(tmp_path / "a.csv", KINDS) == []
    with pytest.raises(ValueError, match="fields not in"):
        write(tmp_path / "b.csv", [{"image": "a", "unknown": 1}], KINDS)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
