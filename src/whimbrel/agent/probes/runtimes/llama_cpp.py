"""GGUF through llama.cpp (llama-cpp-python): one thread, CPU, a short context."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from whimbrel.model.release import TensorSpec

_llama_cpp: Any = importlib.import_module("llama_cpp")  # in no lock: it has no wheels
_CONTEXT = 512  # tokens: golden inputs are short


class LlamaModel:
    """A `golden.Model`: `tokens` in (int32 [1, n]), `logits` of the last one out (float32 [1, vocabulary])."""

    def __init__(self, path: Path) -> None:
        self._llama = _llama_cpp.Llama(
            model_path=str(path),
            n_ctx=_CONTEXT,
            n_threads=1,
            n_threads_batch=1,
            n_gpu_layers=0,
            logits_all=True,
            verbose=False,
        )
        self.inputs = [TensorSpec(name="tokens", dtype="int32", shape=(1, "tokens"))]
        self.outputs = [TensorSpec(name="logits", dtype="float32", shape=(1, int(self._llama.n_vocab())))]

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name."""
        self._llama.reset()
        self._llama.eval([int(token) for token in np.asarray(inputs["tokens"]).ravel()])
        last = np.asarray(self._llama.scores[self._llama.n_tokens - 1], dtype=np.float32)
        return {"logits": last.reshape(1, -1)}
