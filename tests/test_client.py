"""The Python client against a real gateway."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from service.client import Client, Segment
from service.errors import Kind, ServiceError
from service.prompts import image_id
from tests.gateway.serve_fakes import Served
from tests.pictures import encoded

PICTURE = encoded(Image.new("RGB", (6, 4), "grey"), "PNG")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a fake variant "demo" is served."""
    with Served(tmp_path_factory.mktemp("served") / "log", "1", "demo") as served:
        served.wait_for("demo is ready")
        yield served.url


def test_it_answers_in_types(url: str) -> None:
    with Client(url) as client:
        answer = client.segment(PICTURE, [{"text": "truck"}, {"text": "wheel"}], variant="demo")
        assert [each["name"] for each in client.variants()] == ["demo"]
    assert (answer.variant, answer.width_px, answer.height_px) == ("demo", 6, 4)
    assert answer.image_id == f"sha256:{len(PICTURE)}"
    assert answer.timings_ms["image_encoder"] == 80
    mask = {"format": "rle", "size": [4, 6], "counts": "05l1"}
    assert answer.results == (
        (Segment(0.93, (1.5, 2, 3.25, 4), 7, "truck", mask),),
        (Segment(0.93, (1.5, 2, 3.25, 4), 7, "wheel", mask),),
    )


def test_an_image_is_sent_once_and_named_by_its_id(url: str) -> None:
    with Client(url) as client:
        kept = client.encode_image(PICTURE, variant="demo")
        assert (kept.id, kept.width_px, kept.height_px, kept.variant) == (image_id(PICTURE), 6, 4, "demo")
        assert kept.kept_until == datetime(2026, 11, 24, 10, 20, 30, tzinfo=UTC)
        answer = client.segment(kept.id, [{"text": "truck"}], mask_format="none")
        assert (answer.image_id, len(answer.results[0])) == (kept.id, 1)
        client.delete_image(kept.id)
        for call in (
            lambda: client.delete_image(kept.id),
            lambda: client.segment(kept.id, [{"text": "truck"}]),
        ):
            with pytest.raises(ServiceError) as gone:
                call()
            assert gone.value.kind is Kind.IMAGE_NOT_FOUND
        with pytest.raises(ServiceError, match="id is no image's id"):
            client.delete_image("a")


def test_it_raises_the_servers_errors(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(ServiceError, match="demo") as unknown:
            client.segment(PICTURE, [{"text": "a"}], variant="nope")
        with pytest.raises(ServiceError, match=r"prompts\[0\].txt") as misspelt:
            client.segment(PICTURE, [{"txt": "a"}])
    assert unknown.value.kind is Kind.VARIANT_NOT_FOUND
    assert misspelt.value.kind is Kind.INVALID_ARGUMENT


def test_where_nothing_answers_it_is_unavailable() -> None:
    with Client("http://127.0.0.1:1", patience_s=0) as client, pytest.raises(ServiceError) as error:
        client.variants()
    assert error.value.kind is Kind.UNAVAILABLE
    assert "http://127.0.0.1:1" in error.value.detail


def test_its_timeout_is_the_servers_deadline(tmp_path: Path) -> None:
    with Served(tmp_path / "log", "1", "broken") as served, Client(served.url, timeout_s=0.3) as client:
        with pytest.raises(ServiceError, match="broken has no ready worker") as error:
            client.segment(PICTURE, [{"text": "a"}])
        assert error.value.kind is Kind.UNAVAILABLE
        assert error.value.retry_after_s == 1
