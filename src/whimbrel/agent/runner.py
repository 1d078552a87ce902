"""A thin runner for apps that do not handle versions themselves: it runs the model, counts, and feeds the shadow.

    with agent.session("detector") as model:
        runner = model.runner()
        answer = runner.run({"x": image})

1. The active version runs here, in the app's process, on its format's runtime: ONNX on onnxruntime, TFLite on LiteRT.
2. Every call is counted in the session: its time, and whether it raised. What it raised reaches the app.
3. A version that its runtime cannot load is left at once: the next session opens the one before.
4. Where the policy tries another version in the shadow, a sample of the calls goes there by itself.
"""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from whimbrel.agent.probes.formats import runnable_endings, runtime_of
from whimbrel.errors import Unavailable
from whimbrel.model.formats import runnable_format


class Listener(Protocol):
    """What hears of each call: the session."""

    def record(self, *, latency_ms: float | None = None, ok: bool = True) -> None:
        """Count one inference."""

    def loading(self) -> AbstractContextManager[None]:
        """Around the load of the version: where it fails, the next session opens the one before."""

    def shadow(self, inputs: Mapping[str, Any], output: Any = None) -> bool:
        """Perhaps let a version in the shadow have this call too."""


class Runner:
    """One loaded version, for one session. Made by `Session.runner`; not for several threads at once."""

    def __init__(self, session: Listener, path: Path, *, name: str = "") -> None:
        """`name`: of the file, where `path` is one in memory."""
        name = name or path.name
        kind = runnable_format(name)
        runtime = runtime_of(kind) if kind else None
        if runtime is None:
            raise Unavailable(
                f"{name} cannot be run here: "
                + (f"no runtime for {kind} is installed" if kind else f"a runner knows {runnable_endings()} files")
                + "; load session.path with a runtime of your own, and call record() and shadow()"
            )
        self._session = session
        with session.loading():
            self._model = runtime(path)

    @property
    def inputs(self) -> list[str]:
        """Names of what it takes."""
        return [spec.name for spec in self._model.inputs]

    @property
    def outputs(self) -> list[str]:
        """Names of what it gives."""
        return [spec.name for spec in self._model.outputs]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One inference, outputs by name. Raises what the runtime raises."""
        begin = time.perf_counter()
        try:
            outputs = self._model.run(dict(inputs))
        except Exception:
            self._session.record(ok=False)
            raise
        self._session.record(latency_ms=(time.perf_counter() - begin) * 1000)
        self._session.shadow(inputs, outputs)
        return outputs
