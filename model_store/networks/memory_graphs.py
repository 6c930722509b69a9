"""The graphs of a student that follows objects through a video: their modules, and what goes in and out."""

# mypy: allow-untyped-calls

from torch import Tensor, nn

from model_store.artifact import Tensor as Described
from model_store.networks.graph_spec import (
    F32,
    GraphSpec,
    conditioned,
    image_row,
    interactive,
    object_score,
    pointers,
)
from model_store.networks.memory import Past, VideoMemory
from model_store.networks.objects import PromptDecoder
from model_store.networks.student import Student


class TrackedPromptDecoder(nn.Module):
    """The prompt decoder, and what an object's past keeps of each of its masks."""

    def __init__(self, objects: PromptDecoder, memory: VideoMemory) -> None:
        super().__init__()
        self.objects, self.memory = objects, memory

    def forward(
        self,
        features_x1: Tensor,
        features_x2: Tensor,
        features_x4: Tensor,
        image: Tensor,
        points: Tensor,
        labels: Tensor,
        mask: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As the prompt decoder's, and (B, masks, D)."""
        logits, iou, score, tokens = self.objects.decode(
            features_x1, features_x2, features_x4, image, points, labels, mask, has_mask
        )
        return logits, iou, score, self.memory.pointers(tokens)


class MemoryEncoding(nn.Module):
    """What is kept of a frame; objects of one picture share its features."""

    def __init__(self, memory: VideoMemory) -> None:
        super().__init__()
        self.memory = memory

    def forward(self, features_x1: Tensor, image: Tensor, levels: Tensor, object_score: Tensor) -> Tensor:
        """(N, D, g, g), (B,), (B, 16g, 16g), (B, 1) -> (B, T, M)."""
        return self.memory.keep(features_x1.index_select(0, image.long()), levels, object_score)


class MemoryConditioning(nn.Module):
    """The features of a frame with the past of each object."""

    def __init__(self, objects: PromptDecoder, memory: VideoMemory) -> None:
        super().__init__()
        self.no_memory, self.memory = objects.no_memory, memory

    def forward(
        self,
        features_x1: Tensor,
        image: Tensor,
        memory: Tensor,
        ages: Tensor,
        memory_valid: Tensor,
        pointers: Tensor,
        pointer_ages: Tensor,
        pointers_valid: Tensor,
    ) -> Tensor:
        """(N, D, g, g), (B,), and a `Past` of B objects -> (B, D, g, g)."""
        past = Past(memory, ages, memory_valid, pointers, pointer_ages, pointers_valid)
        return self.memory.condition(features_x1.index_select(0, image.long()), past, self.no_memory)


def _remembered(student: Student, *axes: str) -> Described:
    """A memory of frames, by the axes before its tokens."""
    tokens = student.memory.tokens
    return Described(
        "memory", F32, (*axes, tokens, student.sizes.memory.width), "what is kept of the object in a frame"
    )


def memory_encoder(student: Student) -> GraphSpec:
    """An object on a frame to what is kept of it."""
    sizes = student.sizes
    side = sizes.remembered_size
    levels = Described(
        "mask_levels",
        F32,
        ("B", side, side),
        "-10..10 over the whole picture: 20 p - 10, where p is 1 in the object and 0 beside it, or the "
        "probability where no prompt was given on the frame",
    )
    inputs = (interactive(sizes, 1, "N"), image_row(), levels, object_score())
    module = lambda student: MemoryEncoding(student.memory)  # noqa: E731
    return GraphSpec("memory_encoder", inputs, (_remembered(student, "B"),), module, module)


def memory_attention(student: Student) -> GraphSpec:
    """A frame and an object's past to the features that the prompt decoder takes."""
    sizes = student.sizes
    last = sizes.memory.frames - 1
    inputs = (
        interactive(sizes, 1, "N"),
        image_row(),
        _remembered(student, "B", "F"),
        Described("ages", "int32", ("B", "F"), f"frames ago, 1..{last}; 0 for a prompted frame; F >= 1"),
        Described("memory_valid", "bool", ("B", "F"), "false where the frame is padding"),
        pointers(sizes, "G"),
        Described("pointer_ages", F32, ("B", "G"), "frames ago, as a share of the longest time that counts"),
        Described("pointers_valid", "bool", ("B", "G"), "false where the pointer is padding; G >= 1"),
    )
    module = lambda student: MemoryConditioning(student.objects, student.memory)  # noqa: E731
    return GraphSpec("memory_attention", inputs, (conditioned(sizes),), module, module)
