"""The server's table of formats: which module of this folder reads which format, one row for each.

Called by the child process (`__main__`).
"""

from collections.abc import Callable

from whimbrel.model.formats import Format, Without
from whimbrel.stores.inspection import Inspection
from whimbrel.stores.model_readers import coreml, gguf, onnx, safetensors, tflite

Reader = Callable[[str], Inspection]  # from the path of a file or folder; may raise whatever its library raises

READERS: dict[Format, Reader | Without] = {
    "onnx": onnx.read,
    "tflite": tflite.read,
    "gguf": gguf.read,
    "safetensors": safetensors.read,
    "executorch": Without("an ExecuTorch program is recognised only; no package reads its inputs and outputs here"),
    "coreml": coreml.read,
}
