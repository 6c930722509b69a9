"""A page whose figures are what its commands say."""

from tests.load.page import measured

PAGE = """# A page

```console
$ first
old
$ second
older
```

```console
$ third
```

```
$ no command
```
"""


def test_what_commands_say_is_put_below_them_block_by_block() -> None:
    asked: list[str] = []

    def run(command: str) -> str:
        asked.append(command)
        return f"{command} says\n$1 \\1\n"

    one, both = measured(PAGE, run)
    assert asked == ["first", "second", "third"]
    told = {command: f"$ {command}\n{command} says\n$1 \\1\n" for command in asked}
    assert one == PAGE.replace("$ first\nold\n$ second\nolder\n", told["first"] + told["second"])
    assert both == one.replace("$ third\n", told["third"])
    # Measured again, a page keeps nothing of what it said before.
    assert list(measured(both, lambda _: ""))[-1] == PAGE.replace("old\n", "").replace("older\n", "")
