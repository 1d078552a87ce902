"""What applying a patch freed is the system's again: numpy stays in the agent's process, its work need not."""

import subprocess
import sys

# Blocks of a kilobyte, of which every hundredth stays: no page at the end of the heap is free.
_PROGRAM = """
from whimbrel.patchfile import _give_back_freed_memory

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

held = [bytes(1000) for _ in range(50_000)]
kept, held = held[::100], None
before = resident_mb()
_give_back_freed_memory()
print(before - resident_mb(), len(kept))
"""


def test_freed_memory_between_blocks_in_use_is_given_back() -> None:
    said = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True).stdout
    returned_mb, kept = map(float, said.split())
    assert (returned_mb > 25, kept) == (True, 500)
