"""The README's table is the registry's."""

import re
from pathlib import Path

from model_store import registry

README = Path(__file__).parent.parent / "README.md"


def test_the_table_of_variants_is_the_registrys() -> None:
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| (\w+) \| (\w+) \| (\d+) \|", README.read_text(), flags=re.MULTILINE
    )
    assert rows == [
        (row.name, row.image_encoder, row.text_encoder, str(row.context_length))
        for row in registry.variants().values()
    ]
