"""The typed client: HTTP and gRPC, with an event loop and without."""

from service.client.answers import Answer, Frame, KeptImage, Segment, TrackedObject
from service.client.asynchronous import AsyncClient, Prompt
from service.client.sessions import IN_FLIGHT, AsyncSession, TrackPrompt
from service.client.synchronous import Client, Session, Video
from service.client.videos import AsyncVideo, VideoPrompt

__all__ = [
    "IN_FLIGHT",
    "Answer",
    "AsyncClient",
    "AsyncSession",
    "AsyncVideo",
    "Client",
    "Frame",
    "KeptImage",
    "Prompt",
    "Segment",
    "Session",
    "TrackPrompt",
    "TrackedObject",
    "Video",
    "VideoPrompt",
]
