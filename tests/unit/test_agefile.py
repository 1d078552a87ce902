"""Age files: what is sealed opens to the same bytes, and whatever is wrong with one is said and never believed."""

import io
import sys
from pathlib import Path

import pytest

from whimbrel import agefile
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.model.documents import digest_of

CONTENT = bytes(range(256)) * 1024  # four chunks of age
IDENTITY = agefile.new_identity()


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("sealed")
    (folder / "plain").write_bytes(CONTENT)
    digest, size = agefile.seal_file(folder / "plain", folder / "sealed", recipient=agefile.recipient_of(IDENTITY))
    content = (folder / "sealed").read_bytes()
    assert (digest, size) == (digest_of(content), len(content))
    return content


def opened(content: bytes, *, identity: str = IDENTITY, bytes_max: int = len(CONTENT)) -> tuple[str, bytes]:
    plain = io.BytesIO()
    return agefile.open_file(io.BytesIO(content), plain, identity=identity, bytes_max=bytes_max), plain.getvalue()


def test_what_was_sealed_opens_to_the_same_bytes(sealed: bytes) -> None:
    assert sealed.startswith(b"age-encryption.org/v1\n")
    assert opened(sealed) == (digest_of(CONTENT), CONTENT)


@pytest.mark.parametrize("kept", [0, 10, 200, 70_000, 2**17, -1])
def test_file_that_was_cut_is_refused(sealed: bytes, kept: int) -> None:
    with pytest.raises(UntrustedInput, match="cannot be opened"):
        opened(sealed[:kept])


def test_file_that_was_cut_between_two_chunks_is_refused(sealed: bytes) -> None:
    """The first chunks are whole: that the last one is missing must be seen."""
    header = len(sealed) - len(CONTENT) - 16 * 4
    with pytest.raises(UntrustedInput, match="cannot be opened"):
        opened(sealed[: header + (64 * 1024 + 16)])


@pytest.mark.parametrize("more", [b"1", b"x" * 100_000])
def test_file_with_more_behind_it_is_refused(sealed: bytes, more: bytes) -> None:
    with pytest.raises(UntrustedInput, match="cannot be opened"):
        opened(sealed + more)


@pytest.mark.parametrize("place", [30, 150, 300, 100_000, -1])
def test_file_in_which_a_bit_was_changed_is_refused(sealed: bytes, place: int) -> None:
    changed = bytearray(sealed)
    changed[place] ^= 1
    with pytest.raises(UntrustedInput, match="cannot be opened"):
        opened(bytes(changed))


def test_another_key_opens_nothing(sealed: bytes) -> None:
    with pytest.raises(UntrustedInput, match="cannot be opened with this key"):
        opened(sealed, identity=agefile.new_identity())


def test_file_that_holds_more_than_it_may_is_left_before_its_end(sealed: bytes) -> None:
    with pytest.raises(UntrustedInput, match="holds more than the 1000 bytes"):
        opened(sealed, bytes_max=1000)


def test_disk_that_is_full_is_no_fault_of_the_file(sealed: bytes) -> None:
    class Full(io.BytesIO):
        def write(self, content: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        agefile.open_file(io.BytesIO(sealed), Full(), identity=IDENTITY, bytes_max=len(CONTENT))


@pytest.mark.parametrize("text", ["", "AGE-SECRET-KEY-1", "age1abc"])
def test_what_is_no_key_is_refused(sealed: bytes, text: str) -> None:
    with pytest.raises(UntrustedInput, match="is no key of age"):
        opened(sealed, identity=text)
    with pytest.raises(UntrustedInput, match="is no recipient of age"):
        agefile.seal_bytes(b"x", recipient=text)


def test_without_the_extra_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(Unavailable, match=r"pip install 'whimbrel\[sealed\]'"):
        agefile.new_identity()


def test_header_that_names_a_hundred_thousand_keys_is_refused_at_once() -> None:
    """Age tried its key at each of them, which took minutes of a device's time."""
    stanza = b"-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n"
    with pytest.raises(UntrustedInput, match="sealed to many keys"):
        opened(b"age-encryption.org/v1\n" + stanza * 100_000 + b"--- " + b"A" * 43 + b"\n")


def test_short_secret_with_a_long_header_is_refused_at_once() -> None:
    with pytest.raises(UntrustedInput, match="sealed to many keys"):
        agefile.open_bytes(b"age-encryption.org/v1\n" + b"-> X25519 A\nA\n" * 100_000, identity=IDENTITY)


def test_a_file_may_hold_as_many_bytes_as_are_asked_for_and_no_more(sealed: bytes) -> None:
    assert opened(sealed, bytes_max=len(CONTENT))[1] == CONTENT
    with pytest.raises(UntrustedInput) as caught:
        opened(sealed, bytes_max=len(CONTENT) - 1)
    assert str(caught.value) == f"the sealed file holds more than the {len(CONTENT) - 1} bytes that it may have"


def test_of_a_file_that_holds_more_no_byte_beyond_the_limit_is_written(sealed: bytes) -> None:
    plain = io.BytesIO()
    with pytest.raises(UntrustedInput):
        agefile.open_file(io.BytesIO(sealed), plain, identity=IDENTITY, bytes_max=100_000)
    assert len(plain.getvalue()) <= 100_000
    assert CONTENT.startswith(plain.getvalue())


@pytest.mark.parametrize("secret", [b"", b"x", CONTENT])
def test_a_short_secret_opens_with_its_key_alone(secret: bytes) -> None:
    kept = agefile.seal_bytes(secret, recipient=agefile.recipient_of(IDENTITY))
    assert agefile.open_bytes(kept, identity=IDENTITY) == secret
    with pytest.raises(UntrustedInput, match=r"^what was sealed cannot be opened with this key: "):
        agefile.open_bytes(kept, identity=agefile.new_identity())


def test_a_header_ends_within_its_limit(monkeypatch: pytest.MonkeyPatch, sealed: bytes) -> None:
    end = sealed.index(b"\n---") + len(b"\n---")
    monkeypatch.setattr(agefile.limits, "AGE_HEADER_BYTES", end)
    assert opened(sealed)[1] == CONTENT
    monkeypatch.setattr(agefile.limits, "AGE_HEADER_BYTES", end - 1)
    with pytest.raises(
        UntrustedInput, match=f"its first {end - 1} bytes hold no whole header of age, and at most {end - 1}"
    ):
        opened(sealed)


def test_keys_are_told_by_their_kind() -> None:
    assert IDENTITY.startswith("AGE-SECRET-KEY-1")
    assert agefile.recipient_of(IDENTITY).startswith("age1")
    assert agefile.is_installed()
    assert agefile.Nowhere().write(b"abc") == 3
