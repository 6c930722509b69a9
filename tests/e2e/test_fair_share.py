"""Two keys at one variant: however much one of them asks for, the other gets its share."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from service.client import AsyncClient
from service.errors import Kind, ServiceError
from tests.deployment import Deployment
from tests.keys import KeysFile, secret
from tests.pictures import encoded, street
from tests.place import DEMO

# What a worker takes with the default settings is 76.
GREEDY, MODEST = 90, 50
CLICK = [{"points": [{"x": 40, "y": 40}]}]
JPEG = encoded(street(160, 120))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A gateway with two keys without limits, before a worker."""
    folder = tmp_path_factory.mktemp("house")
    keys = KeysFile(folder / "keys.toml", greedy={}, modest={})
    settings: dict[str, Any] = {"keys_file": keys.path, "precision": "f32"}
    with Deployment(DEMO, folder, "", workers=1, gateways=1, **settings) as house:
        yield house
        assert "Traceback" not in house.logs()


def test_a_key_with_90_requests_fails_none_of_anothers_50(house: Deployment, way: str) -> None:
    (address,) = house.addresses_over(way)
    greedy, modest = Counter[str](), Counter[str]()
    done = asyncio.Event()

    async def asking(client: AsyncClient, image: str, ended: Counter[str]) -> None:
        try:
            await client.segment(image, CLICK)
            ended["ok"] += 1
        except ServiceError as error:
            ended[error.kind.value] += 1
            await asyncio.sleep(0.1)

    async def forever(client: AsyncClient, image: str) -> None:
        while not done.is_set():
            await asking(client, image, greedy)

    async def scenario() -> None:
        async with (
            AsyncClient(address, key=secret("greedy"), patience_s=0) as much,
            AsyncClient(address, key=secret("modest"), patience_s=0) as little,
        ):
            images = [(await each.encode_image(JPEG)).id for each in (much, little)]
            hogs = [asyncio.create_task(forever(much, images[0])) for _ in range(GREEDY)]
            while not greedy[Kind.OVERLOADED.value]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            waits = asyncio.Semaphore(5)

            async def one() -> None:
                async with waits:
                    await asking(little, images[1], modest)

            await asyncio.gather(*(one() for _ in range(MODEST)))
            refused = greedy[Kind.OVERLOADED.value]
            done.set()
            await asyncio.gather(*hogs)
            assert refused > 1

    asyncio.run(asyncio.wait_for(scenario(), 120))
    assert modest == {"ok": MODEST}
    assert greedy.keys() == {"ok", "overloaded"}
