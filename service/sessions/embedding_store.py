"""Image embeddings that workers share: the contract."""

from typing import Protocol


class EmbeddingStore(Protocol):
    """What workers have packed, by the image's id. One per process, used from one event loop.

    `image` is the id, or `OWNER/` and the id where it is kept for one owner alone.
    It may forget whatever it likes. All of it raises `store_unavailable` where the store is out of reach.
    """

    async def put(self, image: str, data: bytes) -> None:
        """Keep it for a time to live, which begins now."""
        ...

    async def get(self, image: str) -> bytes | None:
        """What was put; None if it is not kept."""
        ...

    async def close(self) -> None: ...
