"""An app that opens a model and prints its serial; with a word more it dies, fails to load, or goes back.

Run as `python crashing_app.py FOLDER use|die|unloadable|back [times]`.
"""

import os
import signal
import sys
from contextlib import suppress

from whimbrel import Agent


def run(folder: str, what: str, times: int) -> None:
    with Agent.open(folder) as agent:
        if what == "back":
            print(agent.go_back("detector", "it answers nonsense"))
            return
        for _ in range(times):
            with suppress(RuntimeError), agent.session("detector") as model:
                print(model.serial, flush=True)
                if what == "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                if what == "unloadable":
                    with model.loading():
                        raise RuntimeError("this opset is not known")
                model.record(latency_ms=3.0, ok=what != "fail", accuracy=1.0)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)
