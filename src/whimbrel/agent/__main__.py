"""`python -m whimbrel.agent FOLDER`: the agent as a service."""

import sys

from whimbrel.agent.daemon import main

sys.exit(main(sys.argv[1:]))
