"""An app beside an agent, as a process of its own: `python -m whimbrel.demo.app_process FOLDER MODEL SECONDS`.

It uses the model that the folder's agent keeps, one session every SECONDS, until it is stopped. It never touches the
network: the agent's process does.
"""

import random
import sys
import time
from contextlib import suppress
from pathlib import Path

from whimbrel.agent.app import Agent
from whimbrel.demo.digits import device_inputs
from whimbrel.demo.fleet import Classifier
from whimbrel.errors import Unavailable


def main() -> None:
    """Run sessions until killed."""
    folder, model, every_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    while not (folder / "agent.json").exists():
        time.sleep(0.1)
    agent = Agent.open(folder)
    app = Classifier(*device_inputs(), model=model)
    chance = random.Random(folder.name)  # noqa: S311 (a simulation, no secret)
    while True:
        with suppress(Unavailable):
            app.use(agent, chance)
        time.sleep(every_s)


if __name__ == "__main__":
    main()
