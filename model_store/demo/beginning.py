"""The weights that the embedded student begins with, where the libraries have it learn slowly or never."""

# mypy: allow-untyped-calls

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from model_store.networks.student import Student

# Share of what it attends to that an attention adds at the start. With all of it, added in nine places with a
# norm after each, the queries of the last layer are all alike, and stay so.
_PASSED = 0.2
# Logits that attention loses per unit of distance from a query's box, in the units of the decoder's bias.
_FALL = 5.0


def begin(student: Student) -> None:
    """Random values for what the networks leave empty or begin with a deviation of 0.02.

    Embeddings begin at 1, boxes spread over the picture, and their offsets at 0.
    """
    text: Any = student.text
    nn.init.normal_(text.embeddings.position_embedding.position_embedding, std=0.3)
    _begin_detector(student.detector)
    _begin_objects(student.objects)


def _begin_detector(detector: Any) -> None:
    decoder = detector.decoder
    for part in (decoder, detector.encoder):
        for module in part.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for attention in _attentions(part):
            _begin_attention(attention, _PASSED)
    for embedding in (decoder.query_embed, decoder.presence_token):
        nn.init.normal_(embedding.weight)
    places = decoder.reference_points.weight
    with torch.no_grad():
        places[:, :2] = torch.logit(torch.rand_like(places[:, :2]) * 0.9 + 0.05)
        places[:, 2:] = -1.2 + 0.5 * torch.randn_like(places[:, 2:])
        detector.scoring.query_proj.weight.copy_(detector.scoring.text_proj.weight)
    nn.init.zeros_(decoder.box_head.layer3.weight)
    _begin_locally(decoder)


def _begin_objects(objects: Any) -> None:
    nn.init.normal_(objects.points.positions)
    nn.init.normal_(objects.no_memory, std=0.02)
    for attention in _attentions(objects.decoder):
        # So that a click's token sees the cells that it lies in, and they see it.
        nn.init.orthogonal_(attention.q_proj.weight, gain=2.0)
        _begin_attention(attention, 1.0)


def _attentions(network: nn.Module) -> Iterator[Any]:
    return (module for module in network.modules() if hasattr(module, "q_proj"))


def _begin_attention(attention: Any, passed: float) -> None:
    """What is alike attends to each other, and a part of what is attended to is passed on as it is."""
    nn.init.orthogonal_(attention.v_proj.weight)
    with torch.no_grad():
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.o_proj.weight.copy_(passed * attention.v_proj.weight.T)


def _begin_locally(decoder: Any) -> None:
    """A query looks into its box, and most near the middle: what training would have to find out first."""
    with torch.no_grad():
        for bias in (decoder.box_rpb_embed_x, decoder.box_rpb_embed_y):
            # Its inputs grow to the right of the box's left edge, and of its right edge.
            bias.layer1.weight[:2] = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
            bias.layer2.weight[:, :2] = -_FALL
        place = decoder.ref_point_head
        width = place.layer1.weight.shape[0]
        # The sines of the centre as they are, which are those of a cell there; lifted past the ReLU.
        nn.init.zeros_(place.layer1.weight)
        place.layer1.weight[:, :width] = torch.eye(width)
        place.layer1.bias.fill_(1.0)
        place.layer2.weight.copy_(torch.eye(width))
        place.layer2.bias.fill_(-1.0)
