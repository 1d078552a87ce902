"""An app on a board: it keeps its model up to date, and uses it ten times a second until a file says stop.

Run as `python desk_app.py FOLDER SERVER ROOT DEVICE TOKEN STOP`.
"""

import sys
import threading
import time
from pathlib import Path

from whimbrel import Agent
from whimbrel.agent.options import AgentOptions
from whimbrel.errors import WhimbrelError


def run(folder: str, server: str, root: str, device: str, token: str, stop: Path) -> None:
    agent = Agent.open(
        folder, AgentOptions(server=server, root=root, models=["detector"], device_id=device, enrol_token=token)
    )
    upkeep = threading.Thread(target=agent.run)
    upkeep.start()
    while not stop.exists():
        try:
            with agent.session("detector") as model:
                model.record(latency_ms=3.0, ok=True, accuracy=1.0)
        except WhimbrelError:
            pass  # it has no model yet
        time.sleep(0.1)
    agent.stop()
    upkeep.join()
    agent.close()


if __name__ == "__main__":
    run(*sys.argv[1:6], Path(sys.argv[6]))
