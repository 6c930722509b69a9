"""A student whole: its five parts under one roof, as its checkpoint names them (see `keys`)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from model_store.networks.detector import Detector, MaskHead
from model_store.networks.image import ImageEncoder, Neck
from model_store.networks.sizes import Sizes
from model_store.networks.text import TextEncoder


class Student(nn.Module):
    """The parts of a student that the graphs are made of."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.image = ImageEncoder(sizes)
        self.neck = Neck(sizes)
        self.text = TextEncoder(sizes)
        self.detector = Detector(sizes)
        self.masks = MaskHead(sizes)


def blank(sizes: Sizes) -> Student:
    """A student without weights (on the meta device): names and shapes only."""
    with torch.device("meta"):
        return Student(sizes).eval().requires_grad_(False)


def shapes(student: Student) -> dict[str, torch.Size]:
    """Name and shape of every tensor a student needs."""
    # Batch normalisation counts its batches in training; what runs does not read the count.
    tensors = student.state_dict().items()
    return {name: tensor.shape for name, tensor in tensors if not name.endswith(".num_batches_tracked")}


def build(sizes: Sizes, weights: Mapping[str, Tensor]) -> Student:
    """A student with exactly these weights.

    Args:
        weights: float32 tensors by the student's own names, those of `shapes` and no others.

    Raises:
        RuntimeError: a name is missing, unknown or has the wrong shape.
    """
    student = blank(sizes)
    student.load_state_dict(dict(weights), strict=True, assign=True)
    student.requires_grad_(False)
    for name, tensor in (*student.named_parameters(), *student.named_buffers()):
        if tensor.is_meta:
            raise RuntimeError(f"{name} has no value")
    return student
