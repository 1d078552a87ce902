"""Passphrases of keys and PINs of tokens: from the environment, else asked for on the terminal."""

import functools
import getpass
import os
import sys

from whimbrel.errors import NotAllowed
from whimbrel.stores.signer import PASSPHRASE, PIN

_WORDS = {PASSPHRASE: "passphrase of the key", PIN: "PIN of the token"}


@functools.cache  # one command opens several keys, and a person is asked once
def ask_secret(name: str) -> str:
    """The secret `name`. Raises `NotAllowed` where the environment has none and nobody can be asked."""
    value = os.environ.get(name, "")
    if value:
        return value
    if not sys.stdin.isatty():
        raise NotAllowed(f"this needs the {_WORDS[name]}, and nobody can be asked here; set {name}")
    return getpass.getpass(f"{_WORDS[name].capitalize()}: ")


def new_passphrase() -> str:
    """A passphrase for a new key, asked for twice. Raises `NotAllowed` as above, and for two that differ."""
    value = os.environ.get(PASSPHRASE, "")
    if value:
        return value
    first = ask_secret(PASSPHRASE)
    if not first or getpass.getpass("Once more: ") != first:
        raise NotAllowed("no passphrase, or two that differ; nothing was made")
    return first
