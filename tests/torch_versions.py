"""The golden streams with other versions of torch: the same symbols, in environments of their own.

    python -m tests.torch_versions 2.11.0 2.14.1
    python -m tests.torch_versions 2.13.0 --index_url https://download.pytorch.org/whl/cpu

For each version an environment is created in a temporary folder, torch is installed there
beside the other pins of requirements.txt that coding needs, and the committed files of
tests/golden are decoded and encoded again: latents, files and integer weights must be those of
golden.json. The package index gives Linux the builds with CUDA, gigabytes each; --index_url
names another index. The exit code is 0 if every version gave the pinned digests.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy", "constriction", "safetensors", "pillow", "tqdm")  # besides torch


def pins() -> list[str]:
    """The requirements of coding, without torch, as pip takes them."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return [re.search(rf"^{name}==[^\s#]+", text, re.MULTILINE)[0] for name in PACKAGES]


def create(folder: Path, version: str, index_url: str | None, installed: bool) -> Path:
    """An environment with that torch; returns its interpreter. CalledProcessError of pip.

    `installed`: use the packages of the calling environment, and install nothing.
    """
    venv.create(folder, with_pip=not installed)
    python = folder / "bin" / "python"
    if installed:
        site = next((folder / "lib").glob("python*/site-packages"))
        outside = [p for p in sys.path if p.endswith("site-packages")]
        (site / "installed.pth").write_text("\n".join(outside) + "\n", encoding="utf-8")
        return python
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    torch_index = ["--index-url", index_url] if index_url else []
    subprocess.run([*pip, *torch_index, f"torch=={version}"], check=True)
    subprocess.run([*pip, *pins()], check=True)
    return python


def check(python: Path, version: str) -> list[str]:
    """What differs from golden.json with that interpreter; empty if nothing does."""
    command = [python, "-m", "tests.torch_versions", "--here"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        return [f"the streams cannot be coded ({lines[-1]})"]
    found = json.loads(done.stdout.splitlines()[-1])
    if found["torch"].split("+")[0] != version:
        return [f"it is torch {found['torch']}"]
    return found["different"]


def here() -> dict:
    """The version of torch in this process, and what it makes of the golden streams."""
    import torch

    from models.coding.container import unpack
    from tests.golden import make

    pinned = json.loads((make.FOLDER / "golden.json").read_text(encoding="utf-8"))
    tables, different = make.read_tables(), []
    for name, expected in pinned.items():
        model = make.model_of(name, tables)
        _, streams = unpack((make.FOLDER / f"{name}.lic").read_bytes())
        y_hat = model.decode([[stream] for stream in streams], *make.PADDED)
        written = [stream[0] for stream in model.encode(make.latents(model))]
        for what, same in (
            ("integer weights", model.digest == expected["integers"]),
            ("decoded latents", make.digest_of(y_hat) == expected["y_hat"]),
            ("written streams", written == streams),
        ):
            different += [] if same else [f"{name}: other {what}"]
    return {"torch": torch.__version__, "different": different}


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torch_versions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("versions", nargs="*", metavar="VERSION", help="of torch, such as 2.11.0")
    parser.add_argument("--index_url", metavar="URL", help="where pip looks for torch")
    parser.add_argument("--installed", action="store_true",
        help="install nothing: use the packages of this environment (tries the script)",
        )  # fmt: skip
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args(arguments)
    if flags.here:
        print(json.dumps(here()))
        return 0
    if not flags.versions:
        parser.error("name at least one version of torch")
    failed = 0
    for version in flags.versions:
        with tempfile.TemporaryDirectory() as folder:
            try:
                python = create(Path(folder), version, flags.index_url, flags.installed)
                problems = check(python, version)
            except subprocess.CalledProcessError:
                problems = ["it cannot be installed"]  # pip has said why
        print(f"torch {version}: {'; '.join(problems) or 'the pinned digests'}", flush=True)
        failed += bool(problems)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
