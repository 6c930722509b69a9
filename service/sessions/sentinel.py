"""Redis behind Sentinel: which server is the master now is asked of the sentinels, whenever one connects."""

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from service.config import SENTINEL

_PORT = 26379


class _MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the master; whoever finds all of them taken waits, as with a Redis of one address."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close them. All of them: it is the client that closes, and the sentinels are its own."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


def connect_to_master(url: str, bounds: dict[str, float], **pool: float) -> "Redis":
    """A client of the master that the sentinels of the address know; nothing connects before a first command.

    While the sentinels do not answer, or know no master, commands raise ConnectionError.

    Args:
        url: as `service.config.RedisSettings.redis_url` describes it. User, password, database and options
            are the master's; options that begin with `ssl_` are the sentinels', too, and `sentinel_username`
            and `sentinel_password` are theirs alone.
        bounds: timeouts of a connection to either, by the names that `redis.asyncio.Connection` has for them.
        pool: options of the pool.
    """
    found = SENTINEL.fullmatch(url)
    if found is None:
        raise ValueError("not an address of sentinels")
    # As of a Redis of one address: how a part is quoted, and of which type an option is, the library knows.
    who, db, query = (found[part] or "" for part in ("who", "db", "options"))
    of_master: dict[str, Any] = dict(parse_url(f"redis://{who}_/{db}?{query}"))
    del of_master["host"]
    of_sentinels = {
        name.removeprefix("sentinel_"): of_master.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in of_master
    }
    tls = {name: value for name, value in of_master.items() if name.startswith("ssl_")}
    shared = {**bounds, **tls, "ssl": bool(found["tls"])}
    hosts = [_host_and_port(each) for each in found["hosts"].split(",")]
    sentinels = Sentinel(hosts, sentinel_kwargs={**of_sentinels, **shared})  # type: ignore[no-untyped-call]
    options = {**of_master, **shared, **pool}
    return Redis.from_pool(_MasterPool(found["master"], sentinels, **options))  # type: ignore[no-untyped-call]


def _host_and_port(value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    # What is after the last colon may be within an IPv6 address.
    if not colon or port.endswith("]"):
        host, port = value, str(_PORT)
    return host.strip("[]"), int(port)
