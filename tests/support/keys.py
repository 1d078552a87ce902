"""Tokens and key services for tests: a PKCS#11 token of SoftHSM2, and AWS KMS as moto plays it."""

import atexit
import functools
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

LIBRARY = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN, LABEL = "1234", "whimbrel"


def token(monkeypatch: pytest.MonkeyPatch, *, keyid: int) -> str:
    """A new P-256 key in a token; its URI. The library reads its settings once, so a process has one token."""
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    monkeypatch.setenv("SOFTHSM2_CONF", str(_settings()))
    monkeypatch.setenv("PYKCS11LIB", str(LIBRARY))
    monkeypatch.setenv("WHIMBREL_HSM_PIN", PIN)
    found = pkcs11.lib(str(LIBRARY)).get_token(token_label=LABEL)
    with found.open(rw=True, user_pin=PIN) as session:
        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        parameters.generate_keypair(store=True, label="key", id=bytes([keyid]))
    return f"hsm:{keyid}?label={LABEL}"


@functools.cache
def _settings() -> Path:
    """The settings of a new, initialised token, which lives as long as the process."""
    within = tempfile.TemporaryDirectory(prefix="whimbrel-token-")
    atexit.register(within.cleanup)
    folder = Path(within.name)
    (folder / "tokens").mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
    command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", "5678"]
    environment = {**os.environ, "SOFTHSM2_CONF": str(settings)}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return settings


def sign_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have moto sign a digest as AWS does. It takes what it is given for the message, and says so in its documentation
    ("the MessageType-parameter DIGEST is not yet implemented")."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
    from cryptography.hazmat.primitives.hashes import SHA256
    from moto.kms.utils import ECDSAPrivateKey

    def sign(self: ECDSAPrivateKey, message: bytes, signing_algorithm: str) -> bytes:
        assert (len(message), signing_algorithm) == (32, "ECDSA_SHA_256")
        signature: bytes = self.private_key.sign(message, ECDSA(Prehashed(SHA256())))
        return signature

    monkeypatch.setattr(ECDSAPrivateKey, "sign", sign)
