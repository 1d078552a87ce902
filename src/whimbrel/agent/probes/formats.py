"""The agent's table of formats: what a device does with a model of each, one row for each.

1. `structure` reads the file by hand; `structure_by_library` asks the format's own reader, where that is installed.
   Both read all files of a model that has several.
2. `parts` says which files make the model that a file is one of, the entry first: names relative to the file's folder.
3. `runtime` imports the format's runtime and gives what loads a model with it; a format that runs in the app only says
   why. A runtime is used where its Python module (in the registry's row) is installed.

Called by probes (`checks.py`), by the runner of apps, by the shadow and by publishing.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from whimbrel.agent.probes.structure import coreml, executorch, gguf, onnx, safetensors, tflite
from whimbrel.model import formats
from whimbrel.model.formats import Format, Without

if TYPE_CHECKING:
    from whimbrel.agent.probes.golden import Model

Check = Callable[[Path], None]
Load = Callable[[Path], "Model"]
Parts = Callable[[Path], tuple[str, ...]]


def _one_file(path: Path) -> tuple[str, ...]:
    return (path.name,)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatProbe:
    """What the agent knows of one format."""

    structure: Check
    structure_by_library: Check | None = None
    parts: Parts = _one_file  # may raise `ValueError`, for a file that is not whole or lacks others
    runtime: Callable[[], Load] | Without
    structure_first: bool = False  # its runtime aborts on files that it does not expect
    counts_classes: bool = False  # what it predicts for validation samples can be a release's reference


def _onnxruntime() -> Load:
    from whimbrel.agent.probes.runtimes.onnxruntime import OnnxModel

    return OnnxModel


def _litert() -> Load:
    from whimbrel.agent.probes.runtimes.litert import LiteRtModel

    return LiteRtModel


def _llama_cpp() -> Load:
    from whimbrel.agent.probes.runtimes.llama_cpp import LlamaModel

    return LlamaModel


PROBES: dict[Format, FormatProbe] = {
    "onnx": FormatProbe(structure=onnx.check, parts=onnx.parts, runtime=_onnxruntime, counts_classes=True),
    "tflite": FormatProbe(structure=tflite.check, runtime=_litert, counts_classes=True),
    "gguf": FormatProbe(
        structure=gguf.check,  # the gguf package takes minutes for a large vocabulary, and refuses newer types
        parts=gguf.parts,
        runtime=_llama_cpp,
        structure_first=True,
    ),
    "safetensors": FormatProbe(
        structure=safetensors.check,
        structure_by_library=safetensors.check_with_library,
        parts=safetensors.parts,
        runtime=Without("it holds weights only, and the network that uses them is the app's own code"),
    ),
    "executorch": FormatProbe(
        structure=executorch.check,
        runtime=Without("its runtime is built into the app, with the backends that the program was made for"),
    ),
    "coreml": FormatProbe(
        structure=coreml.check,
        runtime=Without("Core ML is part of Apple's systems, and has no runtime for Python on a device"),
    ),
}


def has_runtime(kind: Format) -> bool:
    """Whether the runtime of this format is installed. It is not imported."""
    without = isinstance(PROBES[kind].runtime, Without)
    return not without and importlib.util.find_spec(formats.BY_NAME[kind].runtime) is not None


def runtime_of(kind: Format) -> Load | None:
    """What loads a model of this format; None where its runtime is not installed, or there is none."""
    importing = PROBES[kind].runtime
    return None if isinstance(importing, Without) or not has_runtime(kind) else importing()


def runnable_endings() -> str:
    """The usual endings of files that have a runtime, for a sentence."""
    runnable = [kind for kind, probe in PROBES.items() if not isinstance(probe.runtime, Without)]
    *others, last = [formats.BY_NAME[kind].endings[0] for kind in runnable]
    return f"{', '.join(others)} and {last}"
