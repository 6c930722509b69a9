import re

import pytest

from model_store import registry
from model_store.networks.sizes import IMAGES, TEXTS, sizes_of

NAME = re.compile(
    r"es-(ev|rv|tv)-(s|m|l)(-mc-(s0|s1|l))?(-ctx32)?(-geo|-ft)?(-perceiver)?|litetext-(s0|s1|l)-ctx(16|32)"
)
SIZES = {
    "efficientvit_b0": "ev-s",
    "efficientvit_b1": "ev-m",
    "efficientvit_b2": "ev-l",
    "repvit_m0_9": "rv-s",
    "repvit_m1_1": "rv-m",
    "repvit_m2_3": "rv-l",
    "tiny_vit_5m": "tv-s",
    "tiny_vit_11m": "tv-m",
    "tiny_vit_21m": "tv-l",
}


@pytest.mark.parametrize("variant", registry.distilled(), ids=lambda variant: variant.name)
def test_a_name_says_what_the_variant_is_made_of(variant: registry.Variant) -> None:
    assert NAME.fullmatch(variant.name)
    short = {"mobileclip_s0": "s0", "mobileclip_s1": "s1", "mobileclip2_l": "l"}
    if variant.stage == "litetext":
        assert variant.name == f"litetext-{short[variant.text_encoder]}-ctx{variant.context_length}"
        return
    parts = ["es", SIZES[variant.image_encoder]]
    if variant.text_encoder != "sam3":
        parts += ["mc", short[variant.text_encoder]]
        parts += ["ctx32"] if variant.context_length == 32 else []
    assert variant.name.startswith("-".join(parts))
    assert ("perceiver" in variant.name) == (variant.memory == "perceiver")
    assert variant.name.endswith(("-geo", "-ft")) == (variant.stage == "stage1_ft")


def test_released_variants_name_distinct_files_and_the_others_none() -> None:
    files = [variant.file for variant in registry.variants().values() if variant.released]
    assert all(files) and len(set(files)) == len(files)
    assert not any(variant.file for variant in registry.variants().values() if not variant.released)


def test_there_are_networks_for_every_variant_and_variants_for_every_network() -> None:
    rows = registry.variants().values()
    assert {row.image_encoder for row in rows} == set(IMAGES)
    assert {row.text_encoder for row in rows} == set(TEXTS)
    assert set(registry.published()) == {*IMAGES, *TEXTS} - {"sam3_vit", "demo"}
    assert all(sizes_of(row).text.context == row.context_length for row in rows)
    assert sizes_of(registry.find("es-ev-s"), context=77).text.context == 77


def test_what_a_file_lacks_is_in_a_released_file_of_the_same_image_encoder() -> None:
    for row in registry.variants().values():
        if row.fill_from:
            other = registry.find(row.fill_from)
            assert other.released and other.image_encoder == row.image_encoder


def test_an_unknown_name_is_answered_with_those_close_to_it() -> None:
    with pytest.raises(registry.UnknownVariantError, match=r"es-ev-m-mcs0.*es-ev-m-mc-s0"):
        registry.find("es-ev-m-mcs0")
