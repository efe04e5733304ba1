"""Checkpoints from strangers: refused in words, before memory is spent on them."""

import hashlib
import json
import os
import zipfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from models import checkpoint, convert
from models.errors import CheckpointError
from models.presets import OPERATING_POINTS
from tests.helpers import NAMES, each_model, peak_memory


@pytest.fixture(scope="module")
def saved(ckpts):
    """A checkpoint of each model, by name; tests copy before they damage."""
    return {name: checkpoint.find(name, ckpts)[0] for name in NAMES}


def rewrite(source, path, change_tensors=None, change_metadata=None):
    """A copy of a checkpoint with its tensors or its metadata changed."""
    tensors = load_file(source)
    with safe_open(source, framework="pt") as file:
        metadata = json.loads(file.metadata()["metadata"])
    del metadata["checksums"]  # as in older files, which stay readable
    if change_tensors:
        change_tensors(tensors)
    if change_metadata:
        change_metadata(metadata)
    save_file(tensors, path, {"metadata": json.dumps(metadata)})
    return path


@each_model
def test_cut_files_are_refused(name, saved, tmp_path):
    data = saved[name].read_bytes()
    for length in (0, 4, 8, 100, len(data) // 2, len(data) - 1):
        path = tmp_path / "cut.safetensors"
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="cut short"):
            checkpoint.load(path)
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        checkpoint.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        convert.load_tensors(tmp_path)


@each_model
def test_a_changed_byte_in_any_tensor_is_noticed(name, saved, tmp_path):
    path = tmp_path / "damaged.safetensors"
    data = saved[name].read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    for tensor, entry in header.items():
        if tensor != "__metadata__" and entry["data_offsets"][0] < entry["data_offsets"][1]:
            place = start + entry["data_offsets"][0]
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(CheckpointError, match=f"is damaged in {tensor}"):
                checkpoint.read_tensors(path)
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.load(path)


def test_a_file_of_the_study_is_as_it_was_published(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "STUDY", tmp_path)
    path, other = tmp_path / "Hyperprior" / "a.safetensors", tmp_path / "Hyperprior" / "own"
    path.parent.mkdir()
    for place in (path, other):
        place.write_bytes(saved["Hyperprior"].read_bytes())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / checkpoint.SUMS).write_text(f"{digest}  Hyperprior/a.safetensors\n")
    checkpoint.load(path)
    for place in (path, other):
        place.write_bytes(saved["Factorized"].read_bytes())
    with pytest.raises(CheckpointError, match="a.safetensors is not the study's"):
        checkpoint.load(path)
    assert type(checkpoint.load(other)).__name__ == "Factorized"


def test_every_published_checkpoint_is_listed():
    lines = (checkpoint.STUDY / checkpoint.SUMS).read_text().splitlines()
    listed = [line.split("  ")[1] for line in lines]
    points = [(p.model, p.lmbda) for p in OPERATING_POINTS]
    assert sorted(name.split("/")[0] for name in listed) == sorted(model for model, _ in points)
    for model, lmbda in points:
        found = checkpoint.find(model, lmbda=lmbda)[-1]
        assert found.relative_to(checkpoint.STUDY).as_posix() in listed
        checkpoint.check_study(found)


def set_first(key, value):
    return lambda tensors: tensors[key].view(-1)[:1].fill_(value)


def drop_last_table(latent):
    """A set of tables that is consistent in itself, but one short."""

    def change(tensors):
        own = {key: value for key, value in tensors.items() if key.startswith(f"tables.{latent}.")}
        length = int(own[f"tables.{latent}.lengths"][-1])
        for key, value in own.items():
            tensors[key] = value[: -length if key.endswith("frequencies") else -1].clone()

    return change


def table_of_ones(tensors):
    """One Gaussian's table of 2**24 entries, which sum to what they should."""
    own = {key.rsplit(".")[-1]: tensors[f"tables.y.{key}"] for key in ("frequencies", "lengths")}
    length = int(own["lengths"][-1])
    ones = torch.ones(1 << 24, dtype=torch.int32)
    tensors["tables.y.frequencies"] = torch.cat([own["frequencies"][:-length], ones])
    own["lengths"][-1] = len(ones)


def with_dtype(key, dtype):
    return lambda tensors: tensors.update({key: tensors[key].to(dtype)})


TENSOR_DAMAGES = {
    "NaN": (set_first("g_a.0.weight", float("nan")), "NaN or infinity in g_a.0.weight"),
    "missing weight": (lambda t: t.pop("g_s.0.weight"), "does not hold the model"),
    "additional weight": (lambda t: t.update(extra=torch.ones(3)), "does not hold the model"),
    "wrong shape": (lambda t: t.update({"g_a.0.bias": torch.ones(3)}), "does not hold the model"),
    "changed integer weight": (set_first("h_s.0.weight", 0.7), "digest"),
    "changed table": (
        lambda t: t["tables.y.frequencies"][:2].copy_(
            t["tables.y.frequencies"][:2] + torch.tensor([1, -1], dtype=torch.int32)
        ),
        "digest",
    ),
    "complex weight": (with_dtype("g_a.0.weight", torch.complex64), "as torch.complex64, not"),
    "integer weight": (with_dtype("h_s.0.bias", torch.int64), "as torch.int64, not as floating"),
    "wide table": (with_dtype("tables.y.first", torch.int64), "as torch.int64, not as int32"),
    "table of ones": (table_of_ones, "inconsistent"),
    "table of tables": (
        lambda t: t.update({"tables.y.frequencies": t["tables.y.frequencies"][:, None]}),
        "inconsistent",
    ),
    "missing table": (lambda t: t.pop("tables.z.lengths"), "does not hold the model"),
    "too few Gaussians": (drop_last_table("y"), "The tables are"),
    "too few channels": (drop_last_table("z"), "The tables are"),
}


@pytest.mark.parametrize("change,message", TENSOR_DAMAGES.values(), ids=TENSOR_DAMAGES.keys())
def test_damaged_tensors_are_refused(change, message, saved, tmp_path):
    path = rewrite(saved["Hyperprior"], tmp_path / "damaged.safetensors", change)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


CLAIM = "does not hold the model it claims"
METADATA_DAMAGES = [
    ("model", "Factorized", CLAIM),
    ("model", "Vision", f"{CLAIM}: Unknown model 'Vision'"),
    ("N", 16, CLAIM),
    ("M", -1, CLAIM),
    ("digest", "0" * 16, "do not have its digest"),
    *((key, None, f"its {key} is None") for key in checkpoint.METADATA),
    ("N", "eight", "its N is 'eight'"),
    ("lmbda", "low", "its lmbda is 'low'"),
    ("lmbda", float("nan"), "its lmbda is nan"),
    ("lmbda", -1, "its lmbda is -1"),
    ("metric", "vmaf", "its metric is 'vmaf'"),
]


@pytest.mark.parametrize(("key", "value", "message"), METADATA_DAMAGES)
def test_wrong_metadata_are_refused(key, value, message, saved, tmp_path):
    def change(metadata):
        metadata[key] = value
        if value is None:
            del metadata[key]

    path = rewrite(saved["Hyperprior"], tmp_path / "damaged.safetensors", None, change)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(path)


@pytest.mark.parametrize("sizes", [{"N": 50_000}, {"M": 10**9}, {"M": 10**30}])
@each_model
def test_a_claim_of_a_huge_model_costs_no_memory(name, sizes, saved, tmp_path):
    """N = 50,000 would be 250 GB for one layer."""
    path = rewrite(saved[name], tmp_path / "a.safetensors", None, lambda m: m.update(sizes))
    before = peak_memory()
    with pytest.raises(CheckpointError, match="does not hold the model it claims"):
        checkpoint.load(path)
    assert peak_memory() - before < 64 << 20


PICKLES = (b"\x80\x02.", b"\x80\x02]q\x00(K\x01e.", b"N.", b"PK\x03\x04" + bytes(50))


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"root:x:0:0:root:/root:/bin/bash\n", *PICKLES])
def test_any_file_is_a_sentence(content, suffix, tmp_path):
    path = tmp_path / f"passwd{suffix}"
    path.write_bytes(content)
    for read in (convert.load_tensors, checkpoint.load):
        with pytest.raises(CheckpointError) as refusal:
            read(path)
        assert str(path) in str(refusal.value) and str(refusal.value).endswith(".")


def test_other_files_are_refused_in_words(tmp_path):
    plain = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(2)}, plain)
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        checkpoint.load(plain)
    for text in ("[]", "3", "{", '"x"', "null", "[" * 100_000, '{"N": ' + "9" * 5000 + "}"):
        save_file({"a": torch.ones(2)}, plain, {"metadata": text})
        with pytest.raises(CheckpointError):
            checkpoint.load(plain)
    for weights in ([1, 2, 3], {"a": "text"}):
        torch.save(weights, tmp_path / "other.pth")
        with pytest.raises(CheckpointError, match="no (file|table) of weights"):
            convert.load_tensors(tmp_path / "other.pth")


HOSTILE = {
    "sparse": (lambda: torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6)), "sparse"),
    "sparse rows": (lambda: torch.eye(3).to_sparse_csr(), "sparse"),
    "meta": (lambda: torch.empty(10**6, 10**6, device="meta"), "without data"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "sparse or"),
    "quantised": (lambda: torch.quantize_per_tensor(torch.ones(9), 1, 0, torch.qint8), "qint8"),
    "complex": (lambda: torch.ones(9, dtype=torch.complex64), "complex64"),
    "integers": (lambda: torch.ones(9, dtype=torch.int32), "int32, not as floating-point"),
    "expanded": (lambda: torch.ones(1).expand(26_000, 26_000), "bytes of weights"),
    "expanded halves": (lambda: torch.ones(1).half().expand(26_000, 26_000), "bytes of weights"),
    "expanded beyond numbers": (lambda: torch.ones(1).expand(1 << 31, 1 << 31), "bytes of weights"),
}


@pytest.mark.filterwarnings("ignore")  # of kinds of tensors that torch gives up
@pytest.mark.parametrize("make_tensor,message", HOSTILE.values(), ids=HOSTILE.keys())
def test_tensors_that_are_no_weights_are_refused_at_no_cost(make_tensor, message, tmp_path):
    path = tmp_path / "hostile.pth"
    torch.save({"g_a.0.weight": make_tensor(), "g_a.6.weight": torch.ones(3)}, path)
    before = peak_memory()
    with pytest.raises(CheckpointError, match=message):
        convert.load_tensors(path)
    assert peak_memory() - before < 64 << 20


def test_shared_and_compressed_numbers_are_refused_at_no_cost(tmp_path):
    """One storage seen a thousand times, and zeros in a deflated archive."""
    one = torch.ones(1 << 18)
    torch.save({f"{k}.weight": one.view(512, 512) for k in range(1000)}, tmp_path / "shared.pth")
    torch.save({"weight": torch.zeros(9)}, tmp_path / "small.pth")
    with (
        zipfile.ZipFile(tmp_path / "small.pth") as source,
        zipfile.ZipFile(tmp_path / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            data = source.read(entry) + bytes((1 << 20) * entry.filename.endswith("data/0"))
            target.writestr(entry.filename, data)
    before = peak_memory()
    for name in ("shared", "deflated"):
        with pytest.raises(CheckpointError, match="bytes of weights"):
            convert.load_tensors(tmp_path / f"{name}.pth")
    assert peak_memory() - before < 64 << 20


def test_weights_of_a_huge_width_cost_no_memory(tmp_path):
    """What they say by the shape of two layers is not built before the others are compared."""
    wide = {"g_a.0.weight": torch.ones(50_000, 3), "g_a.6.weight": torch.ones(12, 3)}
    torch.save(wide, tmp_path / "wide.pth")
    before = peak_memory()
    with pytest.raises(CheckpointError, match="does not fit"):
        convert.load_compressai(tmp_path / "wide.pth", "Hyperprior", 3, "mse")
    assert peak_memory() - before < 64 << 20
    torch.save({"g_a.0.weight": torch.tensor(1.0)}, tmp_path / "wide.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        convert.load_compressai(tmp_path / "wide.pth", "Hyperprior", 3, "mse")


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_a_pickle_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.pth.tar")
    with pytest.raises(CheckpointError):
        convert.load_tensors(tmp_path / "harmful.pth.tar")
    assert not (tmp_path / "harmed").exists()
