"""A student whole: its parts under one roof, as its checkpoint names them (see `keys`)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model_store.networks.detector import Detector, MaskHead
from model_store.networks.image import IMAGE_ENCODERS, Neck
from model_store.networks.memory import MEMORIES
from model_store.networks.objects import PromptDecoder
from model_store.networks.sizes import Sizes
from model_store.networks.text import TEXT_ENCODERS
from model_store.registry import MemoryKind


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a student is built to do; an image encoder it always has."""

    # Find a concept: the concept neck, the text encoder, the detector and the mask head.
    concepts: bool = True
    # Segment one object from clicks, a box or a mask: the interactive neck and the prompt decoder.
    objects: bool = True
    # Track objects through a video, by a memory of that kind; needs `objects`.
    memory: MemoryKind = ""


class Student(nn.Module):
    """The parts of a student that the graphs are made of."""

    def __init__(self, sizes: Sizes, abilities: Abilities) -> None:
        super().__init__()
        self.sizes = sizes
        self.abilities = abilities
        self.image = IMAGE_ENCODERS[sizes.image_network](sizes)
        if abilities.concepts:
            self.neck = Neck(sizes)
            self.text = TEXT_ENCODERS[sizes.text.network](sizes)
            self.detector = Detector(sizes)
            self.masks = MaskHead(sizes)
        if abilities.objects:
            self.interactive_neck = Neck(sizes)
            self.objects = PromptDecoder(sizes)
        if abilities.memory:
            self.memory = MEMORIES[abilities.memory](sizes)


def blank(sizes: Sizes, abilities: Abilities = Abilities()) -> Student:
    """A student without weights (on the meta device): names and shapes only."""
    with torch.device("meta"):
        return Student(sizes, abilities).eval().requires_grad_(False)


def shapes(student: Student) -> dict[str, torch.Size]:
    """Name and shape of every tensor a student needs."""
    # Batch normalisation counts its batches in training; what runs does not read the count.
    tensors = student.state_dict().items()
    return {name: tensor.shape for name, tensor in tensors if not name.endswith(".num_batches_tracked")}


def build(sizes: Sizes, weights: Mapping[str, Tensor], abilities: Abilities = Abilities()) -> Student:
    """A student with exactly these weights.

    Args:
        weights: float32 tensors by the student's own names, those of `shapes` and no others.

    Raises:
        RuntimeError: a name is missing, unknown or has the wrong shape.
    """
    student = blank(sizes, abilities)
    student.load_state_dict(dict(weights), strict=True, assign=True)
    student.requires_grad_(False)
    for name, tensor in (*student.named_parameters(), *student.named_buffers()):
        if tensor.is_meta:
            raise RuntimeError(f"{name} has no value")
    return student
