"""Image bytes -> size and features, each computed once as long as there is room to keep it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.config import Limits
from service.prompts import image_id
from service.telemetry import CacheCounts
from service.worker.cache import Cache
from service.worker.image import decode
from service.worker.run import Arrays, Run
from service.worker.shared import SharedEmbeddings


@dataclass(frozen=True, slots=True)
class Encoded:
    """What is kept of an image."""

    # Pixels, as displayed (EXIF orientation applied).
    width: int
    height: int
    # `image_encoder`'s output.
    embedding: NDArray[np.float32]


@dataclass(slots=True)
class Scene:
    """An image as the graphs see it. One request's, or one session's."""

    # `sha256:` and the hexadecimal digest of the bytes.
    id: str
    # Pixels, as displayed (EXIF orientation applied).
    width: int
    height: int
    # (1, S, S, 3) uint8 RGB: the whole image, stretched. None once it is encoded.
    pixels: NDArray[np.uint8] | None
    # `image_encoder`'s output, once it is there.
    embedding: NDArray[np.float32] | None = None
    # Whose it is in the caches; empty: nobody's in particular.
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """An image with the features that one side of the graphs takes."""

    scene: Scene
    # `concept_features`' or `interactive_features`' outputs.
    features: Arrays

    @property
    def nbytes(self) -> int:
        """Of its arrays."""
        embedding = self.scene.embedding
        return nbytes_of(self.features) + (0 if embedding is None else embedding.nbytes)


class Scenes:
    """Opens images; keeps embeddings of many and features of few. Any thread may use it."""

    def __init__(
        self,
        limits: Limits,
        image_size: int,
        embedding_bytes: int,
        feature_bytes: int,
        shared: SharedEmbeddings | None = None,
    ) -> None:
        """At most so many bytes of embeddings and of features are kept, the most recently used.

        What is kept for one `owner` of images is not used for another: how long an answer takes would reveal
        what others have sent.
        """
        self._limits, self._shared = limits, shared
        self._image_size = image_size
        self._encoded = Cache[Encoded](embedding_bytes, lambda encoded: encoded.embedding.nbytes)
        self._features = Cache[Arrays](feature_bytes, nbytes_of)

    def counts(self) -> Mapping[str, Callable[[], CacheCounts]]:
        """Of its caches, by their names."""
        return {"embeddings": self._encoded.counts, "features": self._features.counts}

    def open(self, data: bytes, run: Run, owner: str = "") -> Scene:
        """The image of these bytes, decoded unless it was encoded before. Raises what `decode` raises."""
        name = image_id(data)
        if (known := self._encoded.get((owner, name))) is not None:
            return Scene(name, known.width, known.height, None, known.embedding, owner)
        with run.stage("decode"):
            picture = decode(data, self._limits, self._image_size, run.go_on)
        return Scene(name, picture.width, picture.height, picture.pixels[np.newaxis], owner=owner)

    def encode(self, scene: Scene, run: Run) -> NDArray[np.float32]:
        """`image_encoder`'s output. The same image is encoded once, however many ask for it meanwhile."""

        def encoded() -> Encoded:
            return Encoded(scene.width, scene.height, self._embedding(scene, run))

        if scene.embedding is None:
            scene.embedding = self._encoded.get_or_make((scene.owner, scene.id), encoded).embedding
            scene.pixels = None
        return scene.embedding

    def _embedding(self, scene: Scene, run: Run) -> NDArray[np.float32]:
        """From the other workers, or made here for them too."""
        assert scene.pixels is not None
        if self._shared is None:
            return run("image_encoder", pixels=scene.pixels)["embedding"]
        with run.stage("shared_embedding"):
            known = self._shared.get(scene.id, scene.owner)
        if known is not None:
            return known
        embedding = run("image_encoder", pixels=scene.pixels)["embedding"]
        return self._shared.put(scene.id, embedding, scene.owner)

    def see(self, scene: Scene, graph: str, run: Run) -> Seen:
        """The scene with the outputs of `graph`: `concept_features` or `interactive_features`."""

        def features() -> Arrays:
            return run(graph, embedding=self.encode(scene, run))

        return Seen(scene, self._features.get_or_make((graph, scene.owner, scene.id), features))


def nbytes_of(arrays: Arrays) -> int:
    """Of all of them."""
    return sum(each.nbytes for each in arrays.values())
