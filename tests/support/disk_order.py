"""In which order a process makes its files durable and renames them."""

import os
from pathlib import Path

import pytest

from whimbrel import durable


def disk_order(monkeypatch: pytest.MonkeyPatch, top: Path) -> list[str]:
    """A list that fills with `sync NAME` and `rename TO`: what is durable, and what a reader sees, in their order.

    Names are relative to `top`; what lies in a hidden temporary file or folder is called `*`.
    """
    order: list[str] = []
    sync = durable.os.fsync

    def named(path: str) -> str:
        parts = Path(path).relative_to(top).parts
        return "/".join("*" if part.startswith(".") else part for part in parts) or "."

    def fsync(handle: int) -> None:
        order.append(f"sync {named(os.readlink(f'/proc/self/fd/{handle}'))}")
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("replace", "rename"):
        move = getattr(os, name)

        def moved(source: str | Path, target: str | Path, move=move) -> None:
            order.append(f"rename {named(str(target))}")
            move(source, target)

        monkeypatch.setattr(os, name, moved)
    return order
