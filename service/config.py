"""Settings: the only reader of the environment.

Every setting is a field; its environment variable is `EFFICIENTSAM3_` and the field's name in capitals, and
the command's options override it. Dictionaries and lists are JSON.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_cache_path
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024

MAX_ENTRIES = 4096
"""The most that a limit on entries may allow: JSON lists are cut off there before anything is counted."""

EngineName = Literal["auto", "openvino", "onnxruntime"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "f32", "bf16", "f16"]
Batching = Literal["dynamic", "fixed"]
ImageFormat = Literal["jpeg", "png", "webp", "tiff", "gif"]
Port = Annotated[int, Field(ge=0, le=65535)]
Entries = Annotated[int, Field(ge=1, le=MAX_ENTRIES)]

_ADDRESS = re.compile(r"unix:/[^\0]+|([^\s:/\[\]]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")
# Before the host and port of workers that share a name, as those of a headless service of Kubernetes do.
DNS = "dns:"
_REDIS = ("redis://", "rediss://", "unix://")
_HOST = r"([^\s:/?#@,\[\]]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?"
SENTINEL = re.compile(
    rf"redis(?P<tls>s?)\+sentinel://(?P<who>[^@/?#]*@)?(?P<hosts>{_HOST}(,{_HOST})*)"
    r"/(?P<master>[^\s/?#@]+)(/(?P<db>\d+))?(\?(?P<options>[^#]*))?"
)
"""The address of a Redis whose master sentinels know."""
_SERVED = re.compile(r"[^@]+(@[0-9a-f]{8,64})?")
_COLLECTOR = ("http://", "https://")


def _address(value: str) -> str:
    found = _ADDRESS.fullmatch(value)
    if not found or int(found["port"] or 0) > 65535:
        raise PydanticCustomError("address", "{value} is not host:port or unix:/path", {"value": repr(value)})
    return value


def _served(value: str) -> str:
    if not _SERVED.fullmatch(value):
        meant = "{value} is neither VARIANT nor VARIANT@ and 8 to 64 hexadecimal digits in lower case"
        raise PydanticCustomError("served", meant, {"value": repr(value)})
    return value


def _worker_address(value: str) -> str:
    if value.startswith(DNS):
        _host_and_port(value.removeprefix(DNS))
        return value
    return _address(value)


def _host_and_port(value: str) -> str:
    if value.startswith("unix:") or not _ADDRESS.fullmatch(value):
        raise PydanticCustomError("address", "{value} is not host:port", {"value": repr(value)})
    return value


def _optional_host_and_port(value: str) -> str:
    return _host_and_port(value) if value else value


def _redis_url(value: str) -> str:
    if value and not value.startswith(_REDIS) and not SENTINEL.fullmatch(value):
        # The address may hold a password: it is not repeated.
        meant = "it must begin with " + ", ".join(_REDIS) + ", or be redis+sentinel://HOST:PORT,.../MASTER/DB"
        raise PydanticCustomError("redis_url", meant)
    return value


def _collector(value: str) -> str:
    scheme = next((each for each in _COLLECTOR if value.startswith(each)), None)
    if value and (scheme is None or not _ADDRESS.fullmatch(value.removeprefix(scheme))):
        raise PydanticCustomError(
            "collector", "{value} is not http://host:port or https://host:port", {"value": repr(value)}
        )
    return value


Address = Annotated[str, AfterValidator(_address)]
# A worker's, or a name that stands for those of several.
WorkerAddress = Annotated[str, AfterValidator(_worker_address)]
# A variant, or one artefact of it by the digits that its digest begins with.
Served = Annotated[str, AfterValidator(_served)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
Collector = Annotated[str, AfterValidator(_collector)]
# In the environment an empty one is none.
File = Annotated[Path | None, BeforeValidator(lambda value: value or None)]


class ConfigurationError(Exception):
    """Settings contradict each other, or name a file that cannot be; the message names the setting."""


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="EFFICIENTSAM3_", extra="ignore", frozen=True)


class Limits(_Settings):
    """What one request may bring. Gateway and workers hold the same limits."""

    max_body_bytes: PositiveInt = 32 * MIB
    """Bytes of one HTTP body or one gRPC message."""
    max_image_pixels: PositiveInt = 100_000_000
    """Pixels of one image, read from its header before anything is decoded."""
    max_image_side: PositiveInt = 32_768
    """Pixels of an image's longer side."""
    max_prompts: Entries = 32
    """Prompts of one request."""
    max_video_prompts: Entries = 1_024
    """Prompts of one whole video, over all its frames; `max_prompts` bounds those of one frame."""
    max_text_chars: PositiveInt = 1_000
    """Characters of one text prompt."""
    max_exemplars: Entries = 32
    """Exemplars of one prompt."""
    max_points: Entries = 64
    """Points of one prompt."""
    max_mask_points: PositiveInt = 100_000
    """Points of the rings of all mask prompts of one request."""
    max_answer_bytes: PositiveInt = 64 * MIB
    """Bytes of one answer's segments, as the worker sends them."""
    max_session_ttl_s: Annotated[int, Field(ge=1, le=31_536_000)] = 86_400
    """The longest that a tracking session may ask to be kept after its last use."""
    max_segments: PositiveInt = 200
    """The largest `max_segments` a request may ask for."""
    max_videos: PositiveInt = 8
    """Videos that one worker tracks at once. The gateway admits so many for each ready worker of a variant,
    and rejects one more as `overloaded`. They take no room of other requests (`max_waiting`,
    `max_queued`)."""


class LogSettings(_Settings):
    """What a process says on standard error."""

    log_format: Literal["text", "json"] = "text"
    """`json`: a line of JSON per record, with the facts of a request each under its own name."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Records below it are not written."""


class TraceSettings(_Settings):
    """Where the spans of requests go. The same for gateway and workers, or a trace has holes."""

    trace_endpoint: Collector = ""
    """Collector that takes OTLP over gRPC, `http://host:4317`, or `https://` with TLS; empty: no spans. It
    needs the extra `tracing`."""
    trace_sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the requests that are traced, of those whose caller has not decided it (`traceparent`)."""


class StoreSettings(_Settings):
    """Where artefacts are kept on disk."""

    store: Path = Field(default_factory=lambda: user_cache_path("efficientsam3"))
    """Folder with one folder per variant."""


class RedisSettings(_Settings):
    """Where gateway and workers keep what outlives a process."""

    # It may hold a password.
    redis_url: RedisUrl = Field(default="", repr=False)
    """Store of sessions, of images that were sent once and of what keys have used; empty: none.
    `redis://user:password@host:port/db`, with TLS `rediss://`, or `unix:///path`. Behind Sentinel
    `redis+sentinel://user:password@host:port,host:port/master/db` with the sentinels' addresses and the name
    that they know the master by, `rediss+sentinel://` where they and the servers speak TLS."""


class KeySettings(_Settings):
    """Who may send requests."""

    keys_file: File = None
    """File of the clients' keys, as `efficientsam3 keys new` writes it; none: whoever reaches the gateway."""


class WorkerSettings(Limits, StoreSettings, RedisSettings, LogSettings, TraceSettings):
    """One worker process: one artefact, one listener."""

    listen: Address = "127.0.0.1:50061"
    """gRPC address: `host:port` or `unix:/path/to/socket`."""
    listen_certificate: File = None
    """PEM file of the listener's certificate and its chain; none: no TLS. Unix sockets have none anyway."""
    listen_key: File = None
    """PEM file of that certificate's key."""
    listen_client_ca: File = None
    """PEM file of the authorities of gateways' certificates; where it is set, others are refused."""
    metrics_listen: Annotated[str, AfterValidator(_optional_host_and_port)] = ""
    """Where the worker tells its metrics, and at `/readyz` whether it is ready, over HTTP without TLS,
    `host:port`; empty: nowhere."""
    engine: EngineName = "auto"
    """`auto`: onnxruntime on a CUDA device, else OpenVINO where installed, else onnxruntime."""
    device: Device = "auto"
    """`auto`: a CUDA device where onnxruntime finds one, else the processor. `cuda`: a worker that finds none
    does not start."""
    precision: Precision = "auto"
    """`auto`: what the engine finds fastest on this processor (bf16 where it has it); `f32` for parity."""
    graph_precision: dict[str, Precision] = Field(default_factory=dict)
    """Precision by graph, over `precision`: `{"text_encoder": "f32"}`."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Threads of the engine; 0: the processor's cores."""
    infer_requests: Annotated[int, Field(ge=1, le=16)] = 2
    """Calls that the engine has at once: with 2 it goes on with the next as soon as one ends, and with 1 it
    rests until Python has handed the next over."""
    engine_cores: list[NonNegativeInt] = Field(default_factory=list)
    """Cores that the threads of the engine run on, `[0, 1]`; empty: any. Nothing else is kept from them."""
    embedding_cache_bytes: NonNegativeInt = 256 * MIB
    """Bytes of image embeddings to keep, 4 MB each for a full-size student; 0 keeps none."""
    shared_embedding_ttl_s: Annotated[int, Field(ge=0, le=31_536_000)] = 0
    """How long an image embedding is kept in Redis for other workers of the same artefact; 0: none is. It is
    rounded to half floats then, 2 MB for a full-size student, before it is used anywhere."""
    feature_cache_bytes: NonNegativeInt = 512 * MIB
    """Bytes of feature maps to keep for the next prompt on an image; 0 keeps none. A full-size student's are
    21 MB for clicks and 112 MB for concepts."""
    share_cache_between_keys: bool = False
    """Whether a request may use what was computed for another key's equal image or text. Then the time of an
    answer reveals whether another key has sent the same."""
    batching: Batching = "dynamic"
    """`dynamic`: what waits for the engine at the same time shares batches. `fixed`: every request by itself,
    so that its answer is the same to the bit whatever else is asked."""
    max_batch: Annotated[int, Field(ge=1, le=1024)] = 8
    """Images, or rows of prompts and objects, that different requests may share a batch with."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 12
    """Requests that are worked on at once: while the engine computes for some, others are decoded, or their
    masks are encoded."""
    max_queued: PositiveInt = 64
    """Requests that may wait for their turn. One more takes the place of the newest of the key with the most
    requests, if that key has more than its own; else it is refused as `overloaded`."""
    image_ttl_s: Annotated[int, Field(ge=1, le=31_536_000)] = 600
    """How long an image that was sent once is kept after its last use."""
    max_kept_image_bytes: PositiveInt = 256 * MIB
    """Bytes of the images that a worker keeps where there is no Redis; the least used make room."""
    session_ttl_s: Annotated[int, Field(ge=1, le=31_536_000)] = 600
    """How long a tracking session is kept after its last use, unless it asks for another time."""
    max_session_objects: Annotated[int, Field(ge=1, le=1024)] = 64
    """Objects that one session may follow."""
    max_session_texts: Annotated[int, Field(ge=1, le=1024)] = 16
    """Texts whose instances one session may follow."""
    max_session_bytes: PositiveInt = 512 * MIB
    """Bytes of what is kept of one session's objects: some 0.4 MB each for a full-size student's Perceiver
    memory, 7 MB for a dense one."""
    max_frames_in_flight: Annotated[int, Field(ge=1, le=4096)] = 32
    """Frames of one session that may wait or be computed at once, sent one by one; one more is refused as
    `overloaded`."""
    max_frame_rate: NonNegativeFloat = 0.0
    """Frames of one session that are computed per second; those that come faster wait. 0: no limit."""
    max_sessions: PositiveInt = 1000
    """Sessions that one key may have at once, unless its own limit is lower; whoever comes without a key
    shares one count."""
    hot_session_bytes: NonNegativeInt = 1024 * MIB
    """Bytes of sessions' memories and last frames that stay on the worker between frames. The last frames of
    the least used go first, 25 MB each for a full-size student: whoever corrects such a frame sends its image
    again. Then the memories go, and are loaded again from Redis. Without Redis all memories stay."""
    max_video_decoders: Annotated[int, Field(ge=1, le=1024)] = 8
    """Videos that are decoded at once, each in a process of its own. Others wait; the key with the fewest
    running ones is next."""
    video_decoder_memory_bytes: Annotated[int, Field(ge=64 * MIB)] = 1280 * MIB
    """Bytes that decoding one video may take, the file included, enough for 8K. A video that needs more is
    rejected as `unsupported_video`."""
    video_decoder_cpu_s: PositiveInt = 20
    """Seconds of processor time that opening a video, or decoding one frame, may take."""
    video_decoder_timeout_s: PositiveFloat = 60.0
    """Seconds that opening a video, or decoding one frame, may take."""
    drain_s: NonNegativeFloat = 30.0
    """How long a stopping worker goes on with the requests it has."""
    image_formats: Annotated[list[ImageFormat], Field(min_length=1)] = ["jpeg", "png", "webp", "tiff", "gif"]
    """Formats of images that clients may send, `["jpeg", "png"]`; others are rejected as `unsupported_image`.
    Masks may be PNG files whatever it says."""
    max_pixels_at_once: PositiveInt = 100_000_000
    """Pixels of the images and mask prompts that are worked on at once, some 8 bytes each. Requests with more
    wait; a larger one is worked on while no other large one is. A quarter is set apart for small images."""


class GatewaySettings(Limits, RedisSettings, KeySettings, LogSettings, TraceSettings):
    """The gateway: its listeners, its variants, its patience."""

    host: str = "127.0.0.1"
    http_port: Port = 8080
    """0: any free port."""
    grpc_port: Port = 8081
    """0: any free port."""
    tls_certificate: File = None
    """PEM file of the certificate and its chain, for HTTP and gRPC; none: no TLS."""
    tls_key: File = None
    """PEM file of that certificate's key."""
    tls_client_ca: File = None
    """PEM file of the authorities of clients' certificates; where it is set, others are refused."""
    workers: dict[Served, list[WorkerAddress]] = Field(default_factory=dict)
    """Addresses of the workers by variant: `{"es-ev-m-mc-s0": ["10.0.0.5:50061", "unix:/run/a.sock"]}`.
    `dns:host:port` stands for every address that the name has, now and later. `VARIANT@DIGITS` has those that
    keep the sessions of an artefact that is replaced; its digest begins with these 8 to 64 digits."""
    workers_file: File = None
    """JSON file with more of them. It is read again when it changes: variants and workers come and go. In the
    place of addresses it may say `{"workers": [...], "until": "2026-12-31T00:00:00Z"}`."""
    discovery_interval_s: PositiveFloat = 5.0
    """How often names are looked up again, and the file is looked at."""
    workers_ca: File = None
    """PEM file of the authorities of workers' certificates; none: no TLS. Unix sockets have none anyway."""
    workers_certificate: File = None
    """PEM file of the certificate that workers are shown, and its chain; none: none is shown."""
    workers_key: File = None
    """PEM file of that certificate's key."""
    workers_server_name: str = ""
    """The name that workers' certificates have; empty: the host of each one's address."""
    default_variant: str = ""
    """The variant of requests that name none; empty: the first of `workers`, then of the file."""
    default_deadline_ms: PositiveInt = 60_000
    """Deadline of a request that brings none."""
    max_deadline_ms: PositiveInt = 600_000
    """The longest deadline a request may ask for."""
    max_waiting: PositiveInt = 256
    """Requests of one variant that may be admitted and not answered; one more is refused as `overloaded`. So
    is what its ready workers would refuse, by their `max_queued` and `concurrency`. A key that holds less
    than its fair share, the limit divided by the keys with requests, is admitted up to twice the limit."""
    message_timeout_s: PositiveFloat = 60.0
    """How long one gRPC message may take to arrive after its call has begun, in seconds."""
    max_receiving_message_bytes: PositiveInt = 1024 * MIB
    """Bytes of memory for gRPC messages that are being received. Each counts as the largest message until it
    is complete; if no room is left, the owner with the most unfinished messages loses one."""
    max_streams: PositiveInt = 1_024
    """Tracking streams over gRPC that may be open at once."""
    stream_idle_s: PositiveFloat = 600.0
    """How long a tracking stream over gRPC may wait for its next message, in seconds."""
    probe_interval_s: PositiveFloat = 1.0
    """How often a worker that is not ready is asked again."""
    drain_s: NonNegativeFloat = 30.0
    """How long a stopping gateway goes on with the requests it has."""
    allowed_hosts: list[str] = Field(default_factory=list)
    """Host names that requests may be sent to: `["segment.example", "*.internal.example"]`, `["*"]` for all.
    Loopback names, IP addresses and `host` are always allowed. If empty, every name is allowed, except by a
    gateway without keys that listens on loopback."""
    header_timeout_s: PositiveFloat = 10.0
    """Seconds until the head of a request must be complete, from the opening of the connection or from the
    first byte of a later request. A WebSocket without a key is closed after the same time."""
    idle_timeout_s: PositiveFloat = 5.0
    """Seconds that a connection is kept open between two requests."""
    body_timeout_s: PositiveFloat = 20.0
    """Seconds that the next bytes of a request's body may take to arrive."""
    write_timeout_s: PositiveFloat = 30.0
    """Seconds until a client must have read more of a response; then its connection is closed."""
    min_transfer_bytes_per_s: NonNegativeInt = 1024
    """Minimum average rate of a request's body, and of a response that is larger than the socket's buffers,
    after `body_timeout_s` and in each `write_timeout_s`. 0: no minimum."""
    max_connections: PositiveInt = 4096
    """Maximum number of HTTP connections and WebSockets. A new one replaces the connection that has waited
    longest without a complete request; if there is none, the new one is closed."""
    max_connections_per_address: NonNegativeInt = 0
    """Maximum number of HTTP connections and WebSockets of one client address. 0: no limit, because all
    clients behind a proxy share its address."""
    max_receiving_bytes: PositiveInt = 512 * MIB
    """Maximum total bytes of request bodies that are not complete yet. One owner gets at most half of it."""
    max_unsent_bytes: PositiveInt = 256 * MIB
    """Maximum total bytes of responses that clients have not read yet. Beyond it, the connection that has
    waited longest for its client is closed."""
    allowed_origins: list[str] = Field(default_factory=list)
    """Other origins whose pages may send requests: `["https://tool.example"]`."""
    page: bool = True
    """Whether the gateway has the page at `/`, which shows in a browser what it does. It needs no key, what
    it asks for does."""
    allow_image_urls: bool = False
    """Whether the gateway fetches images by `image.url`, from global addresses alone."""
    max_image_url_seconds: PositiveFloat = 10.0
    """How long fetching one image may take, redirects included."""


class ServeSettings(GatewaySettings, WorkerSettings):
    """Gateway and workers on one machine, over Unix sockets."""
