"""A server with a story, for pages to show: told once, and looked at by many tests, which change nothing of it."""

from collections.abc import Iterator

import pytest

from support.console import Browser, signed_in
from support.console_story import Story, tell
from support.server_in_memory import ServerInMemory, server_in_memory
from support.values import T0


@pytest.fixture
def server() -> Iterator[ServerInMemory]:
    """A server with two versions of `wake`, on a copy of its own of everything."""
    with server_in_memory() as opened:
        yield opened


@pytest.fixture
def browser(server: ServerInMemory) -> Browser:
    """The first admin's."""
    return signed_in(server)


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[ServerInMemory, Story]]:
    """The story of a small fleet."""
    with server_in_memory(versions=1) as opened:
        opened.clock.now = T0 + 30 * 86400
        yield opened, tell(opened, devices=120, hours=2)


@pytest.fixture(scope="module")
def reader(told: tuple[ServerInMemory, Story]) -> Browser:
    """A browser of the first admin, who reads it."""
    return signed_in(told[0])
