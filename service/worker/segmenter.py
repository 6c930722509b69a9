"""One request, computed: image bytes and prompts in, segments out. Knows graphs, not gRPC."""

from collections.abc import Callable, Iterable, Mapping

from model_store.artifact import Manifest
from service.config import WorkerSettings
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.prompts import is_concept
from service.telemetry import CacheCounts
from service.worker import exemplars
from service.worker.answer import Answer, Kept
from service.worker.concepts import Concepts, Tokenize
from service.worker.engines import Graphs
from service.worker.objects import Objects
from service.worker.run import GoOn, Run
from service.worker.scenes import Scene, Scenes
from service.worker.shared import SharedEmbeddings
from service.worker.tokenizer import clean


class Segmenter:
    """One artefact's graphs on one engine. Any thread may use it that may use the engine."""

    def __init__(
        self,
        manifest: Manifest,
        graphs: Graphs,
        tokenize: Tokenize,
        settings: WorkerSettings,
        shared: SharedEmbeddings | None = None,
    ) -> None:
        self._manifest = manifest
        self._graphs = graphs
        self._max_answer_bytes = settings.max_answer_bytes
        self._scenes = Scenes(
            settings,
            manifest.image_size,
            settings.embedding_cache_bytes,
            settings.feature_cache_bytes,
            shared,
        )
        self._shares_between_keys = settings.share_cache_between_keys
        self._concepts = Concepts(manifest, tokenize)
        self._objects = Objects(manifest)

    def caches(self) -> Mapping[str, Callable[[], CacheCounts]]:
        """What is known of its caches, by their names."""
        return {**self._scenes.counts(), "texts": self._concepts.texts.counts}

    def check(self, prompts: Iterable[pb.Prompt]) -> None:
        """Raise `unsupported_prompt` for the first prompt that the graphs cannot serve. Thread-safe.

        And `invalid_argument` for a text of which cleaning leaves nothing.
        """
        for index, prompt in enumerate(prompts):
            self._check_served(f"prompts[{index}]", prompt)

    def encode(
        self,
        data: bytes,
        go_on: GoOn = lambda: None,
        owner: str = "",
    ) -> tuple[Scene, dict[str, float]]:
        """Encode an image file, so that what follows on it is quick, and the milliseconds by stage.

        `owner`: on whose behalf. Raises ServiceError as `segment` does.
        """
        run = Run(self._graphs, go_on)
        scene = self._scenes.open(data, run, self._cached_for(owner))
        self._scenes.encode(scene, run)
        return scene, run.ms

    def segment(
        self,
        request: pb.SegmentRequest,
        go_on: GoOn = lambda: None,
        owner: str = "",
    ) -> pb.SegmentResponse:
        """Answer a request that `prompts.check` and `check` passed and that brings its image's bytes.

        `timings_ms` has the stages `decode`, `shared_embedding` (asking for it), `prompts` (masks that were
        sent), each graph that ran, and `masks`.

        Raises ServiceError: `unsupported_image`, `payload_too_large`, `invalid_argument`, `overloaded`; and
        what `go_on` raises.
        """
        run = Run(self._graphs, go_on)
        scene = self._scenes.open(request.image.data, run, self._cached_for(owner))
        concepts = {
            index: exemplars.as_tensors(f"prompts[{index}]", prompt.exemplars, scene.width, scene.height)
            for index, prompt in enumerate(request.prompts)
            if is_concept(prompt)
        }
        objects = [(index, prompt) for index, prompt in enumerate(request.prompts) if index not in concepts]
        clicks = self._objects.read(run, objects, scene.width, scene.height) if objects else {}
        answer = Answer(self._manifest.variant, scene, request.options, self._max_answer_bytes, go_on)
        found: dict[int, Kept] = {}
        if objects:
            seen = self._scenes.see(scene, "interactive_features", run)
            found = self._objects.find(run, seen, objects, clicks, request.options)
        if concepts:
            seen = self._scenes.see(scene, "concept_features", run)
            asked = [(request.prompts[index], shown) for index, shown in concepts.items()]
            instances = self._concepts.find(run, seen, asked, request.options)
            found |= zip(concepts, instances, strict=True)
        for index, prompt in enumerate(request.prompts):
            with run.stage("masks"):
                answer.add(index, prompt.text, found[index])
        answer.response.timings_ms.update(run.ms)
        return answer.response

    def _cached_for(self, owner: str) -> str:
        """Whose the features are in the caches."""
        return "" if self._shares_between_keys else owner

    def _check_served(self, path: str, prompt: pb.Prompt) -> None:
        if prompt.text and not clean(prompt.text):
            raise ServiceError(Kind.INVALID_ARGUMENT, f"{path}.text is blank.")
        for kind, present in (
            ("text", bool(prompt.text)),
            ("exemplar_box", any(each.HasField("box") for each in prompt.exemplars)),
            ("exemplar_point", any(each.HasField("point") for each in prompt.exemplars)),
            ("points", bool(prompt.points)),
            ("box", prompt.HasField("box")),
            ("mask", prompt.HasField("mask")),
        ):
            if present and kind not in self._manifest.prompts:
                why = self._manifest.unserved.get(kind, "")
                able = ", ".join(self._manifest.prompts)
                detail = f"{path} is of the kind {kind}; {self._manifest.variant} can serve: {able}."
                raise ServiceError(Kind.UNSUPPORTED_PROMPT, f"{detail} For {kind}: {why}." if why else detail)
