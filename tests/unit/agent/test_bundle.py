"""A zip file that stands in for the network: what it holds, as of when it is judged, and why it is no bundle."""

import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from whimbrel import limits
from whimbrel.agent.bundle import Bundle, Switched, models_of
from whimbrel.device.ports import Answer
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.model import documents
from whimbrel.trust import roles
from whimbrel.trust.sealing import BundledKeys, SealedReleaseKey

EXPIRES = datetime(2026, 3, 6, tzinfo=UTC)
SIGNED = EXPIRES.timestamp() - roles.TIMESTAMP_LIFE.total_seconds()
URL = "https://models.example.com/default"
Made = Callable[..., Bundle]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "b.zip"


def write(path: Path, *, timestamp: Any = None, compression: int = zipfile.ZIP_STORED, **files: bytes) -> Path:
    """A bundle of two models. `files`: its other files, their slashes written as two underscores."""
    stamp = {"signed": {"expires": EXPIRES.isoformat()}} if timestamp is None else timestamp
    names = {"metadata/timestamp.json": json.dumps(stamp).encode()}
    names |= {f"metadata/{number}.policy-{model}.json": b"{}" for number, model in ((1, "detector"), (12, "wake-word"))}
    names |= {name.replace("__", "/"): content for name, content in files.items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def opened(path: Path) -> Iterator[Made]:
    bundles: list[Bundle] = []

    def make(**given: Any) -> Bundle:
        bundles.append(Bundle(write(path, **given)))
        return bundles[-1]

    yield make
    for each in bundles:
        each.close()


def test_a_bundle_says_which_models_it_is_about(path: Path) -> None:
    assert models_of(write(path)) == ["detector", "wake-word"]


@pytest.mark.parametrize("late_s", [0.0, 3600.0])
def test_a_bundle_is_judged_by_the_time_that_it_is_while_it_is_valid(opened: Made, late_s: float) -> None:
    bundle = opened()
    assert bundle.as_of(SIGNED + late_s) == SIGNED + late_s
    assert bundle.as_of(EXPIRES.timestamp() - 1) == EXPIRES.timestamp() - 1


def test_a_bundle_that_travelled_for_weeks_is_judged_as_of_its_last_valid_second_and_no_older_one_is_taken(
    opened: Made,
) -> None:
    bundle = opened()
    assert bundle.as_of(EXPIRES.timestamp() + 1) == EXPIRES.timestamp() - 1
    assert bundle.as_of(SIGNED + limits.BUNDLE_AGE_S) == EXPIRES.timestamp() - 1
    with pytest.raises(UntrustedInput) as caught:
        bundle.as_of(SIGNED + 41 * 86400)
    assert str(caught.value) == "the bundle was signed 41 days ago; at most 30 are taken: export it anew"
    with pytest.raises(UntrustedInput, match="signed 30 days ago"):
        bundle.as_of(SIGNED + limits.BUNDLE_AGE_S + 1)


@pytest.mark.parametrize("timestamp", [{}, {"signed": {}}, {"signed": {"expires": "soon"}}, {"signed": {"expires": 7}}])
def test_a_timestamp_that_says_no_time_is_refused(opened: Made, timestamp: Any) -> None:
    with pytest.raises(UntrustedInput, match="the bundle's timestamp cannot be read: "):
        opened(timestamp=timestamp).as_of(SIGNED)


def test_what_is_no_bundle_says_why(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> str:
        with pytest.raises(UntrustedInput) as caught:
            Bundle(path)
        return str(caught.value).removeprefix(str(path))

    make = "; make one with `whimbrel bundle export`"
    assert refused() == f" is no bundle: it does not exist{make}"
    path.write_bytes(b"no zip file")
    assert refused().startswith(" is no bundle: ")
    write(path, compression=zipfile.ZIP_DEFLATED)
    assert refused() == f" is no bundle: its files are compressed{make}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata/1.policy-detector.json", b"{}")
    assert refused() == " is no bundle: it has no metadata/timestamp.json"
    monkeypatch.setattr(limits, "BUNDLE_ENTRIES", 3)
    Bundle(write(path)).close()
    write(path, artifacts__x=b"1")
    assert refused() == " holds 4 files; a bundle has at most 3: export fewer models into one"


def test_a_bundle_answers_as_the_static_server_does(opened: Made) -> None:
    bundle = opened(artifacts__x=b"12345")
    assert bundle.ask("GET", f"{URL}/artifacts/x", bytes_max=5) == Answer(200, {}, b"12345")
    assert bundle.ask("GET", f"{URL}/artifacts/y", bytes_max=5) == Answer(404, {})
    assert bundle.ask("GET", f"{URL}/device/v1/x", bytes_max=5) == Answer(404, {})
    for name, status, body in (("x", 200, b"12345"), ("y", 404, b"")):
        with bundle.stream(f"{URL}/artifacts/{name}", headers={}) as answer:
            assert (answer.status, b"".join(answer.chunks())) == (status, body)
    with pytest.raises(UntrustedInput) as caught:
        bundle.ask("GET", f"{URL}/artifacts/x", bytes_max=4)
    assert str(caught.value) == "the bundle's artifacts/x has 5 bytes; at most 4"
    with pytest.raises(Unavailable, match="nothing is told while a bundle is imported"):
        bundle.ask("POST", f"{URL}/artifacts/x", bytes_max=5)


def test_a_bundle_gives_a_device_the_key_that_was_sealed_to_it_for_that_very_release(opened: Made) -> None:
    keys = {
        device: tuple(SealedReleaseKey(model="detector", serial=serial, sealed="A" * 43) for serial in (1, 2))
        for device in ("dev-1", "dev-2")
    }
    content = documents.encode(BundledKeys(model="detector", keys=keys))
    bundle = opened(**{"release-keys__detector.json": content})
    assert bundle.release_key("detector", 2, device_id="dev-1") == keys["dev-1"][1]
    for model, serial, device_id in (("detector", 3, "dev-1"), ("detector", 2, "dev-3"), ("wake-word", 2, "dev-1")):
        assert bundle.release_key(model, serial, device_id=device_id) is None


def test_a_bundle_stands_in_for_the_network_until_its_block_ends(opened: Made) -> None:
    class Network:
        def ask(self, *_: object, **__: object) -> Answer:
            return Answer(503, {})

    switched = Switched(Network())
    bundle = opened(artifacts__x=b"12345")

    def asked() -> tuple[bool, bool, bool, int]:
        status = switched.ask("GET", f"{URL}/artifacts/x", bytes_max=5).status
        return switched.offline, switched.knows("detector"), switched.knows("speech"), status

    assert asked() == (False, True, True, 503)
    with switched.through(bundle):
        assert asked() == (True, True, False, 200)
        assert switched.release_key("detector", 2, device_id="dev-1") is None
    assert asked() == (False, True, True, 503)
