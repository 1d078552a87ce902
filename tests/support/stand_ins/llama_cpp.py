"""In the place of llama-cpp-python, which has no wheel that a lock could name: what we use of `Llama`, by its names.

Its logits say which token came last. A file with the word "turn" in it says so the other way round; a token below 0
ends the process, as GGML_ASSERT does.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_VOCABULARY = 3


class Llama:
    def __init__(
        self,
        model_path: str,
        *,
        n_ctx: int,
        n_threads: int,
        n_threads_batch: int,
        n_gpu_layers: int,
        logits_all: bool,
        verbose: bool,
    ) -> None:
        if n_threads != 1 or n_threads_batch != 1:
            raise ValueError("two threads of a probe wait for each other longer than they compute")
        self._sign = -1.0 if b"turn" in Path(model_path).read_bytes() else 1.0
        self.n_tokens = 0
        self.scores: Any = np.zeros((n_ctx, _VOCABULARY), np.float32)

    def n_vocab(self) -> int:
        return _VOCABULARY

    def reset(self) -> None:
        self.n_tokens = 0

    def eval(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if token < 0:
                os.abort()
            self.scores[self.n_tokens] = 0
            self.scores[self.n_tokens, token] = self._sign
            self.n_tokens += 1
