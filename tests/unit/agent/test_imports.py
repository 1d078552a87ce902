"""What is imported where: an idle agent holds little in memory, and one file knows the private parts of python-tuf."""

import json
import re
import subprocess
import sys
from pathlib import Path

import whimbrel


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


def test_private_parts_of_python_tuf_are_named_in_one_file_only() -> None:
    private = re.compile(r"tuf\.[\w.]*\b_\w|\b_trusted_set\b|\b_load_from_metadata\b|\b_persist_root\b")
    sources = Path(whimbrel.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if private.search(path.read_text())] == ["tuf_internals.py"]
