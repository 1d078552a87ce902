"""An event loop for a world of one thread: it starts no thread, waits for nothing, and reads no clock of the machine.

Called by backend.py, whose server gives work to threads.
"""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class InlineLoop(asyncio.SelectorEventLoop):
    """An event loop without threads: the work of a thread is done at once. It waits for nothing."""

    def __init__(self) -> None:
        super().__init__(_NoFiles())

    def run_in_executor(  # type: ignore[override]
        self,
        executor: Any,  # noqa: ARG002 (its names)
        func: Callable[..., Any],
        *args: Any,
    ) -> asyncio.Future[Any]:
        """Do the work now. Returns its result as a future."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 (it is raised where the result is asked for)
            done.set_exception(error)
        return done


class _NoFiles(selectors.SelectSelector):
    def select(self, timeout: float | None = None) -> list[Any]:  # noqa: ARG002 (its names)
        return []
