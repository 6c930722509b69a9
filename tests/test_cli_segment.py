"""`efficientsam3 segment`: what its options ask a real gateway for, and what it prints and draws."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.cli import main
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from tests.gateway.conftest import House
from tests.gateway.fake_worker import FakeWorker
from tests.pictures import encoded

Run = Callable[..., tuple[int, str, str]]

POINT = pb.Point(x=3, y=2.5, positive=True)
NOT_POINT = pb.Point(x=5, y=0, positive=False)
BOX = pb.Box(x0=1, y0=0, x1=3.5, y1=4)
OTHER_BOX = pb.Box(x0=0, y0=0, x1=2, y1=2)
BOX_ARGUMENTS = ("--box", "1,0,3.5,4")
EXEMPLARS = ("--exemplar", "1,0,3.5,4", "--not-exemplar", "0,0,2,2", "--exemplar", "3,2.5")
AS_EXEMPLARS = [
    pb.Exemplar(box=BOX, positive=True),
    pb.Exemplar(point=pb.Point(x=3, y=2.5), positive=True),
    pb.Exemplar(box=OTHER_BOX, positive=False),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, FakeWorker]]:
    """A house with one ready worker of "demo", and that worker."""
    house = House(tmp_path_factory.mktemp("h"))
    worker = house.worker()
    house.run(worker.start())
    house.open(worker)
    house.wait_ready()
    yield house, worker
    house.close()


@pytest.fixture
def worker(served: tuple[House, FakeWorker]) -> FakeWorker:
    """The worker, which nobody has asked yet."""
    served[1].asked.clear()
    return served[1]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture of the size that the fake worker's masks have."""
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(Image.new("RGB", (6, 4), "grey"), "PNG"))
    return path


@pytest.fixture
def run(
    served: tuple[House, FakeWorker],
    picture: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """`efficientsam3 segment` with these arguments -> exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit:
            main(["segment", str(picture), "--server", served[0].gateway.url, *map(str, arguments)])
        return (int(exit.value.code or 0), *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("arguments", "prompts"),
    [
        (("--text", "truck", "--text", "wheel"), [pb.Prompt(text="truck"), pb.Prompt(text="wheel")]),
        (("--text", "truck", *EXEMPLARS), [pb.Prompt(text="truck", exemplars=AS_EXEMPLARS)]),
        (EXEMPLARS, [pb.Prompt(exemplars=AS_EXEMPLARS)]),
        (("--point", "3,2.5"), [pb.Prompt(points=[POINT])]),
        (("--point", "3,2.5", "--not-point", "5,0"), [pb.Prompt(points=[POINT, NOT_POINT])]),
        ((*BOX_ARGUMENTS, "--point", "3,2.5"), [pb.Prompt(points=[POINT], box=BOX)]),
        ((*BOX_ARGUMENTS, "--box", "0,0,2,2"), [pb.Prompt(box=BOX), pb.Prompt(box=OTHER_BOX)]),
        ((*BOX_ARGUMENTS, "--text", "truck"), [pb.Prompt(text="truck"), pb.Prompt(box=BOX)]),
        (("--not-point", "-5,1e2"), [pb.Prompt(points=[pb.Point(x=-5, y=100, positive=False)])]),
    ],
)
def test_options_are_prompts(
    run: Run, worker: FakeWorker, arguments: tuple[str, ...], prompts: list[pb.Prompt]
) -> None:
    code, _, errors = run(*arguments)
    assert code == 0, errors
    (asked,) = worker.asked
    assert list(asked.prompts) == prompts
    assert asked.options == pb.SegmentOptions(mask_format=pb.MASK_FORMAT_RLE)


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P"])
def test_a_masks_file_is_sent_as_grey_with_its_size(
    run: Run, worker: FakeWorker, tmp_path: Path, mode: str
) -> None:
    drawn = Image.new("L", (6, 4), 127)
    drawn.paste(128, (2, 1, 4, 3))
    # One bit holds black and white alone.
    drawn = drawn.point(lambda value: 255 * (value > 127)) if mode == "1" else drawn
    (tmp_path / "mask.png").write_bytes(encoded(drawn.convert(mode), "PNG"))
    code, _, errors = run("--mask", tmp_path / "mask.png", *BOX_ARGUMENTS)
    assert code == 0, errors
    (prompt,) = worker.asked[0].prompts
    assert prompt.box == BOX
    assert (prompt.mask.width, prompt.mask.height) == (6, 4)
    with Image.open(io.BytesIO(prompt.mask.png)) as sent:
        assert (sent.mode, sent.size, sent.getextrema()) == ("L", (6, 4), (0, 255))
        assert sent.getbbox() == (2, 1, 4, 3)


def test_several_masks_are_several_objects(run: Run, worker: FakeWorker, tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(encoded(Image.new("L", (6, 4), 255), "PNG"))
    assert run("--mask", tmp_path / "mask.png", "--mask", tmp_path / "mask.png")[0] == 0
    assert [prompt.HasField("mask") for prompt in worker.asked[0].prompts] == [True, True]


def test_options_of_the_request_arrive(run: Run, worker: FakeWorker) -> None:
    options = ("--threshold", "0.25", "--max-segments", "3", "--multimask", "--mask-format", "polygon")
    code, output, errors = run("--point", "1,1", *options, "--json")
    assert code == 0, errors
    assert worker.asked[0].options == pb.SegmentOptions(
        max_segments=3, multimask=True, mask_format=pb.MASK_FORMAT_POLYGON
    )
    # An object is bound by its own prompt's threshold alone.
    assert worker.asked[0].prompts[0].score_threshold == 0.25
    assert json.loads(output)["results"][0]["segments"][0]["mask"]["format"] == "polygon"


PROMPTS: list[dict[str, Any]] = [
    {"text": "truck", "score_threshold": 0.25},
    {"points": [{"x": 3.0, "y": 2.5, "positive": True}]},
]
AS_PROMPTS = [pb.Prompt(text="truck", score_threshold=0.25), pb.Prompt(points=[POINT])]


def test_prompts_come_from_a_file(run: Run, worker: FakeWorker, tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS))
    code, _, errors = run("--prompts", tmp_path / "prompts.json", "--multimask")
    assert code == 0, errors
    assert list(worker.asked[0].prompts) == AS_PROMPTS


def test_prompts_come_from_standard_input(
    run: Run, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(PROMPTS).encode())))
    code, _, errors = run("--prompts", "-")
    assert code == 0, errors
    assert list(worker.asked[0].prompts) == AS_PROMPTS


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "nothing is asked for: give --text"),
        (("--text", " "), "--text ' ': a noun phrase is expected"),
        (("--point", "3"), "--point '3': X,Y is expected"),
        (("--point", "3,x"), "--point '3,x': X,Y is expected"),
        (("--not-point", "3,nan"), "--not-point '3,nan': X,Y is expected"),
        (("--point", "1,2,3,4"), "--point '1,2,3,4': X,Y is expected"),
        (("--box", "1,2"), "--box '1,2': X0,Y0,X1,Y1 is expected"),
        (
            ("--box", "5,0,1,4"),
            "--box '5,0,1,4': X0,Y0,X1,Y1 is expected, four numbers in pixels with X0 < X1",
        ),
        (("--exemplar", "1,2,3"), "--exemplar '1,2,3': X,Y or X0,Y0,X1,Y1 is expected"),
        (("--not-exemplar", "1,inf"), "--not-exemplar '1,inf': X,Y or"),
        (("--text", "a", "--text", "b", "--exemplar", "1,1"), "exemplars belong to one --text"),
        ((*BOX_ARGUMENTS, *BOX_ARGUMENTS, "--point", "1,1"), "--point with several --box"),
        (("--text", "a", "--multimask"), "--multimask is for an object"),
        (("--text", "a", "--threshold", "nan"), "--threshold nan: a score is expected, 0 to 1"),
        (("--text", "a", "--threshold", "1.5"), "--threshold 1.5"),
        (("--text", "a", "--out", "x.foo"), "no picture format is known by .foo"),
        (("--text", "a", "--out", "/nowhere/x.png"), "no folder /nowhere"),
        (
            ("--text", "a", "--out", "x.png", "--mask-format", "rle"),
            "--mask-format rle: with --out, png or none",
        ),
        (("--text", "a", "--prompts", "x.json"), "--prompts is given alone"),
        (("--prompts", "/nowhere.json"), "--prompts /nowhere.json: No such file"),
        (("--mask", "/nowhere.png"), "--mask '/nowhere.png': a PNG file is expected; No such file"),
    ],
)
def test_a_bad_value_is_one_line_before_any_server_is_asked(
    run: Run, worker: FakeWorker, arguments: tuple[str, ...], sentence: str
) -> None:
    code, output, errors = run(*arguments)
    assert (code, output) == (2, ""), errors
    assert sentence in errors
    assert len(errors.splitlines()) == 1, errors
    assert not worker.asked


@pytest.mark.parametrize("value", [("--max-segments", "0"), ("--mask-format", "jpeg")])
def test_a_value_out_of_its_range_names_the_option(
    run: Run, worker: FakeWorker, value: tuple[str, str]
) -> None:
    code, _, errors = run("--text", "a", *value)
    assert code == 2
    assert value[0] in errors.splitlines()[-1]
    assert not worker.asked


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        (b"\xff", "it is no JSON"),
        (b"[]", "a JSON list of prompts is expected"),
        (b'{"text": "truck"}', "a JSON list of prompts is expected"),
        (b'["truck"]', "a JSON list of prompts is expected"),
    ],
)
def test_a_file_that_is_no_list_of_prompts_is_refused(
    run: Run, tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "prompts.json").write_bytes(content)
    code, _, errors = run("--prompts", tmp_path / "prompts.json")
    assert code == 2
    assert sentence in errors
    assert len(errors.splitlines()) == 1, errors


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no picture", "no picture of a known format"),
        (encoded(Image.new("L", (6, 4), 255)), "no picture of a known format"),
        (encoded(Image.new("L", (600, 400), 255), "PNG")[:-40], "a PNG file is expected; "),
        (encoded(Image.new("L", (6, 4), 127), "PNG"), "no pixel of it is above 127"),
        (encoded(Image.new("I;16", (6, 4), 40_000), "PNG"), "8 bits are expected"),
    ],
    ids=["text", "a JPEG", "cut off", "empty", "16 bits"],
)
def test_a_file_that_is_no_mask_is_refused(run: Run, tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "mask.png").write_bytes(content)
    code, _, errors = run("--mask", tmp_path / "mask.png")
    assert code == 2
    assert sentence in errors
    assert len(errors.splitlines()) == 1, errors


def test_the_table_says_every_prompt_in_words(run: Run, tmp_path: Path) -> None:
    box, points = [1, 0, 3.5, 4], [{"x": 3, "y": 2.5}, {"x": 5, "y": 0, "positive": False}]
    mask = base64.b64encode(encoded(Image.new("L", (6, 4), 255), "PNG")).decode()
    exemplars = [{"box": box}, {"point": {"x": 1, "y": 2}, "positive": False}]
    words = {
        "[/b] [red]truck": {"text": "[/b] [red]truck"},
        "wheel, 2 exemplars": {"text": "wheel", "exemplars": exemplars},
        "exemplar 1,0,3.5,4": {"exemplars": exemplars[:1]},
        "not-exemplar 1,2": {"exemplars": exemplars[1:]},
        "box 1,0,3.5,4, point 3,2.5": {"box": box, "points": points[:1]},
        "not-point 5,0": {"points": points[1:]},
        "2 points, mask": {"points": points, "mask": {"format": "png", "size": [4, 6], "png": mask}},
    }
    (tmp_path / "prompts.json").write_text(json.dumps(list(words.values())))
    code, output, errors = run("--prompts", tmp_path / "prompts.json")
    assert code == 0, errors
    rows = [line.split("0.930")[0].strip() for line in output.splitlines() if "0.930" in line]
    assert rows == list(words)


def test_it_prints_and_draws(run: Run, worker: FakeWorker, tmp_path: Path) -> None:
    code, table, _ = run("--text", "truck", "--out", tmp_path / "overlay.png")
    assert (code, worker.asked[0].options.mask_format) == (0, pb.MASK_FORMAT_PNG)
    assert "1.5, 2.0, 3.2, 4.0" in table and "demo: 81 ms" in table and "overlay.png" in table
    with Image.open(tmp_path / "overlay.png") as drawn:
        assert drawn.size == (6, 4)
        assert drawn.getpixel((5, 0)) != (128, 128, 128)
    _, table, _ = run("--text", "truck", "--mask-format", "none", "--out", tmp_path / "boxes.jpg")
    assert worker.asked[1].options.mask_format == pb.MASK_FORMAT_NONE
    assert (tmp_path / "boxes.jpg").exists()


def test_its_help_has_a_line_for_each_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["segment", "--help"])
    lines = capsys.readouterr().out.rstrip().splitlines()
    options = lines[lines.index("Options:") + 1 :]
    assert len(options) == 18
    assert all(line.startswith("  --") and len(line) <= 80 for line in options), options
