"""How a process that will be caged is started: with our modules, and with nothing that it could tell or misuse.

1. `python -I`: no module comes from the current folder, from the user's own, or from what the environment says.
2. It imports from where this process imports, given as arguments: but not from the current folder or the program's.
3. Of the environment it gets the few names below: tokens and passwords of the parent are not among them.
4. Its current folder is the root of the file system.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
ROOT = os.path.abspath(os.sep)  # where it starts: no relative name leads to a file of the parent's

# What a runtime needs to find its libraries and its processor, and Windows to start a process at all.
_NAMES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH", "TZ", "LANG", "LC_ALL", "SYSTEMROOT", "TEMP", "TMP")
_OURS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # no thread before the walls are closed

_START = (
    "import sys, runpy; places, module, sys.argv[:] = sys.argv[1].split('\\n'), sys.argv[2], sys.argv[2:]; "
    "sys.path[:0] = [each for each in places if each not in sys.path]; runpy.run_module(module, {}, '__main__', True)"
)


def command(module: str, *arguments: str) -> list[str]:
    """The words that start `module` as a program."""
    return [sys.executable, "-I", "-W", "ignore", "-c", _START, "\n".join(_module_places()), module, *arguments]


def environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What it may know of `given`."""
    return {name: given[name] for name in _NAMES if name in given} | _OURS


def _module_places() -> Sequence[str]:
    """Where modules are looked for, in order: the environment's places, this process's, and where Whimbrel lies."""
    ours = str(_PACKAGE.parent)
    asked = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(each)]
    program = {os.getcwd(), os.path.dirname(os.path.abspath(sys.argv[0])) if sys.argv and sys.argv[0] else ""}
    known = [each for each in sys.path if os.path.isabs(each) and each not in program]
    return list(dict.fromkeys(each for each in [*asked, *known, ours] if "\n" not in each))
