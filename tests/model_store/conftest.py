"""The small student's weights as a released file has them."""

import pytest
import torch
from torch import Tensor

from model_store.selfcheck import in_file


@pytest.fixture
def released(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights by the keys of a released file, with a part of each kind that no graph reads."""
    tensors = in_file(weights)
    tensors["tracker.maskmem_tpos_enc"] = torch.zeros(7, 1, 1, 4)
    tensors["detector.backbone.vision_backbone.sam2_convs.3.conv_1x1.weight"] = torch.zeros(4, 4, 1, 1)
    tensors["detector.backbone.vision_backbone.trunk.model.head.1.num_batches_tracked"] = torch.tensor(3)
    return tensors
