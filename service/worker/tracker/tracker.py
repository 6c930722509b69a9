"""A frame of a session, computed: its message and the state before -> the answer, and the state after."""

from collections.abc import Sequence

import numpy as np

from model_store.artifact import Manifest
from service.config import WorkerSettings
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.worker.answer import Kept
from service.worker.concepts import Concepts, Tokenize
from service.worker.engines import Graphs
from service.worker.exemplars import as_tensors
from service.worker.run import GoOn, Run
from service.worker.scenes import Scene, Scenes, Seen
from service.worker.tracker.associate import Rules
from service.worker.tracker.follow import Follower
from service.worker.tracker.frame import Frames
from service.worker.tracker.instances import Detections, Instances
from service.worker.tracker.shown import answer_of
from service.worker.tracker.state import Origin, State

# What a new object's score is to be above the lowest that is looked at.
_SURER = 0.2


class Detector:
    """What a text names in a scene, by the graphs that answer images."""

    def __init__(self, concepts: Concepts, scenes: Scenes, mask_size: int) -> None:
        self._concepts, self._scenes, self._side = concepts, scenes, mask_size

    def __call__(self, run: Run, scene: Scene, texts: Sequence[str], threshold: float) -> list[Detections]:
        """As `instances.Find`."""
        seen = self._scenes.see(scene, "concept_features", run)
        none = as_tensors("", [], scene.width, scene.height)
        prompts = [(segmentation_pb.Prompt(text=text, score_threshold=threshold), none) for text in texts]
        found = self._concepts.find(run, seen, prompts, segmentation_pb.SegmentOptions())
        return [self._detections(kept) for kept in found]

    def _detections(self, kept: Kept) -> Detections:
        none = np.zeros((0, self._side, self._side), np.float32)
        scores = tuple(float(score) for score in kept.scores)
        return Detections(scores, none if kept.logits is None else kept.logits)


class Tracker:
    """One artefact's graphs on one engine. Any thread may use it that may use the engine."""

    def __init__(
        self, manifest: Manifest, graphs: Graphs, tokenize: Tokenize, settings: WorkerSettings
    ) -> None:
        self._manifest, self._graphs, self._settings = manifest, graphs, settings
        # A video's frames are seen once: what is worth keeping of them is kept by their session.
        self._scenes = Scenes(settings, manifest.image_size, 0, 0)
        self._frames = None
        if manifest.memory is not None:
            follower = Follower(
                manifest.memory,
                manifest.constants,
                mask_size=manifest.mask_size,
                image_size=manifest.image_size,
            )
            detector = Detector(Concepts(manifest, tokenize), self._scenes, manifest.mask_size)
            self._frames = Frames(follower, Instances(follower, detector), settings)

    def warm(self, data: bytes) -> None:
        """Follow an object through two frames of this image, so that no session pays for a first time."""
        if self._frames is None:
            return
        state = State(Origin(self._manifest.variant, ""))
        image, click = segmentation_pb.Image(data=data), pb.TrackPrompt(points=[segmentation_pb.Point()])
        for index, prompts in enumerate(([click], [])):
            frame = pb.Frame(frame=index, image=image, prompts=prompts)
            state = self.answer(frame, state, None)[0]

    def check(self, frame: pb.Frame | None = None) -> None:
        """Raise `unsupported_prompt` for what the artefact cannot do: follow, find texts. Thread-safe."""
        if self._frames is None:
            detail = f"{self._manifest.variant} has no video memory: it follows no objects."
            raise ServiceError(Kind.UNSUPPORTED_PROMPT, detail)
        for index, prompt in enumerate(frame.prompts if frame else ()):
            if prompt.text and "text" not in self._manifest.prompts:
                why = self._manifest.unserved.get("text", "")
                detail = f"prompts[{index}].text: {self._manifest.variant} finds no texts: {why}."
                raise ServiceError(Kind.UNSUPPORTED_PROMPT, detail)

    def answer(
        self,
        frame: pb.Frame,
        state: State,
        seen: Seen | None,
        go_on: GoOn = lambda: None,
        owner: str = "",
    ) -> tuple[State, pb.FrameAnswer, Seen]:
        """The state after the frame, its answer, and the frame as it was seen.

        `timings_ms` has the stages `decode`, `prompts`, each graph that ran, `memory_masks` and `masks`.

        Args:
            frame: one that `prompts.check_frame` and `check` passed, with its image's bytes, if any.
            seen: the frame that is corrected, if it is known; looked at where no image is sent.
            owner: the session's, with whom alone it shares what is computed of an image or a text.

        Raises ServiceError: `image_required`, `unsupported_image`, `payload_too_large`, `invalid_argument`;
        and what `go_on` raises.
        """
        assert self._frames is not None, "see `check`"
        run = Run(self._graphs, go_on)
        if frame.HasField("image"):
            cached_for = "" if self._settings.share_cache_between_keys else owner
            scene = self._scenes.open(frame.image.data, run, cached_for)
            seen = self._scenes.see(scene, "interactive_features", run)
        if seen is None:
            detail = f"The image of frame {frame.frame} is not known here any more: send it again."
            raise ServiceError(Kind.IMAGE_REQUIRED, detail)
        done = self._frames.step(run, seen, frame.frame, state, frame.prompts, self._rules(state.options))
        with run.stage("masks"):
            answer = answer_of(frame, seen.scene, done, state.options, self._settings.max_answer_bytes, go_on)
        answer.timings_ms.update(run.ms)
        answer.memory_bytes = done.state.nbytes
        return done.state, answer, seen

    def _rules(self, options: pb.TrackOptions) -> Rules:
        lowest = self._manifest.score_threshold
        if options.HasField("score_threshold"):
            lowest = options.score_threshold
        new = min(1.0, lowest + _SURER)
        if options.HasField("new_object_threshold"):
            new = options.new_object_threshold
        selects = options.memory_selection if options.HasField("memory_selection") else True
        return Rules(
            detect_score=lowest,
            new_score=new,
            confirm_frames=options.confirm_frames,
            memory_selection=selects,
        )
