"""What the registry knows of a variant, for as long as no worker of it has said more."""

from model_store import registry
from service.pb.efficientsam3.v1 import variants_pb2


def describe(name: str) -> variants_pb2.Variant:
    """The registry's row as a Variant; one with nothing but its name if the registry has no such row.

    What it can serve and under which licence depend on the artefact, so only a worker says it.
    """
    try:
        row = registry.find(name)
    except registry.UnknownVariantError:
        return variants_pb2.Variant(name=name)
    return variants_pb2.Variant(
        name=row.name,
        image_encoder=row.image_encoder,
        text_encoder=row.text_encoder,
        context_length=row.context_length,
        score_threshold=row.score_threshold,
        source=row.file,
    )
