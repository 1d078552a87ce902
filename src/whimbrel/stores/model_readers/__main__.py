"""The child process of `inspection`: read one model file and write what was found to standard output.

`whimbrel.stores.model_readers FORMAT MEMORY_BYTES PATH`, started by `cage/child.py`, writes one JSON `Reading`. Its
walls are closed before a library is imported; whatever a library prints goes to standard error.
"""

import os
import sys
from pathlib import Path

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import encode
from whimbrel.model.formats import FORMATS, Format, Without
from whimbrel.stores.inspection import Inspection, Reading
from whimbrel.stores.model_readers.formats import READERS


def main() -> int:
    """Read one model and answer. The exit status is 0 whatever the model is."""
    kind = next(row.name for row in FORMATS if row.name == sys.argv[1])
    memory, path = int(sys.argv[2]), sys.argv[3]
    _cage(memory, path)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        reading = Reading(inspection=_read(kind, path))
    except UntrustedInput as error:
        reading = Reading(refused=_printable(error))
    except MemoryError:
        reading = Reading(refused=f"reading it takes more than {memory // limits.MIB} MiB of memory")
    except Exception as error:  # noqa: BLE001  a library's objection may be of any kind: it is about this file
        words = _printable(error)[:300] or "without a reason"
        reading = Reading(refused=f"its library refuses it ({type(error).__name__}: {words})")
    with out:
        out.write(_answer(reading))
    return 0


def _printable(error: Exception) -> str:
    """What an error says, which may quote the file."""
    words = " ".join(str(error).split())[:600]
    return "".join(each if each.isprintable() else "?" for each in words)


def _read(kind: Format, path: str) -> Inspection:
    reader = READERS[kind]
    return Inspection(format=kind, note=reader.because) if isinstance(reader, Without) else reader(path)


def _answer(reading: Reading) -> bytes:
    """The JSON that the parent reads, never more than a document may have."""
    content = encode(reading)
    if len(content) <= limits.DOCUMENT_BYTES:
        return content
    return encode(Reading(refused=f"what it says of itself takes more than {limits.DOCUMENT_BYTES} bytes"))


def _cage(memory: int, path: str) -> None:
    """Limit this process for good, as far as the system lets it."""
    try:
        from whimbrel.cage import walls
    except ImportError:  # not on Windows: the time limit of the parent remains
        return
    walls.enter(
        walls.Bounds(
            memory_bytes=memory,
            cpu_s=limits.INSPECTION_CPU_S,
            readable=(Path(path),),
            kept=(1, 2),
            file_bytes=2 * limits.DOCUMENT_BYTES,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
