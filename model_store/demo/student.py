"""The embedded student's text encoder: phrases to tokens."""

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from model_store import registry, tokenizer
from model_store.demo.vocabulary import Vocabulary
from model_store.networks.sizes import Sizes, sizes_of


def sizes() -> Sizes:
    """The student's numbers."""
    return sizes_of(registry.find(registry.EMBEDDED))


class Words:
    """Phrases to tokens as the service does it: the artefact's tokenizer, and its start, end and padding."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Raises ValueError when the vocabulary's words have more tokens than the text encoder has ids."""
        self.tokenizer: Tokenizer = tokenizer.build(vocabulary.words)
        text = sizes().text
        if self.tokenizer.get_vocab_size() > text.vocabulary:
            raise ValueError(f"{self.tokenizer.get_vocab_size()} tokens, and ids for {text.vocabulary}")
        self._context, self._start = text.context, text.vocabulary - 2

    def __call__(self, phrase: str) -> NDArray[np.int32]:
        """(T,) int32."""
        inner = self.tokenizer.encode(phrase.lower(), add_special_tokens=False).ids[: self._context - 2]
        tokens = np.zeros(self._context, np.int32)
        tokens[: len(inner) + 2] = (self._start, *inner, self._start + 1)
        return tokens
