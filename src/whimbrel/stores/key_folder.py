"""Which keys does a folder hold? `keys/offline` of a person, `keys/online` of a server: PEM files and references.

A key is found by its id, whatever its file is called. To list a folder asks nobody for a secret: the public half of a
key that is encrypted or lies elsewhere stands in its reference.
"""

from collections.abc import Collection
from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.errors import NotFound, UntrustedInput
from whimbrel.stores.signer import (
    Key,
    Secrets,
    Signer,
    load_signer,
    read_reference,
    reference_of,
    secret_of_environment,
)


class HeldKey(msgspec.Struct, frozen=True):
    """A key of a folder. `place`: the URI of a reference, or the file's name."""

    name: str
    place: str
    public: Key


class KeyFolder:
    """The keys in one folder, as they lie there now. `secrets` gives passphrases and PINs."""

    def __init__(self, path: Path, *, secrets: Secrets = secret_of_environment) -> None:
        self.path = path
        self._secrets = secrets

    def held(self) -> dict[str, HeldKey]:
        """The keys by their ids; of a name with both a file and a reference, the reference. No folder: no keys.

        Raises `UntrustedInput` for a file that is no key, and for more files than a folder of keys has.
        """
        names = sorted(
            {path.stem for path in self.path.glob("*.pem")}
            | {path.name.removesuffix(".key.json") for path in self.path.glob("*.key.json")}
        )
        if len(names) > limits.KEYS_OF_A_FOLDER:
            raise UntrustedInput(
                f"{self.path} holds {len(names)} keys; at most {limits.KEYS_OF_A_FOLDER} are read. Move old ones away"
            )
        held = {}
        for name in names:
            file = self.path / f"{name}.pem"
            reference = reference_of(file)
            if reference.exists():
                entry = read_reference(reference)
                key = HeldKey(name, entry.uri, entry.public.key())
            else:
                key = HeldKey(name, file.name, load_signer(file, secrets=self._secrets).public_key)
            held[key.public.keyid] = key
        return held

    def named(self, name: str) -> HeldKey:
        """A key by its file's name. Raises `NotFound`."""
        for key in self.held().values():
            if key.name == name:
                return key
        raise NotFound(f"{self.path} holds no key {name!r}; make one with: whimbrel keys init {name}")

    def signer(self, key: HeldKey) -> Signer:
        """Open a key of this folder. Raises as `load_signer`."""
        return load_signer(self.path / f"{key.name}.pem", secrets=self._secrets)

    def signers(self, keyids: Collection[str]) -> list[Signer]:
        """The keys of this folder that are among `keyids`, opened."""
        return [self.signer(key) for keyid, key in self.held().items() if keyid in keyids]
