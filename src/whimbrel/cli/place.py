"""Which repository is a command about? The first that names one: an option, the environment, the current context.

1. Nothing is mixed: where an option names the server, neither WHIMBREL_REPOSITORY nor the context's token is used.
2. `--token-file`, `--namespace` and `--keys` go with each of them, before a context's own.
"""

import os
from pathlib import Path
from typing import NamedTuple

from whimbrel.cli.user_config import Context, read_config
from whimbrel.errors import UntrustedInput


class Place(NamedTuple):
    """A folder or a server: exactly one of `repository` and `server` is set."""

    repository: Path | None = None
    server: str | None = None
    token_file: Path | None = None
    namespace: str | None = None
    keys: Path | None = None


def find_place(
    *,
    repository: Path | None,
    server: str | None,
    context: str | None,
    token_file: Path | None,
    namespace: str | None,
    keys: Path | None,
) -> Place:
    """Where a command works. Raises `UntrustedInput` for none or several, `NotFound` for an unknown context."""
    given = {"--repository": repository, "--server": server, "--context": context}
    several = [name for name, value in given.items() if value is not None]
    if len(several) > 1:
        raise UntrustedInput(f"{' and '.join(several)} each name a repository; keep one of them")
    own = Place(repository, server, token_file, namespace, keys)
    if repository is not None or server is not None:
        return own
    if context is None:
        folder, url = os.environ.get("WHIMBREL_REPOSITORY"), os.environ.get("WHIMBREL_SERVER")
        if folder and url:
            raise UntrustedInput(
                f"WHIMBREL_REPOSITORY={folder} and WHIMBREL_SERVER={url} both name a repository; unset one, or give "
                "--repository or --server"
            )
        if folder or url:
            return own._replace(repository=Path(folder) if folder else None, server=url or None)
    config = read_config()
    name = context or config.current
    if name is None:
        raise UntrustedInput(
            "name either a folder (--repository DIR, or WHIMBREL_REPOSITORY), a server (--server URL with a token, or "
            "WHIMBREL_SERVER), or a context (whimbrel context add)"
        )
    return _of_context(config.context(name), own)


def _of_context(context: Context, own: Place) -> Place:
    return Place(
        repository=Path(context.repository) if context.repository is not None else None,
        server=context.server,
        token_file=own.token_file or (Path(context.token_file) if context.token_file is not None else None),
        namespace=own.namespace or context.namespace,
        keys=own.keys or (Path(context.keys) if context.keys is not None else None),
    )
