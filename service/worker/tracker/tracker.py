"""A frame of a session, computed: its message and the state before -> the answer, and the state after."""

from model_store.artifact import Manifest
from service.config import WorkerSettings
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.worker.engines import Engine
from service.worker.run import GoOn, Run
from service.worker.scenes import Scenes, Seen
from service.worker.tracker.follow import Follower
from service.worker.tracker.frame import step
from service.worker.tracker.shown import answer_of
from service.worker.tracker.state import State


class Tracker:
    """One artefact's graphs on one engine. Not thread-safe, as its engine is not."""

    def __init__(self, manifest: Manifest, engine: Engine, settings: WorkerSettings) -> None:
        """Of an artefact without a memory, that it is told apart by `follows`."""
        self._variant, self._engine, self._settings = manifest.variant, engine, settings
        # A video's frames are seen once: what is worth keeping of them is kept by their session.
        self._scenes = Scenes(settings, manifest.image_size, 0, 0)
        self._follower = None
        if manifest.memory is not None:
            self._follower = Follower(
                manifest.memory,
                manifest.constants,
                mask_size=manifest.mask_size,
                image_size=manifest.image_size,
            )

    def check(self) -> None:
        """Raise `unsupported_prompt` where the artefact has no memory. Thread-safe."""
        if self._follower is None:
            detail = f"{self._variant} has no video memory: it follows no objects."
            raise ServiceError(Kind.UNSUPPORTED_PROMPT, detail)

    def answer(
        self, frame: pb.Frame, state: State, seen: Seen | None, go_on: GoOn = lambda: None
    ) -> tuple[State, pb.FrameAnswer, Seen]:
        """The state after the frame, its answer, and the frame as it was seen.

        `timings_ms` has the stages `decode`, `prompts`, each graph that ran, `memory_masks` and `masks`.

        Args:
            frame: one that `prompts.check_frame` passed, with its image's bytes, if any.
            seen: the frame that is corrected, if it is known; looked at where no image is sent.

        Raises ServiceError: `image_required`, `unsupported_image`, `payload_too_large`, `invalid_argument`;
        and what `go_on` raises.
        """
        self.check()
        assert self._follower is not None
        run = Run(self._engine, go_on)
        if frame.HasField("image"):
            scene = self._scenes.open(frame.image.data, run)
            seen = self._scenes.see(scene, "interactive_features", run)
        if seen is None:
            detail = (
                f"The image of frame {frame.frame} is not known here any more: send it with the correction."
            )
            raise ServiceError(Kind.IMAGE_REQUIRED, detail)
        most = self._settings.max_session_objects
        done = step(run, self._follower, seen, frame.frame, state, frame.prompts, most)
        with run.stage("masks"):
            answer = answer_of(frame, seen.scene, done, state.options, self._settings.max_answer_bytes, go_on)
        answer.timings_ms.update(run.ms)
        return done.state, answer, seen
