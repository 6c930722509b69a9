"""A running service, asked over HTTP as any client would."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

Mask = NDArray[np.bool_]
_READY_S = 120.0


class Service:
    """One address, one variant, one picture at a time."""

    def __init__(self, url: str, variant: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=120)
        self._variant = variant
        self._image: dict[str, Any] = {}
        # Where the frames of the session go that is open, and the next one's index.
        self._frames, self._next = "", 0

    def begin(self) -> None:
        """Opens a tracking session."""
        answer = _checked(self._client.post("/v1/sessions", json={"variant": self._variant, "ttl_s": 60}))
        self._frames, self._next = f"/v1/sessions/{answer['session']}/frames", 0

    def follow(self, pixels: NDArray[np.uint8], prompts: list[dict[str, Any]]) -> dict[int, Mask]:
        """Sends the session's next frame, (H, W, 3) uint8 RGB; the masks of the objects that are seen."""
        body = {"frame": self._next, "prompts": prompts}
        answer = _checked(
            self._client.post(
                self._frames, files={"image": _file(pixels)}, data={"request": json.dumps(body)}
            )
        )
        self._next += 1
        return {each["object"]: _mask(each["mask"]) for each in answer["objects"] if each["visible"]}

    def show(self, pixels: NDArray[np.uint8]) -> None:
        """Sends the picture that what follows is about: (H, W, 3) uint8 RGB."""
        answer = self._client.post(
            "/v1/images",
            files={"image": _file(pixels)},
            data={"request": json.dumps({"variant": self._variant})},
        )
        self._image = {"id": _checked(answer)["image"]["id"]}

    def ask(
        self, prompts: list[dict[str, Any]], threshold: float | None = None
    ) -> list[list[tuple[float, Mask]]]:
        """Score and (H, W) mask of every segment, by prompt, the best first.

        Args:
            threshold: the lowest score, 0..1; None for the variant's own.
        """
        request: dict[str, Any] = {"variant": self._variant, "image": self._image, "prompts": prompts}
        if threshold is not None:
            request["options"] = {"score_threshold": threshold}
        answer = _checked(self._client.post("/v1/segment", json=request))
        return [
            [(segment["score"], _mask(segment["mask"])) for segment in result["segments"]]
            for result in answer["results"]
        ]


def _file(pixels: NDArray[np.uint8]) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _checked(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        raise RuntimeError(f"{answer.request.url} answered {answer.status_code}: {answer.text[:300]}")
    body: dict[str, Any] = answer.json()
    return body


def _mask(answer: dict[str, Any]) -> Mask:
    decoded: Mask = coco.decode({"size": answer["size"], "counts": answer["counts"].encode()}).astype(bool)
    return decoded


@contextmanager
def serving(variant: str, store: Path | None, precision: str) -> Iterator[str]:
    """Serves the variant on this machine meanwhile. Gives the address."""
    port, other = _free_port(), _free_port()
    command = [sys.executable, "-m", "service.cli", "serve", variant, "--precision", precision]
    command += ["--http-port", str(port), "--grpc-port", str(other)]
    command += ["--store", str(store)] if store else []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, variant, process)
            yield url
        finally:
            process.terminate()


def _wait(url: str, variant: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", params={"variant": variant}).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"{variant} is not served; see above")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
