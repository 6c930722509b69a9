"""Image embeddings kept in Redis: `embedding_store.EmbeddingStore`, shared by workers that compute alike.

A key is `efficientsam3:embedding:ORIGIN:IMAGE`: the digest of what the values depend on beside the image, and
the image's id, before which `OWNER/` stands where it is computed for one owner alone. Nothing is done with
two of them at once, so that a cluster may spread them over its slots.
"""

from service.sessions.redis_store import connect, in_reach

_PREFIX = "efficientsam3:embedding:"
_STORE = "store of embeddings"
# Whoever asks for one has less patience.
_TIMEOUT_S = 2.0


class RedisEmbeddings:
    """Embeddings in Redis. Redis's own `maxmemory` bounds them, and drops them if its policy says so."""

    def __init__(self, url: str, origin: str, ttl_s: int) -> None:
        """`url` as `redis_store.connect` takes it; what is of another `origin` does not exist here."""
        self._client = connect(url, _TIMEOUT_S)
        self._prefix = f"{_PREFIX}{origin}:"
        self._ttl_s = ttl_s

    async def put(self, image: str, data: bytes) -> None:
        with in_reach(_STORE):
            await self._client.set(self._prefix + image, data, ex=self._ttl_s)

    async def get(self, image: str) -> bytes | None:
        with in_reach(_STORE):
            data = await self._client.get(self._prefix + image)
        assert not isinstance(data, str)  # see `connect`
        return data

    async def close(self) -> None:
        await self._client.aclose()
