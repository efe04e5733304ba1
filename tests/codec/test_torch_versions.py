"""The script for other versions of torch, tried with the version that is installed."""

import json

import torch

from tests import torch_versions
from tests.golden import make

HERE = torch.__version__.split("+")[0]


def test_this_version_gives_the_pinned_digests_in_its_own_environment(capfd):
    assert torch_versions.main([HERE, "--installed"]) == 0
    assert capfd.readouterr().out == f"torch {HERE}: the pinned digests\n"


def test_what_differs_is_told(monkeypatch, tmp_path, capfd):
    pinned = json.loads((make.FOLDER / "golden.json").read_text())
    pinned["Hyperprior"]["y_hat"] = "0" * 64
    tables = make.read_tables()
    (tmp_path / "golden.json").write_text(json.dumps(pinned))
    for name in pinned:
        data = (make.FOLDER / f"{name}.lic").read_bytes()
        (tmp_path / f"{name}.lic").write_bytes(data)
    monkeypatch.setattr(make, "FOLDER", tmp_path)
    monkeypatch.setattr(make, "read_tables", lambda: tables)
    assert torch_versions.here()["different"] == ["Hyperprior: other decoded latents"]

    said = json.dumps({"torch": "2.0.0", "different": []})
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\necho '{said}'\n")
    fake.chmod(0o755)
    assert torch_versions.check(fake, "2.0.0") == []
    assert torch_versions.check(fake, "2.1.0") == ["it is torch 2.0.0"]
    fake.write_text("#!/bin/sh\necho 'No module named torch' >&2; exit 1\n")
    assert torch_versions.check(fake, "2.0.0") == [
        "the streams cannot be coded (No module named torch)"
    ]


def test_the_other_packages_are_those_of_the_requirements():
    assert len(torch_versions.pins()) == len(torch_versions.PACKAGES)
    assert all("==" in pin for pin in torch_versions.pins())
