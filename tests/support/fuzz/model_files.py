"""Model files, as far as they are read inside our own process: recognised, and checked by hand."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from whimbrel.agent.probes.structure import coreml, executorch, gguf, onnx, safetensors, tflite
from whimbrel.errors import UntrustedInput
from whimbrel.model import formats
from whimbrel.model.gguf import read_header
from whimbrel.model.mistaken_files import is_pointer, mistaken_for_a_model

_CORPUS = Path(__file__).parents[2] / "attack" / "delta" / "corpus"
_CHECKS = (coreml.check, executorch.check, gguf.check, onnx.check, safetensors.check, tflite.check)
_PARTS = (gguf.parts, onnx.parts, safetensors.parts)


def read(content: bytes) -> None:
    def piece(offset: int, size: int) -> bytes:
        return content[offset : offset + size]

    mistaken_for_a_model(content[:1024])
    is_pointer(content[:1024])
    with suppress(UntrustedInput):
        formats.recognise_file(content[:4096], len(content), piece)
    with suppress(UntrustedInput, ValueError):
        read_header(piece, len(content))
    with tempfile.TemporaryDirectory(prefix="whimbrel-fuzz-") as folder:
        path = Path(folder) / "model.bin"
        path.write_bytes(content)
        for check in _CHECKS:
            with suppress(UntrustedInput, ValueError):
                check(path)
        for parts in _PARTS:
            with suppress(UntrustedInput, ValueError):
                parts(path)


def seeds() -> Iterator[bytes]:
    for path in sorted(_CORPUS.iterdir()):
        yield path.read_bytes()[:65536]
