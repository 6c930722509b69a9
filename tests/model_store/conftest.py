"""The small student's weights as a released file has them."""

import pytest
import torch
from torch import Tensor

from model_store.networks.keys import sources


@pytest.fixture
def released(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights by the keys of a released file, with a part of each kind that no graph reads."""
    tensors: dict[str, Tensor] = {}
    thirds: dict[str, list[Tensor]] = {}
    origin = sources(weights)
    for name, tensor in weights.items():
        source = origin[name]
        if source.third is None:
            tensors[source.key] = tensor
        else:
            thirds.setdefault(source.key, [tensor] * 3)[source.third] = tensor
    tensors |= {key: torch.cat(parts) for key, parts in thirds.items()}
    tensors["tracker.maskmem_tpos_enc"] = torch.zeros(7, 1, 1, 4)
    tensors["detector.backbone.vision_backbone.sam2_convs.3.conv_1x1.weight"] = torch.zeros(4, 4, 1, 1)
    tensors["detector.backbone.vision_backbone.trunk.model.head.1.num_batches_tracked"] = torch.tensor(3)
    return tensors
