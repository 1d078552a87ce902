"""Where does a private key lie, and how does it sign? Keys by URI, through the signers of securesystemslib.

1. A key is a PEM file (PKCS #8, mode 0600), or a *reference*: `NAME.key.json` with the key's URI and its public half.
   What a reference names may be an encrypted file, a variable of the environment, a cloud's key service or an HSM.
2. `URI_FORMS` is the list of forms. `import_key` asks the place for the public half, once; `open_signer` opens the key.
3. Passphrases and PINs come from a `Secrets` function: of the environment here, of a terminal in the command line.
4. We write no cryptography: keys are made, read and used by securesystemslib and `cryptography`.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.exceptions import UnsupportedAlgorithmError, UnsupportedLibraryError
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import AWSSigner, CryptoSigner, GCPSigner, HSMSigner, Key, Signer, SSlibKey

from whimbrel import limits
from whimbrel.durable import write_durably
from whimbrel.errors import Conflict, NotAllowed, NotFound, Unavailable, UntrustedInput, WhimbrelError, reason_of
from whimbrel.model.documents import Document, digest_of, encode, parse

__all__ = ["CryptoSigner", "Key", "SSlibKey", "Signer", "import_key", "load_signer", "make_signer", "open_signer"]

Secrets = Callable[[str], str]

PASSPHRASE, PIN = "WHIMBREL_KEY_PASSPHRASE", "WHIMBREL_HSM_PIN"
URI_FORMS = {
    "file": "file:PATH, or file:PATH?encrypted for a file with a passphrase; a relative PATH is beside the reference",
    "env": "env:NAME, a variable of the environment with the PEM text; env:NAME?encrypted",
    "awskms": "awskms:KEY-ID-OR-ALIAS, of AWS KMS (extra kms)",
    "gcpkms": "gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1, with google-cloud-kms",
    "hsm": "hsm:KEYID?label=TOKEN, of a PKCS#11 token whose library PYKCS11LIB names (extra hsm)",
}
_INSTALLS = {"awskms": "'whimbrel[kms]'", "gcpkms": "google-cloud-kms", "hsm": "'whimbrel[hsm]'"}
_MAKE: dict[str, Callable[[], CryptoSigner]] = {
    "ed25519": CryptoSigner.generate_ed25519,
    "ecdsa": CryptoSigner.generate_ecdsa,
    "rsa": CryptoSigner.generate_rsa,
    "ml-dsa-44": lambda: CryptoSigner.generate_mldsa(scheme="ml-dsa-44/1"),
    "ml-dsa-65": lambda: CryptoSigner.generate_mldsa(scheme="ml-dsa-65/1"),
    "ml-dsa-87": lambda: CryptoSigner.generate_mldsa(scheme="ml-dsa-87/1"),
}
KINDS = tuple(_MAKE)


class PublicKey(Document, frozen=True):
    """A public key as it is handed on: as TUF metadata writes it (section 4.2.1), with its id."""

    keyid: str
    keytype: str
    scheme: str
    keyval: dict[str, str]

    @classmethod
    def of(cls, key: Key) -> "PublicKey":
        """The public half of a key of the library."""
        return cls(keyid=key.keyid, keytype=key.keytype, scheme=key.scheme, keyval=key.keyval)

    def key(self) -> Key:
        """As a key of the library. Raises `UntrustedInput` for a type that it does not know, and for a wrong id."""
        fields = {"keytype": self.keytype, "scheme": self.scheme, "keyval": self.keyval}
        try:
            key: Key = Key.from_dict(self.keyid, dict(fields))
        except (ValueError, TypeError, KeyError) as error:
            raise UntrustedInput(
                f"the public key {self.keyid[:8]} ({self.keytype}, {self.scheme}) cannot be used: {error}"
            ) from error
        check_id(key)
        return key


class KeyReference(Document, frozen=True):
    """A key that lies elsewhere: its URI, and its public half, so that nobody is asked for a PIN to show it."""

    uri: str
    public: PublicKey


def check_id(key: Key) -> None:
    """Raises `UntrustedInput` where a key's id is not its hash (TUF, section 4.2.1): one key could count twice."""
    fields = {"keytype": key.keytype, "scheme": key.scheme, "keyval": key.keyval}
    right = digest_of((encode_canonical(fields) or "").encode())
    if key.keyid != right:
        raise UntrustedInput(
            f"a public key calls itself {key.keyid[:8]}, and its id is {right[:8]}; make its file anew with: "
            "whimbrel keys export"
        )


def secret_of_environment(name: str) -> str:
    """The passphrase or PIN `name` of the environment. Raises `NotAllowed` where there is none."""
    value = os.environ.get(name, "")
    if not value:
        raise NotAllowed(f"this key needs a secret; set {name}, or run the command on a terminal")
    return value


def make_signer(path: Path, *, kind: str = "ed25519", passphrase: str | None = None) -> CryptoSigner:
    """A new key at `path` (PEM), of one of `KINDS`; with a passphrase it is encrypted, and a reference lies beside it.

    Raises `Conflict` where there is a key (none is ever overwritten), and `Unavailable` for a kind that this machine's
    `cryptography` cannot make, such as ML-DSA.
    """
    reference = reference_of(path)
    if path.exists() or reference.exists():
        raise Conflict(f"there is a key at {path} already; it is not overwritten")
    try:
        signer = _MAKE[kind]()
    except (UnsupportedAlgorithm, UnsupportedLibraryError) as error:
        raise Unavailable(
            f"this machine cannot make a key of the kind {kind} ({error}); install cryptography>=48, or take ed25519"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if passphrase is None:
        write_durably(path, signer.private_bytes, mode=0o600)
        return signer
    plain = load_pem_private_key(signer.private_bytes, password=None)
    locked = plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode()))
    write_durably(path, locked, mode=0o600)
    write_reference(reference, f"file:{quote(path.name)}?encrypted", signer.public_key)
    return signer


def reference_of(path: Path) -> Path:
    """Where the reference of the key `path` (NAME.pem) lies. Public halves and drafts may lie in the same folder."""
    return path.with_name(f"{path.stem}.key.json")


def write_reference(path: Path, uri: str, public: Key) -> None:
    """Write down where a key lies. Raises `Conflict` where there is a key of that name."""
    if path.exists():
        raise Conflict(f"there is a key at {path} already; it is not overwritten")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_durably(path, encode(KeyReference(uri=uri, public=PublicKey.of(public))) + b"\n", mode=0o600)


def load_signer(path: Path, *, secrets: Secrets = secret_of_environment) -> Signer:
    """The key `path` (NAME.pem), or the one that NAME.key.json beside it refers to.

    Raises `NotFound`, `UntrustedInput` for a file that is no private key, `NotAllowed` for a missing or wrong secret,
    `Unavailable` for a service that does not answer.
    """
    reference = reference_of(path)
    if reference.exists():
        return open_signer(read_reference(reference), secrets=secrets, beside=path.parent)
    return _file_signer(path, encrypted=False, secrets=secrets)


def read_reference(path: Path) -> KeyReference:
    """The reference at `path`. Raises `UntrustedInput`."""
    return parse(KeyReference, read_bounded(path), what=f"the key reference {path}")


def read_bounded(path: Path) -> bytes:
    """A file that holds one key. Raises `NotFound`, `UntrustedInput` where it cannot be read."""
    try:
        if path.stat().st_size > limits.KEY_BYTES:
            raise UntrustedInput(f"{path} has {path.stat().st_size} bytes and is no key; expected a PEM file")
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no key at {path}; bring it here, or name its folder with --keys") from None
    except OSError as error:
        raise UntrustedInput(f"the key {path} cannot be read: {reason_of(error)}") from error


def import_key(uri: str, *, secrets: Secrets = secret_of_environment, beside: Path = Path()) -> tuple[str, Key]:
    """The URI to keep and the public half of the key at `uri`. Raises as `load_signer`."""
    scheme, path, options = _parts(uri)
    if scheme in {"file", "env"}:
        signer = open_signer(KeyReference(uri=uri, public=_NONE), secrets=secrets, beside=beside)
        return uri, signer.public_key
    imports: dict[str, Callable[[], tuple[str, Key]]] = {
        "awskms": lambda: AWSSigner.import_(path),
        "gcpkms": lambda: GCPSigner.import_(path),
        "hsm": lambda: HSMSigner.import_(_number(path, uri), options.get("label"), lambda _: secrets(PIN)),
    }
    try:
        return imports[scheme]()
    except troubles() as error:
        raise trouble_with(uri, error) from error


def open_signer(reference: KeyReference, *, secrets: Secrets = secret_of_environment, beside: Path = Path()) -> Signer:
    """The key that `reference` names. A relative path is in the folder `beside`. Raises as `load_signer`.

    A key whose public half is another than the reference says is refused with `UntrustedInput`.
    """
    scheme, path, options = _parts(reference.uri)
    if scheme == "file":
        signer: Signer = _file_signer(beside / path, encrypted="encrypted" in options, secrets=secrets)
    elif scheme == "env":
        content = os.environ.get(path, "")
        if not content:
            raise NotFound(f"the key {reference.uri} is not in the environment; set {path} to its PEM text")
        signer = _pem_signer(content.encode(), reference.uri, encrypted="encrypted" in options, secrets=secrets)
    else:
        try:
            return Signer.from_priv_key_uri(reference.uri, reference.public.key(), lambda _: secrets(PIN))
        except troubles() as error:
            raise trouble_with(reference.uri, error) from error
    if reference.public not in (_NONE, PublicKey.of(signer.public_key)):
        raise UntrustedInput(
            f"the key at {reference.uri} is {signer.public_key.keyid[:8]}, and its reference says "
            f"{reference.public.keyid[:8]}; is it another key's file?"
        )
    return signer


def troubles() -> tuple[type[Exception], ...]:
    """What signers raise when their place fails. Their libraries are loaded only where they are used."""
    kinds: list[type[Exception]] = [
        ValueError,
        OSError,
        RuntimeError,
        UnsupportedLibraryError,
        UnsupportedAlgorithmError,
    ]
    for module, names in (
        ("botocore.exceptions", ("BotoCoreError", "ClientError")),
        ("google.api_core.exceptions", ("GoogleAPIError",)),
        ("pkcs11.exceptions", ("PKCS11Error",)),
    ):
        loaded: Any = sys.modules.get(module)
        kinds += [getattr(loaded, name) for name in names if loaded is not None]
    return tuple(kinds)


def trouble_with(uri: str, error: Exception) -> WhimbrelError:
    """One sentence about a key that could not be used."""
    scheme = uri.partition(":")[0]
    if isinstance(error, UnsupportedLibraryError):
        return Unavailable(
            f"the key {uri} needs a library that is not installed: pip install {_INSTALLS.get(scheme, scheme)}"
        )
    words = " ".join(str(error).split()) or type(error).__name__
    return Unavailable(f"the key {uri} cannot be used: {words}; does its place answer, and may you use it?")


def _file_signer(path: Path, *, encrypted: bool, secrets: Secrets) -> CryptoSigner:
    return _pem_signer(read_bounded(path), str(path), encrypted=encrypted, secrets=secrets)


def _pem_signer(content: bytes, name: str, *, encrypted: bool, secrets: Secrets) -> CryptoSigner:
    encrypted = encrypted or b"ENCRYPTED" in content
    password = secrets(PASSPHRASE).encode() if encrypted else None
    try:
        return CryptoSigner(load_pem_private_key(content, password=password))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise NotAllowed(f"the key {name} does not open with this passphrase ({error})") from error
        raise UntrustedInput(f"{name} is not a private key in PEM form; make one with: whimbrel keys init") from error


def _parts(uri: str) -> tuple[str, str, dict[str, str]]:
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme not in URI_FORMS:
        forms = "; ".join(URI_FORMS.values())
        raise UntrustedInput(f"{uri!r} names no key; expected one of these forms: {forms}")
    path, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    return scheme, unquote(path) if scheme == "file" else path, options


def _number(text: str, uri: str) -> int | None:
    if text and not text.isdigit():
        raise UntrustedInput(f"{uri} has the key id {text!r}; expected a number, such as hsm:2?label=TOKEN")
    return int(text) if text else None


_NONE = PublicKey(keyid="", keytype="", scheme="", keyval={})
