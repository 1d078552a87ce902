"""Which relative paths can every device hold, each as a file of its own?

1. Paths are POSIX paths below a folder. Nothing leads out of it: no absolute path, no `.` or `..`, no empty part.
2. Every part can be held by ext4, APFS, NTFS and FAT: no character that one of them forbids, no reserved word of
   Windows, no dot or space at its end.
3. Two paths that some system takes for one (by case, or by how a letter is written) clash, and so do a file and a
   folder of the same path.

Called by the release document (names of a variant's files), by packing, and by publishing.
"""

import unicodedata
from collections.abc import Iterable

PATH_CHARS = 1024  # PATH_MAX is 4096 bytes on Linux and 1024 on macOS; the slot's own path comes before it
_SEGMENT_BYTES = 255  # ext4, APFS and NTFS
DEPTH = 32
_RESERVED = frozenset({"con", "prn", "aux", "nul"} | {f"{word}{n}" for word in ("com", "lpt") for n in range(1, 10)})
_FORBIDDEN = frozenset('<>:"|?*\\') | {chr(code) for code in range(32)} | {chr(127)}


def path_objection(path: str) -> str | None:
    """What some system has against `path`, as the end of a sentence; None where every system can hold it."""
    if not path or path.startswith("/"):
        return "is an absolute path; expected one below the folder"
    if len(path) > PATH_CHARS:
        return f"is longer than {PATH_CHARS} characters"
    parts = path.split("/")
    if len(parts) > DEPTH:
        return f"is more than {DEPTH} folders deep"
    return next((objection for part in parts if (objection := _part_objection(part)) is not None), None)


def _part_objection(part: str) -> str | None:
    if part in {"", ".", ".."}:
        return "has an empty, '.' or '..' part; expected a path below the folder"
    if _FORBIDDEN & set(part):
        return "has a character that some systems cannot hold"
    if part[-1] in ". " or part[0] == " ":
        return "has a part that begins or ends with a space, or ends with a dot"
    if part.split(".", 1)[0].casefold() in _RESERVED:
        return "is a reserved word on some systems"
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    return f"has a part longer than {_SEGMENT_BYTES} bytes" if size > _SEGMENT_BYTES else None


def clash(paths: Iterable[str]) -> str | None:
    """A sentence on the first two of `paths` that cannot lie beside each other on every system; None without any.

    A path may name a folder whose files are listed, too.
    """
    first_paths: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):  # a list may name a folder only by its files
            above = "/".join(parts[:depth])
            key = _folded(above)
            first = first_paths.setdefault(key, above)
            if first != above:
                return f"{shown(first)} and {shown(above)} are one name on some systems"
            if depth == len(parts) and key + "/" in first_paths:
                return f"{shown(path)} is there twice"
        first_paths[_folded(path) + "/"] = path
    return None


def file_and_folder(files: Iterable[str], *, beside: Iterable[str] = ()) -> str | None:
    """The first path that is a file (one of `files`) and a folder above another of them or of `beside`; else None."""
    names = set(files)
    for path in sorted(names | set(beside)):
        for cut in (place for place, char in enumerate(path) if char == "/"):
            if path[:cut] in names:
                return path[:cut]
    return None


def shown(path: str) -> str:
    """A path from somebody else, for a sentence: in ASCII, quoted, cut."""
    return ascii(path if len(path) <= 80 else f"{path[:77]}...")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
