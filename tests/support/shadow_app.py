"""A device as one process: an agent's cycles, and an app that uses the model through a runner. For end-to-end tests.

python shadow_app.py FOLDER SERVER ROOT DEVICE_ID ENROL_TOKEN STOP WRONG: until the file STOP is there. Of the app's
calls a share WRONG is such that a bad model shows what it is. Each session's serial, and how many of its answers were
right, go to FOLDER/sessions.txt, a line each.
"""

import sys
import time
from pathlib import Path

import numpy as np

from support import shadow_models
from whimbrel import Agent, AgentOptions, limits
from whimbrel.errors import Unavailable

_CALLS = 10  # a session
_REST_S = 0.1


def main(folder: Path, server: str, root: str, device: str, token: str, stop: Path, wrong: float) -> None:
    limits.SHADOW_FLUSH_S = 0.5  # an app that lives for seconds
    limits.SHADOW_WALL_S = 2.0
    limits.SHADOW_LOOK_S = 0.2
    agent = Agent.open(
        folder,
        AgentOptions(
            server=server, root=root, models=("wake",), device_id=device, enrol_token=token, durable_sessions=False
        ),
    )
    seed = 0
    with agent, (folder / "sessions.txt").open("a") as log:
        while not stop.exists():
            agent.cycle()
            seed += 1
            try:
                with agent.session("wake") as model:
                    runner = model.runner()
                    right = 0
                    for call in shadow_models.calls(_CALLS, wrong=wrong, seed=seed):
                        answer = runner.run(call)["y"]
                        right += bool(np.argmax(answer) == np.argmax(call["x"]))
                        time.sleep(0.01)
                    log.write(f"{model.serial} {right}\n")
                    log.flush()
            except Unavailable:
                pass
            time.sleep(_REST_S)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]), *sys.argv[2:6], Path(sys.argv[6]), float(sys.argv[7]))
