"""CompressAI as the outside reference of tests and benchmarks.

    from evaluation.reference import import_compressai
    compressai = import_compressai()        # then compressai.zoo, compressai.models, ...

    python -m evaluation.reference compressai.utils.plot --help

CompressAI imports torchvision. Where torch is a CPU build and torchvision is the package
index's CUDA build of the same version, torchvision's compiled operators cannot be loaded and
`import torchvision` fails with "operator torchvision::nms does not exist": it goes on to
describe operators that were never declared. CompressAI uses none of them (it needs
`torchvision.transforms` only), so declaring their signatures is enough. A declared operator
without code still raises when it is called; nothing is computed wrongly in silence.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import runpy
import sys
from types import ModuleType

import torch

# The operators that torchvision describes unconditionally while it is imported.
_MISSING_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

# torch forgets a declaration when its Library object is collected, so it lives here.
_declarations: list[torch.library.Library] = []


def import_compressai() -> ModuleType:
    """Import and return `compressai`, where torchvision's operators do not load as well.

    Its submodules `ans`, `models`, `utils` and `zoo` are imported too. Further calls are free.

    Raises:
        ImportError: CompressAI or torchvision is not installed.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if not re.search(r"operator torchvision::\w+ does not exist", str(error)):
            raise
        _declare_missing_operators()
        _forget("torchvision")
        importlib.import_module("torchvision")
    for submodule in ("ans", "models", "utils", "zoo"):
        importlib.import_module(f"compressai.{submodule}")
    return sys.modules["compressai"]


def _declare_missing_operators() -> None:
    if not _declarations:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _MISSING_OPERATORS:
            library.define(schema)
        _declarations.append(library)


def _forget(package: str) -> None:
    """Drop what a failed import left behind: a second import would not bind those submodules."""
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def main(arguments: list[str] | None = None) -> None:
    """Run a CompressAI module as `python -m` would, after `import_compressai`."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.reference",
        description="Run a CompressAI command where torchvision's operators do not load.",
    )
    parser.add_argument("module", help="for example compressai.utils.plot")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="handed on unchanged")
    options = parser.parse_args(arguments)
    if options.module.split(".")[0] != "compressai":
        parser.error(f"{options.module!r} is not a CompressAI module")
    import_compressai()
    if importlib.util.find_spec(options.module) is None:
        parser.error(f"CompressAI has no module {options.module!r}")
    sys.argv = [options.module, *options.args]
    runpy.run_module(options.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
