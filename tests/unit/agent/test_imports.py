"""An idle agent holds little in memory: what only some devices need is imported where it is needed."""

import json
import subprocess
import sys


def test_an_agent_that_is_opened_holds_neither_codecs_nor_archives_nor_runtimes() -> None:
    program = "import sys, json, whimbrel.agent.app; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout
    heavy = {
        "numpy",
        "pcodec",
        "zstandard",
        "whimbrel.patchfile",
        "whimbrel.packing",
        "whimbrel.agent.runner",
        "tarfile",
    }
    assert heavy.isdisjoint(json.loads(out))
