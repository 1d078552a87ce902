"""Which check fits a model's format? Runs in the caged child.

1. Golden inputs ask for a runtime: where there is none, the probe fails. A version is never called good unseen.
2. Without golden inputs a format without a runtime is read: magic, header, bounds.
"""

import importlib.util
from pathlib import Path

from whimbrel.agent.probes import structure
from whimbrel.device.ports import ProbeRequest, ProbeResult


def check(request: ProbeRequest) -> ProbeResult:
    """Try the model. Raises whatever a loader raises: the caller calls that a failed probe."""
    path = Path(request.path)
    if request.format == "onnx" and importlib.util.find_spec("onnxruntime"):
        from whimbrel.agent.probes import golden
        from whimbrel.agent.probes.onnx import OnnxModel

        return golden.judge(OnnxModel(path), request)
    if request.format == "tflite" and importlib.util.find_spec("ai_edge_litert"):
        from whimbrel.agent.probes import golden
        from whimbrel.agent.probes.litert import LiteRtModel

        return golden.judge(LiteRtModel(path), request)
    if request.probe is not None and request.probe.inputs:
        return ProbeResult(
            passed=False,
            reason=f"the release has golden inputs, and no runtime for {request.format} is installed to run them",
        )
    structure.check(path, request.format)
    return ProbeResult(passed=True, how="structure")
