"""Keys by URI: whatever holds a key signs what a device can verify, and what cannot sign says why in one sentence."""

from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Targets

from support.keys import sign_digests, token
from whimbrel import limits
from whimbrel.errors import Conflict, NotAllowed, NotFound, Unavailable, UntrustedInput
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.online_signers import OnlineSigners
from whimbrel.stores.signed_metadata import add_signature
from whimbrel.stores.signer import (
    KINDS,
    PASSPHRASE,
    KeyReference,
    PublicKey,
    Signer,
    import_key,
    load_signer,
    make_signer,
    open_signer,
    write_reference,
)
from whimbrel.trust.role_keys import RoleKeys


def signs(signer: Signer, key: PublicKey) -> bool:
    """A signature of real metadata, verified with the public half as it travels."""
    metadata = Metadata(Targets())
    add_signature(metadata, signer)
    key.key().verify_signature(metadata.signatures[key.keyid], metadata.signed_bytes)
    return True


def referred(folder: Path, uri: str, name: str = "key") -> Signer:
    """The key at `uri`, imported as `keys init --uri` does, and opened from the reference."""
    kept, key = import_key(uri, beside=folder)
    write_reference(folder / f"{name}.key.json", kept, key)
    return load_signer(folder / f"{name}.pem")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_key_signs_what_its_public_half_verifies(tmp_path: Path, kind: str) -> None:
    public = PublicKey.of(make_signer(tmp_path / "key.pem", kind=kind).public_key)
    assert signs(load_signer(tmp_path / "key.pem"), public)
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "key.pem").stat().st_size < limits.KEY_BYTES


def test_key_file_with_a_passphrase_opens_with_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_signer(tmp_path / "anna.pem", passphrase="correct horse").public_key
    assert b"ENCRYPTED" in (tmp_path / "anna.pem").read_bytes()
    assert KeyFolder(tmp_path).named("anna").public == key  # nobody is asked to see the public half
    with pytest.raises(NotAllowed, match=PASSPHRASE):
        load_signer(tmp_path / "anna.pem")
    monkeypatch.setenv(PASSPHRASE, "wrong")
    with pytest.raises(NotAllowed, match="does not open with this passphrase"):
        load_signer(tmp_path / "anna.pem")
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    assert signs(load_signer(tmp_path / "anna.pem"), PublicKey.of(key))


def test_key_in_the_environment_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_signer(tmp_path / "made" / "key.pem")
    monkeypatch.setenv("CI_KEY", made.private_bytes.decode())
    assert signs(referred(tmp_path, "env:CI_KEY"), PublicKey.of(made.public_key))
    monkeypatch.delenv("CI_KEY")
    with pytest.raises(NotFound, match="set CI_KEY to its PEM text"):
        load_signer(tmp_path / "key.pem")


def test_key_in_a_pkcs11_token_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = token(monkeypatch, keyid=2)
    signer = referred(tmp_path, uri)
    assert signs(signer, PublicKey.of(signer.public_key))
    with pytest.raises(Unavailable, match="hsm:7"):
        import_key("hsm:7?label=whimbrel")
    monkeypatch.setenv("WHIMBREL_HSM_PIN", "0000")
    with pytest.raises(Unavailable, match="did not sign"):
        add_signature(Metadata(Targets()), load_signer(tmp_path / "key.pem"))


def test_key_in_a_cloud_service_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        service = boto3.client("kms")
        key_id = service.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")["KeyMetadata"]["KeyId"]
        signer = referred(tmp_path, f"awskms:{key_id}")
        with pytest.raises(Unavailable, match="did not sign"):  # a service that signs something else is found out
            add_signature(Metadata(Targets()), signer)
        sign_digests(monkeypatch)
        assert signs(signer, PublicKey.of(signer.public_key))
        with pytest.raises(Unavailable, match=r"awskms:nobodys.*does its place answer"):
            import_key("awskms:nobodys")


def test_reference_to_another_key_is_found_out(tmp_path: Path) -> None:
    make_signer(tmp_path / "one.pem")
    other = make_signer(tmp_path / "two.pem").public_key
    with pytest.raises(UntrustedInput, match="is it another key's file"):
        open_signer(KeyReference(uri="file:one.pem", public=PublicKey.of(other)), beside=tmp_path)


def test_service_whose_library_is_not_installed_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match="pip install google-cloud-kms"):
        import_key("gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1")


@pytest.mark.parametrize("uri", ["", "key.pem", "ftp:key", "hsm:two"])
def test_uri_that_names_no_key_is_refused_with_the_forms(uri: str) -> None:
    with pytest.raises(UntrustedInput, match=r"expected (one of these forms|a number)"):
        import_key(uri)


def test_no_key_is_overwritten(tmp_path: Path) -> None:
    before = make_signer(tmp_path / "key.pem").private_bytes
    for passphrase in (None, "x"):
        with pytest.raises(Conflict, match="not overwritten"):
            make_signer(tmp_path / "key.pem", passphrase=passphrase)
    assert (tmp_path / "key.pem").read_bytes() == before


def test_public_key_under_another_id_is_refused() -> None:
    """With any id allowed, one key would count as two of a threshold."""
    public = PublicKey(keyid="0" * 64, keytype="ed25519", scheme="ed25519", keyval={"public": "ab" * 32})
    with pytest.raises(UntrustedInput, match="calls itself 00000000"):
        public.key()


def test_public_key_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UntrustedInput, match="cannot be used"):
        PublicKey(keyid="0" * 64, keytype="rot13", scheme="rot13", keyval={"public": "ab"}).key()


def test_folder_with_more_files_than_keys_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEYS_OF_A_FOLDER", 1)
    for name in ("a", "b"):
        make_signer(tmp_path / f"{name}.pem")
    with pytest.raises(UntrustedInput, match="at most 1 are read"):
        KeyFolder(tmp_path).held()


def test_server_takes_a_key_that_came_after_it_started(tmp_path: Path) -> None:
    signers = OnlineSigners.of(KeyFolder(tmp_path))
    keyid = make_signer(tmp_path / "timestamp-2.pem").public_key.keyid
    (signer,) = signers.sign_for("timestamp", RoleKeys((keyid,), 1))
    assert signer.public_key.keyid == keyid
    with pytest.raises(Unavailable, match="keys/online"):
        signers.sign_for("timestamp", RoleKeys(("f" * 64,), 1))
