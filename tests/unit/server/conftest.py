"""The server in memory, for every test of this folder that asks for one."""

from collections.abc import Iterator

import pytest

from support.server_in_memory import ServerInMemory, server_in_memory


@pytest.fixture
def server() -> Iterator[ServerInMemory]:
    """A server with the model `wake` and two versions of it, on a copy of its own of everything."""
    with server_in_memory() as opened:
        yield opened
