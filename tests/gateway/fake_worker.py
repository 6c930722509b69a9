# ruff: noqa: N802 - gRPC's method names
"""A worker without a model: a real gRPC server with canned answers. Also runs as a process of its own."""

import asyncio
import io
import os
import signal
import sys
import threading
from functools import partial
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from PIL import Image

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import (
    segmentation_pb2_grpc,
    tracking_pb2_grpc,
    variants_pb2,
    variants_pb2_grpc,
)
from service.prompts import image_id
from service.rpc import ErrorsAsStatuses, owner_of
from tests.gateway.fake_tracking import FakeTracking

# 6 x 4 pixels, the left half foreground.
_HALF = Image.new("L", (6, 4))
_HALF.paste(255, (0, 0, 3, 4))
_FILE = io.BytesIO()
_HALF.save(_FILE, "PNG")
PNG = _FILE.getvalue()

SERVICE = "efficientsam3.v1.Segmentation"
ANSWERS = {
    pb.MASK_FORMAT_UNSPECIFIED: pb.Mask(height=4, width=6, rle="05l1"),
    pb.MASK_FORMAT_RLE: pb.Mask(height=4, width=6, rle="05l1"),
    pb.MASK_FORMAT_PNG: pb.Mask(height=4, width=6, png=PNG),
    pb.MASK_FORMAT_POLYGON: pb.Mask(
        height=4, width=6, polygon=pb.Polygon(rings=[pb.Ring(xy=[0, 0, 2, 0, 2, 2], hole=True)])
    ),
    pb.MASK_FORMAT_NONE: None,
}

Context = grpc.aio.ServicerContext[Any, Any]


class FakeWorker(segmentation_pb2_grpc.SegmentationServicer, variants_pb2_grpc.VariantsServicer):
    """Answers at `address`. Its methods are called inside the event loop."""

    def __init__(self, variant: str, address: str) -> None:
        self.variant = variant
        self.address = address
        # Requests that arrived, requests whose call was cancelled, and what answers wait for.
        self.asked: list[pb.SegmentRequest] = []
        self.request_ids: list[str] = []
        # Beneath which span each lies; None: none.
        self.traceparents: list[str | None] = []
        # Images to keep that arrived, what is kept by owner and id, and on whose behalf it was asked.
        self.encoded: list[pb.EncodeImageRequest] = []
        self.kept: dict[tuple[str, str], bytes] = {}
        self.owners: list[str] = []
        self.cancelled = threading.Event()
        self.arrived = threading.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: ServiceError | None = None
        # Requests that it says it takes at once; 0: it does not say.
        self.capacity = 0
        self.tracking = FakeTracking()
        self._server: grpc.aio.Server | None = None

    async def start(self, serving: bool = True) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(interceptors=(ErrorsAsStatuses(),), options=options)
        segmentation_pb2_grpc.add_SegmentationServicer_to_server(self, self._server)
        variants_pb2_grpc.add_VariantsServicer_to_server(self, self._server)
        tracking_pb2_grpc.add_TrackingServicer_to_server(self.tracking, self._server)
        self.health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self._server.add_insecure_port(self.address)
        await self.serve(serving)
        await self._server.start()

    async def serve(self, serving: bool) -> None:
        """Say that it is ready, or that it is not."""
        told = health_pb2.HealthCheckResponse
        await self.health.set(SERVICE, told.SERVING if serving else told.NOT_SERVING)

    async def drain(self) -> None:
        """Let calls finish, as a worker that is asked to stop does."""
        await self.health.enter_graceful_shutdown()
        if self._server:
            await self._server.stop(5)

    async def die(self) -> None:
        """Cut every call off."""
        if self._server:
            await self._server.stop(None)

    async def Segment(self, request: pb.SegmentRequest, context: Context) -> pb.SegmentResponse:
        self.asked.append(request)
        await self._arrive(context)
        id = request.image.id
        if id and (owner_of(context), id) not in self.kept:
            raise ServiceError(Kind.IMAGE_NOT_FOUND, f"image.id {id} is not kept here")
        if request.prompts[0].text == "forever":
            await asyncio.Event().wait()
        return self._answer(request)

    async def EncodeImage(self, request: pb.EncodeImageRequest, context: Context) -> pb.EncodeImageResponse:
        self.encoded.append(request)
        await self._arrive(context)
        id = image_id(request.image.data)
        self.kept[owner_of(context), id] = request.image.data
        return pb.EncodeImageResponse(
            variant=self.variant,
            image=pb.ImageInfo(id=id, width=6, height=4),
            kept_until="2026-11-24T10:20:30Z",
            timings_ms={"queue": 0.5, "image_encoder": 80.0, "total": 81.0},
        )

    async def DeleteImage(self, request: pb.DeleteImageRequest, context: Context) -> pb.DeleteImageResponse:
        await self._arrive(context)
        if self.kept.pop((owner_of(context), request.id), None) is None:
            raise ServiceError(Kind.IMAGE_NOT_FOUND, f"No image {request.id} is kept here.")
        return pb.DeleteImageResponse()

    async def _arrive(self, context: Context) -> None:
        metadata = dict(context.invocation_metadata() or ())
        self.request_ids.append(metadata["x-request-id"])
        self.traceparents.append(metadata.get("traceparent"))
        self.owners.append(owner_of(context))
        self.arrived.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.failure:
            raise self.failure

    async def GetVariant(
        self, request: variants_pb2.GetVariantRequest, context: Context
    ) -> variants_pb2.Variant:
        return variants_pb2.Variant(
            name=self.variant,
            digest="sha256:feed",
            score_threshold=0.4,
            prompts=["text"],
            synthetic=True,
            capacity=self.capacity,
            memory="dense",
        )

    async def ListVariants(
        self, request: variants_pb2.ListVariantsRequest, context: Context
    ) -> variants_pb2.ListVariantsResponse:
        return variants_pb2.ListVariantsResponse(
            variants=[await self.GetVariant(variants_pb2.GetVariantRequest(), context)]
        )

    def _answer(self, request: pb.SegmentRequest) -> pb.SegmentResponse:
        box = pb.Box(x0=1.5, y0=2, x1=3.25, y1=4)
        mask = ANSWERS[request.options.mask_format]
        logits = pb.Mask(height=1, width=1, logits=b"\x00\x3c") if request.options.return_logits else None
        results = [
            pb.PromptResult(
                prompt=index,
                segments=[
                    pb.Segment(score=0.93, box=box, area=7, label=prompt.text, mask=mask, logits=logits)
                ],
            )
            for index, prompt in enumerate(request.prompts)
        ]
        return pb.SegmentResponse(
            variant=self.variant,
            image=pb.ImageInfo(id=request.image.id or f"sha256:{len(request.image.data)}", width=6, height=4),
            results=results,
            timings_ms={"queue": 0.5, "image_encoder": 80.0, "total": 81.0},
        )


async def main(variant: str, address: str, parent_fd: int) -> None:
    """Serve until SIGTERM or until the parent is gone."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, done.set)
    worker = FakeWorker(variant, address)
    await worker.start()
    if variant == "stubborn":
        loop.add_signal_handler(signal.SIGTERM, partial(print, "asked to stop", flush=True))

    def watch_parent() -> None:
        os.read(parent_fd, 1)
        loop.call_soon_threadsafe(done.set)

    threading.Thread(target=watch_parent, daemon=True).start()
    await done.wait()
    await worker.drain()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
