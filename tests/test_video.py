"""Video files as the command reads them."""

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from service.video import FrameLimits, FrameTooLargeError, Video, VideoError
from tests import hostile_videos as videos

SAMPLE = "model_store/samples/traffic-lights.mp4"


def test_a_file_is_read_by_the_rules_of_the_service(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(videos.written(320, 240, 5))
    with Video(path) as video:
        assert (video.frames, video.size) == (5, (320, 240))
        assert [picture.size for picture in video] == [(320, 240)] * 5
    for name, text in videos.playlists("http://127.0.0.1:9", SAMPLE):
        path.write_bytes(text)
        with pytest.raises(VideoError, match=r"clip\.mp4 cannot be read as a video"):
            Video(path)
        assert name
    with pytest.raises(FileNotFoundError):
        Video(tmp_path / "absent.mp4")
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    with pytest.raises(VideoError):
        Video(picture.getvalue())


def test_frames_are_measured_one_by_one() -> None:
    limits = FrameLimits(max_pixels=100_000, max_side=400)
    grown = videos.written(320, 240, 10, "mpegts") + videos.written(640, 480, 2, "mpegts")
    with Video(grown, limits) as video:
        pictures = iter(video)
        assert [next(pictures).size for _ in range(10)] == [(320, 240)] * 10
        with pytest.raises(FrameTooLargeError, match="640 x 480"):
            next(pictures)
    with pytest.raises(FrameTooLargeError):
        Video(videos.written(640, 480, 2), limits)


def test_a_video_may_be_closed_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(videos.written(1280, 720, 40))
    program = """
        import sys, threading
        from pathlib import Path
        from service.video import Video, VideoError

        for _ in range(20):
            video, reached = Video(Path(sys.argv[1])), threading.Event()

            def read():
                try:
                    for _ in video:
                        reached.set()
                except VideoError as error:
                    assert "was closed" in str(error)

            reader = threading.Thread(target=read)
            reader.start()
            reached.wait()
            video.close()
            reader.join()
        print("alive")
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (0, "alive\n"), ended
