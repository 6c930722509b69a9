"""From the networks' names to a released file's keys, and from any released layout to one."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from model_store.networks.key_table import RENAMINGS

# Small perceptrons count their layers from 0 there and from 1 here.
_PERCEPTRON = re.compile(
    r"(prompt_mlp|bbox_embed|ref_point_head|presence_token_head|boxRPB_embed_[xy])\.layer(\d)\."
)
_THIRD = re.compile(r"\[([qkv])\]")
# RepViT's blocks, which timm counts by stage and the files from the stem on.
_REPVIT_BLOCK = re.compile(
    r"(?<=^image\.trunk\.)(stages\.\d+\.(?:blocks\.\d+|downsample\.pre_block|downsample))\."
    r"(?=token_mixer|channel_mixer|se\.|spatial_downsample|channel_downsample|ffn)"
)
# What a file of the video model's tracker alone names without a prefix.
_TRACKER = re.compile(
    r"(mask_downsample|maskmem_|sam_|obj_ptr|no_mem|no_obj|mem_proj|mem_pos_proj|memory_attention|spatial_perceiver)"
)

# What a file may hold beyond what any graph reads. Anything else is unexpected.
UNUSED: Mapping[str, str] = {
    "video memory": r"^tracker\.",
    # Of what has no past, which the students mark by `no_mem_embed` or not at all.
    "position of no memory": r"^tracker\.no_mem_pos_enc$",
    "half-size features": r"^detector\.backbone\.vision_backbone\.(convs|sam2_convs)\.3\.",
    "semantic head": r"^detector\.segmentation_head\.semantic_seg_head\.",
    "third pixel decoder stage": r"^detector\.segmentation_head\.pixel_decoder\.(conv_layers|norms)\.2\.",
    "text projection of CLIP": r"\.language_backbone\.encoder\.(projection_layer|text_projection)$",
    "rotary tables": r"\.freqs_cis$",
    "batch counters": r"\.num_batches_tracked$",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a tensor of ours lies in a released file."""

    key: str
    # 0, 1 or 2: that third of the tensor's rows. None: the whole tensor.
    third: int | None


def sources(names: Iterable[str]) -> dict[str, Source]:
    """Where the released file keeps each tensor of a student, by the name that our networks call it.

    Args:
        names: all of the student's, in its own order.
    """
    listed = list(names)
    blocks = dict.fromkeys(found[1] for name in listed if (found := _REPVIT_BLOCK.search(name)))
    numbers = {block: number for number, block in enumerate(blocks, start=1)}
    return {
        name: _source(_REPVIT_BLOCK.sub(lambda found: f"features.{numbers[found[1]]}.", name))
        for name in listed
    }


def _source(name: str) -> Source:
    for pattern, replacement in RENAMINGS:
        name = re.sub(pattern, replacement, name)
    name = _PERCEPTRON.sub(lambda found: f"{found[1]}.layers.{int(found[2]) - 1}.", name)
    found = _THIRD.search(name)
    return Source(_THIRD.sub("", name), "qkv".index(found[1]) if found else None)


def canonical(key: str) -> str:
    """A released file's key as the full checkpoint has it.

    Files differ by wrappers they were saved through (`module.`, `student_trunk.`), by the name of the
    interactive part (`inst_interactive_predictor.model.` for `tracker.`) and in whether keys start with
    `detector.` or `tracker.`.
    """
    key = re.sub(r"(^|(?<=\.))(module|student_trunk)\.", "", key)
    key = re.sub(r"^(detector\.)?inst_interactive_predictor\.model\.", "tracker.", key)
    if key.startswith(("detector.", "tracker.")):
        return key
    return ("tracker." if _TRACKER.match(key) else "detector.") + key


def unused_group(key: str, *, memory: bool = False) -> str | None:
    """The group of `UNUSED` a canonical key belongs to, or None.

    Args:
        memory: the student has a video memory, so that none of it is unused as a whole.
    """
    groups = (group for group, pattern in UNUSED.items() if re.search(pattern, key))
    return next((group for group in groups if not (memory and group == "video memory")), None)
