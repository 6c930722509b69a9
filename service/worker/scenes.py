"""Image bytes -> size and features, each computed once as long as there is room to keep it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.config import Limits
from service.prompts import image_id
from service.worker.cache import ByteCache
from service.worker.image import decode
from service.worker.run import Arrays, Run


@dataclass(slots=True)
class Scene:
    """An image as the graphs see it."""

    # `sha256:` and the hexadecimal digest of the bytes.
    id: str
    # Pixels, as displayed (EXIF orientation applied).
    width: int
    height: int
    # (1, S, S, 3) uint8 RGB: the whole image, stretched. None once it is encoded.
    pixels: NDArray[np.uint8] | None
    # `image_encoder`'s output, once it is there.
    embedding: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """An image with the features that one side of the graphs takes."""

    scene: Scene
    # `concept_features`' or `interactive_features`' outputs.
    features: Arrays


class Scenes:
    """Opens images; keeps embeddings of many and features of few. Not thread-safe."""

    def __init__(self, limits: Limits, image_size: int, embedding_bytes: int, feature_bytes: int) -> None:
        """At most so many bytes of embeddings and of features are kept, the most recently used."""
        self._limits = limits
        self._image_size = image_size
        self._encoded: ByteCache[Scene] = ByteCache(embedding_bytes)
        self._features: ByteCache[Arrays] = ByteCache(feature_bytes)

    def open(self, data: bytes, run: Run) -> Scene:
        """The image of these bytes, decoded unless it was encoded before. Raises what `decode` raises."""
        name = image_id(data)
        if (known := self._encoded.get(name)) is not None:
            return known
        with run.stage("decode"):
            picture = decode(data, self._limits, self._image_size)
        return Scene(name, picture.width, picture.height, picture.pixels[np.newaxis])

    def encode(self, scene: Scene, run: Run) -> NDArray[np.float32]:
        """`image_encoder`'s output."""
        if scene.embedding is None:
            assert scene.pixels is not None
            scene.embedding = run("image_encoder", pixels=scene.pixels)["embedding"]
            scene.pixels = None
            self._encoded.put(scene.id, scene, scene.embedding.nbytes)
        return scene.embedding

    def see(self, scene: Scene, graph: str, run: Run) -> Seen:
        """The scene with the outputs of `graph`: `concept_features` or `interactive_features`."""
        key = (graph, scene.id)
        features = self._features.get(key)
        if features is None:
            features = run(graph, embedding=self.encode(scene, run))
            self._features.put(key, features, sum(each.nbytes for each in features.values()))
        return Seen(scene, features)
