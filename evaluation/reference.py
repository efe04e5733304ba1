"""CompressAI as the outside reference of tests and benchmarks.

CompressAI imports torchvision for its transforms. Beside a CPU build of torch, the package index's
torchvision cannot load its compiled operators, and its import fails where it describes them:
"operator torchvision::nms does not exist". Their declaration is enough. A declared operator has no
code: it raises when it is called.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")  # lives as long as its declarations
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_compressai() -> ModuleType:
    """`compressai` with its submodules ans, models, utils and zoo.

    ImportError where CompressAI or torchvision is not installed.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # half imported: a second import would not bind its submodules
        for operator in ("nms", "qnms"):
            _OPERATORS.define(operator + _SIGNATURE)
        importlib.import_module("torchvision")
    for submodule in ("ans", "models", "utils", "zoo"):
        importlib.import_module(f"compressai.{submodule}")
    return sys.modules["compressai"]
