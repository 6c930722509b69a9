"""Segmentation and Variants over gRPC: translate, call, translate."""

import asyncio
import functools
import logging
from collections.abc import Iterable
from typing import Any

from model_store.artifact import Artifact
from service.config import WorkerSettings
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import segmentation_pb2_grpc, variants_pb2_grpc
from service.pb.efficientsam3.v1 import tracking_pb2 as tracking_pb
from service.pb.efficientsam3.v1 import variants_pb2 as variants_pb
from service.prompts import check, check_image_id, check_new_image, image_id, is_concept
from service.rpc import announcing, owner_of
from service.sessions.image_store import ImageStore
from service.worker import image_headers
from service.worker.lane import Lane, Ticket, Urgency
from service.worker.pixel_budget import PixelBudget
from service.worker.scenes import Scene
from service.worker.segmenter import Segmenter

_LOG = logging.getLogger(__name__)
# The pixels that take as much memory as reading one character of a mask's counts.
_RLE_CHAR_PIXELS = 10


class SegmentationServicer(segmentation_pb2_grpc.SegmentationServicer):
    """Segmentation, computed in the lane. Errors are ServiceErrors; rpc.ErrorsAsStatuses tells them."""

    def __init__(
        self,
        variant: str,
        segmenter: Segmenter,
        lane: Lane,
        images: ImageStore,
        pixels: PixelBudget,
        settings: WorkerSettings,
    ) -> None:
        self._variant = variant
        self._segmenter = segmenter
        self._lane = lane
        self._images = images
        self._pixels = pixels
        self._settings = settings

    async def Segment(self, request: pb.SegmentRequest, context: Any) -> pb.SegmentResponse:  # noqa: N802
        """Check, find the image where it is named by its id, queue, compute.

        What cannot be served is refused before it waits.
        """
        # Whoever clicks looks at the picture.
        clicks = not any(map(is_concept, request.prompts))
        urgency = Urgency.INTERACTIVE if clicks else Urgency.USUAL
        ticket = Ticket(context.time_remaining(), owner_of(context), urgency, announcing(context))
        check(request, self._settings)
        check_variant(request.variant, self._variant)
        data = check_source(request.image, self._settings)
        self._segmenter.check(request.prompts)
        with self._lane.request():
            if request.image.HasField("id"):
                data = request.image.data = await kept_image(
                    self._images, owner_of(context), request.image.id
                )
            work = functools.partial(self._compute, request, ticket)
            pixels = pixels_of(data, request.prompts)
            return await self._pixels.run(self._lane.run, work, ticket, pixels)

    async def EncodeImage(  # noqa: N802
        self, request: pb.EncodeImageRequest, context: Any
    ) -> pb.EncodeImageResponse:
        """Check, queue, decode and encode; then keep the image's bytes."""
        ticket = Ticket(context.time_remaining(), owner_of(context), announce=announcing(context))
        check_new_image(request, self._settings)
        check_variant(request.variant, self._variant)
        data = check_source(request.image, self._settings)
        work = functools.partial(self._encode, data, ticket)
        with self._lane.request():
            pixels = pixels_of(data)
            scene, timings_ms = await self._pixels.run(self._lane.run, work, ticket, pixels)
            kept_until = await self._images.put(owner_of(context), scene.id, data)
        return pb.EncodeImageResponse(
            variant=self._variant,
            image=pb.ImageInfo(id=scene.id, width=scene.width, height=scene.height),
            kept_until=kept_until.strftime("%Y-%m-%dT%H:%M:%SZ"),
            timings_ms={**timings_ms, "total": ticket.waited_ms()},
        )

    async def DeleteImage(  # noqa: N802
        self, request: pb.DeleteImageRequest, context: Any
    ) -> pb.DeleteImageResponse:
        """Forget the image's bytes."""
        check_image_id(request.id)
        if not await self._images.delete(owner_of(context), request.id):
            raise ServiceError(Kind.IMAGE_NOT_FOUND, f"No image {request.id} is kept here.")
        return pb.DeleteImageResponse()

    def _compute(self, request: pb.SegmentRequest, ticket: Ticket) -> pb.SegmentResponse:
        queue_ms = ticket.begin()
        response = self._segmenter.segment(request, ticket.go_on, ticket.owner)
        response.timings_ms["queue"] = queue_ms
        response.timings_ms["total"] = ticket.waited_ms()
        return response

    def _encode(self, data: bytes, ticket: Ticket) -> tuple[Scene, dict[str, float]]:
        queue_ms = ticket.begin()
        scene, stages_ms = self._segmenter.encode(data, ticket.go_on, ticket.owner)
        return scene, {**stages_ms, "queue": queue_ms}


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


def describe(artifact: Artifact, capacity: int) -> variants_pb.Variant:
    """The artefact as a message; the worker takes `capacity` requests at once."""
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
        capacity=capacity,
        memory=manifest.memory.kind if manifest.memory else "",
    )


def check_variant(asked: str, ours: str) -> None:
    """Raise `variant_not_found` unless `asked` is ours or empty."""
    if asked not in ("", ours):
        raise ServiceError(Kind.VARIANT_NOT_FOUND, f"There is no variant {asked[:100]!r} here; {ours} is.")


async def kept_image(images: ImageStore, owner: str, id: str) -> bytes:
    """The bytes of an image that was sent before. Raises `image_not_found`, also for damaged bytes."""
    data = await images.get(owner, id)
    if data is not None and await asyncio.to_thread(image_id, data) != id:
        _LOG.warning("The kept image %s is damaged in the store of images and was deleted", id)
        await images.delete(owner, id)
        data = None
    if data is None:
        detail = f"image.id {id} is not kept here, or not any more: send the image again."
        raise ServiceError(Kind.IMAGE_NOT_FOUND, detail)
    return data


def pixels_of(data: bytes, prompts: Iterable[pb.Prompt | tracking_pb.TrackPrompt] = ()) -> int:
    """Return how many pixels an image file and mask prompts have when they are decoded."""
    masks = [prompt.mask for prompt in prompts if prompt.HasField("mask")]
    pixels = sum(mask.height * mask.width + _RLE_CHAR_PIXELS * len(mask.rle) for mask in masks)
    return image_headers.pixels_of(data) + pixels


def check_source(image: pb.Image, settings: WorkerSettings) -> bytes:
    """Return the bytes of an image; none of one that is named by its id.

    Raises `invalid_argument` for an address, and `unsupported_image` for a format that is not allowed.
    """
    if image.HasField("url"):
        raise ServiceError(Kind.INVALID_ARGUMENT, "image.url is not taken here: send the image's bytes.")
    # Each time that the field is read its bytes are copied.
    data = image.data
    if data:
        image_headers.check_format(data, [name.upper() for name in settings.image_formats])
    return data
