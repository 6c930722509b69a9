"""Segmentation and Variants over gRPC: translate, call, translate."""

import functools
from typing import Any

from model_store.artifact import Artifact
from service.config import Limits
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import segmentation_pb2_grpc, variants_pb2_grpc
from service.pb.efficientsam3.v1 import variants_pb2 as variants_pb
from service.prompts import check
from service.worker.lane import Lane, Ticket
from service.worker.segmenter import Segmenter


class SegmentationServicer(segmentation_pb2_grpc.SegmentationServicer):
    """Segment, computed in the lane. Errors are ServiceErrors; rpc.ErrorsAsStatuses tells them."""

    def __init__(self, variant: str, segmenter: Segmenter, lane: Lane, limits: Limits) -> None:
        self._variant = variant
        self._segmenter = segmenter
        self._lane = lane
        self._limits = limits

    async def Segment(self, request: pb.SegmentRequest, context: Any) -> pb.SegmentResponse:  # noqa: N802
        """Check, queue, compute. What cannot be served is refused before it waits."""
        ticket = Ticket(context.time_remaining())
        check(request, self._limits)
        check_variant(request.variant, self._variant)
        _check_source(request.image)
        self._segmenter.check(request.prompts)
        return await self._lane.run(functools.partial(self._compute, request, ticket), ticket)

    def _compute(self, request: pb.SegmentRequest, ticket: Ticket) -> pb.SegmentResponse:
        queue_ms = ticket.waited_ms()
        ticket.go_on()
        response = self._segmenter.segment(request, ticket.go_on)
        response.timings_ms["queue"] = queue_ms
        response.timings_ms["total"] = ticket.waited_ms()
        return response


class VariantsServicer(variants_pb2_grpc.VariantsServicer):
    """A worker's answer about its own variant."""

    def __init__(self, variant: variants_pb.Variant) -> None:
        self._variant = variant

    async def ListVariants(  # noqa: N802
        self, request: variants_pb.ListVariantsRequest, context: Any
    ) -> variants_pb.ListVariantsResponse:
        """The one variant."""
        return variants_pb.ListVariantsResponse(variants=[self._variant])

    async def GetVariant(  # noqa: N802
        self, request: variants_pb.GetVariantRequest, context: Any
    ) -> variants_pb.Variant:
        """The variant, when it is asked for by its name or by none."""
        check_variant(request.name, self._variant.name)
        return self._variant


def describe(artifact: Artifact) -> variants_pb.Variant:
    """The artefact as a message."""
    manifest = artifact.manifest
    return variants_pb.Variant(
        name=manifest.variant,
        image_encoder=manifest.image_encoder,
        text_encoder=manifest.text_encoder,
        context_length=manifest.context_length,
        image_size=manifest.image_size,
        prompts=manifest.prompts,
        score_threshold=manifest.score_threshold,
        source=str(manifest.source.get("file", "")),
        licence=manifest.licence,
        synthetic=manifest.synthetic,
        parameters=sum(manifest.parameters.values()),
        digest=f"sha256:{artifact.digest}",
        workers_ready=1,
        default=True,
        audit=", ".join(f"{name}: {value}" for name, value in manifest.audit.items()),
    )


def check_variant(asked: str, ours: str) -> None:
    """Raise `variant_not_found` unless `asked` is ours or empty."""
    if asked not in ("", ours):
        raise ServiceError(Kind.VARIANT_NOT_FOUND, f"There is no variant {asked[:100]!r} here; {ours} is.")


def _check_source(image: pb.Image) -> None:
    match image.WhichOneof("source"):
        case "url":
            raise ServiceError(Kind.INVALID_ARGUMENT, "image.url is not taken here: send the image's bytes.")
        case "id":
            raise ServiceError(Kind.IMAGE_NOT_FOUND, "image.id names no image kept here: send its bytes.")
