from pathlib import Path

import onnxruntime
import pytest
import torch
import torchvision
from torch import Tensor

from model_store.artifact import Tensor as Axis
from model_store.export import write_graph
from model_store.networks.graph_spec import GraphSpec
from model_store.networks.roi import roi_align


def _case(reach: float) -> tuple[Tensor, Tensor, Tensor]:
    """Features (2, 5, 14, 14), 40 boxes that reach up to `reach` cells beyond the map, their images."""
    torch.manual_seed(0)
    low = torch.rand(40, 2) * (13 + 2 * reach) - reach
    high = low + torch.rand(40, 2) * 9
    boxes = torch.cat((low, high), dim=1).clamp(-reach, 13 + reach)
    # One narrower than a cell, one as large as the map.
    boxes[:2] = torch.tensor([[3.0, 4.0, 3.2, 9.0], [0.0, 0.0, 13.0, 13.0]])
    return torch.randn(2, 5, 14, 14), boxes, torch.randint(0, 2, (40,))


def _torchvision(features: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    with torch.compiler.set_stance("force_eager"):
        pooled: Tensor = torchvision.ops.roi_align(features, torch.cat((image[:, None].float(), boxes), 1), 3)
    return pooled


def test_values_and_gradients_are_torchvisions() -> None:
    features, boxes, image = _case(0.0)
    features.requires_grad_()
    expected, found = _torchvision(features, boxes, image), roi_align(features, boxes, image, 3)
    assert torch.allclose(found, expected, atol=1e-5)
    weights = torch.randn_like(found)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), features)
    (given,) = torch.autograd.grad((found * weights).sum(), features)
    assert torch.allclose(given, wanted, atol=1e-4)


@pytest.mark.parametrize("reach", [0.0, 3.0])
def test_the_exported_operator_gives_the_same(reach: float, tmp_path: Path) -> None:
    class Pool(torch.nn.Module):
        def forward(self, features: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
            return roi_align(features, boxes, image.long(), 3)

    features, boxes, image = _case(reach)
    inputs = (
        Axis("features", "float32", ("N", 5, 14, 14), ""),
        Axis("boxes", "float32", ("B", 4), ""),
        Axis("image", "int32", ("B",), ""),
    )
    spec = GraphSpec(
        "pool", inputs, (Axis("pooled", "float32", ("B", 5, 3, 3), ""),), lambda _: Pool(), lambda _: Pool()
    )
    path = tmp_path / "pool.onnx"
    write_graph(spec, Pool(), path)
    session = onnxruntime.InferenceSession(path)
    feeds = {"features": features.numpy(), "boxes": boxes.numpy(), "image": image.int().numpy()}
    assert torch.allclose(
        torch.from_numpy(session.run(None, feeds)[0]), roi_align(features, boxes, image, 3), atol=1e-5
    )
