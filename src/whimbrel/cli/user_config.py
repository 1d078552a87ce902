"""The user's own file of settings: named contexts, each a folder or a server, and the one that is current.

1. It is `config.json` in the user's folder for settings (XDG_CONFIG_HOME, ~/Library/Application Support, APPDATA), or
   the file that WHIMBREL_CONFIG names.
2. A token is in none of them: a context has the path of its file. A token that was handed in is kept beside the
   settings, readable by its owner alone.
"""

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from msgspec import Meta

from whimbrel import limits
from whimbrel.durable import make_folders, write_durably
from whimbrel.errors import NotFound, UntrustedInput, reason_of
from whimbrel.model.documents import Document, convert, encode, parse
from whimbrel.model.ids import Name
from whimbrel.model.patterns import matching

_PathText = Annotated[str, Meta(min_length=1, max_length=4096)]


class Context(Document, frozen=True):
    """Where a repository is: a folder or a server, and what goes with it. Paths are absolute."""

    repository: _PathText | None = None
    server: (
        Annotated[
            str,
            matching(r"^https?://[^\s/]+(/\S*)?$", "a URL such as https://models.example.com:8471", max_length=2048),
        ]
        | None
    ) = None
    token_file: _PathText | None = None
    namespace: Name | None = None
    keys: _PathText | None = None

    def __post_init__(self) -> None:
        if (self.repository is None) == (self.server is None):
            raise ValueError("a context is either a folder (--repository DIR) or a server (--server URL)")


class UserConfig(Document, frozen=True):
    """The contexts by name, and the current one."""

    current: Name | None = None
    contexts: Annotated[dict[Name, Context], Meta(max_length=limits.CONTEXTS)] = {}

    def context(self, name: str) -> Context:
        """The context of that name. Raises `NotFound`."""
        if name not in self.contexts:
            known = ", ".join(sorted(self.contexts)) or "none"
            raise NotFound(f"there is no context {name!r} (contexts: {known}); see: whimbrel context add --help")
        return self.contexts[name]


def config_path() -> Path:
    """Where the user's settings are."""
    named = os.environ.get("WHIMBREL_CONFIG")
    return Path(named) if named else Path(typer.get_app_dir("whimbrel")) / "config.json"


def token_path(context: str) -> Path:
    """Where the token of a context is kept that was handed in, and is no file of the user's."""
    return config_path().parent / "tokens" / f"{context}.token"


def read_config() -> UserConfig:
    """The user's settings; none where there is no file. Raises `UntrustedInput`."""
    path = config_path()
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return UserConfig()
    except OSError as error:
        raise UntrustedInput(f"your settings {path} cannot be read: {reason_of(error)}") from error
    return parse(UserConfig, content, what=f"your settings {path}")


def write_config(config: UserConfig) -> None:
    """Keep the user's settings; only their owner may read them."""
    checked = convert(UserConfig, msgspec.to_builtins(config), what="your settings")
    path = config_path()
    make_folders(path.parent)
    write_durably(path, msgspec.json.format(encode(checked), indent=2) + b"\n", mode=0o600)


def keep_token(context: str, token: str) -> Path:
    """Keep a token so that only its owner may read it; where it is."""
    path = token_path(context)
    make_folders(path.parent)
    write_durably(path, f"{token}\n".encode("ascii"), mode=0o600)
    return path
