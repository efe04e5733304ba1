"""CompressAI imports and works here, whether or not torchvision's compiled operators load."""

import pytest
import torch

from evaluation import reference


def test_a_declared_operator_never_computes_something_else():
    reference.import_compressai()
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    scores = torch.tensor([0.5, 0.9, 0.1])
    if torchvision.extension._has_ops():
        assert torch.ops.torchvision.nms(boxes, scores, 0.5).tolist() == [1, 2]
    else:
        with pytest.raises(NotImplementedError):
            torch.ops.torchvision.nms(boxes, scores, 0.5)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ImportError("no torchvision")])
def test_other_failures_are_not_hidden(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr(reference.importlib, "import_module", fail)
    with pytest.raises(type(error), match=str(error)):
        reference.import_compressai()
