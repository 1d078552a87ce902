"""What was given for a model, where it is none? The files that people take for one, by their first bytes.

A checkout without its large files has small texts in their place; a download without a login is a web page; a training
framework's checkpoint is an archive of pickles. Called where publishing reads models and golden values.
"""

import re
from collections.abc import Callable

HEAD_BYTES = 1024  # a pointer has some 130 bytes

_LFS = b"version https://git-lfs.github.com/spec/"  # https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_LFS_SIZE = re.compile(rb"^size (\d{1,20})$", re.MULTILINE)
_ANNEX = re.compile(rb"^(\.\./)*/?(\.git/)?annex/objects/")  # https://git-annex.branchable.com/internals/pointer_file
_PAGE = re.compile(rb"^\s*(<!doctype html|<html)", re.IGNORECASE)
_ZIP = b"PK\x03\x04"


def _lfs_pointer(head: bytes) -> str:
    size = _LFS_SIZE.search(head)
    stands_for = f", which stands for {int(size[1])} bytes" if size else ""
    return f"is a Git LFS pointer{stands_for}; run: git lfs pull"


_MISTAKEN: tuple[tuple[Callable[[bytes], object], Callable[[bytes], str]], ...] = (
    (lambda head: head.startswith(_LFS), _lfs_pointer),
    (_ANNEX.match, lambda _: "is a git-annex pointer; run: git annex get"),
    (_PAGE.match, lambda _: "is a web page; was it downloaded without a login? Download the file itself"),
    (
        lambda head: head.startswith(_ZIP),
        lambda _: "is a ZIP archive; unpack it, or export a model if it is a checkpoint of PyTorch or Keras",
    ),
)


def mistaken_for_a_model(head: bytes) -> str:
    """The rest of a sentence that begins with the file's name, and what to do; "" where it is none of these."""
    return next((words(head) for is_it, words in _MISTAKEN if is_it(head)), "")


def is_pointer(head: bytes) -> bool:
    """Whether it stands for a file that was not fetched."""
    return head.startswith(_LFS) or _ANNEX.match(head) is not None
