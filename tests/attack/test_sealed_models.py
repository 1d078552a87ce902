"""Who wants a sealed model without being entitled to it: from the CDN, the database, an answer, the way."""

import sqlite3
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.enrolling import KeyedDevice
from support.sealing import CONTENTS, Asking, opened, options, publish, sealed_repository, token_for
from support.server import Running, done, serving, whimbrel
from whimbrel import Agent, agefile, limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import convert, digest_of, parse
from whimbrel.stores.sealing_key import SealingKey, keep_release_key
from whimbrel.trust.sealing import BundledKeys, SealedReleaseKey, open_key, recipient_key_of

BLOCK = 24  # bytes: shorter ones may be the same by chance


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = sealed_repository(tmp_path_factory.mktemp("sealed") / "repo")
    publish(folder, 2, "--delta-from", folder.parent / "secret-1.onnx")
    done("model", "add", "other", "--sealed", "--sealed-for", "tier=staff", "-R", folder)
    done("publish", "-m", "other", folder.parent / "secret-1.onnx", "-R", folder)
    with serving(folder) as made:
        yield made


@pytest.fixture(scope="module")
def http(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{running.devices}/default", trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def token(running: Running) -> str:
    return token_for(running, "entitled", "tier=pro")


@pytest.fixture
def device(http: httpx.Client, token: str, request: pytest.FixtureRequest) -> Asking:
    return Asking(http, f"dev-{request.node.name[:60]}", token)


def answered(answer: httpx.Response) -> SealedReleaseKey:
    return convert(SealedReleaseKey, answer.raise_for_status().json(), what="the answer")


def opened_by(device: Asking, answer: SealedReleaseKey, **other: object) -> str:
    named = {"namespace": "default", "model": "secret", "serial": 1, "device_id": device.device_id} | other
    return open_key(answer, device.recipient, **named)


def blocks_of(content: bytes) -> list[bytes]:
    """Some of every part of a file."""
    return [content[place : place + BLOCK] for place in range(0, len(content) - BLOCK, 997)]


def test_no_block_of_a_sealed_model_lies_in_the_store_or_the_database(running: Running) -> None:
    """The whole folder of the repository, as a CDN, a backup and the operator of either have it."""
    texts = [*blocks_of(CONTENTS[1]), *blocks_of(CONTENTS[2])]
    files = [path for path in running.folder.rglob("*") if path.is_file()]
    assert len([path for path in files if path.parent.name == "artifacts"]) >= 5
    for path in files:
        content = path.read_bytes()
        assert not any(text in content for text in texts), path
    plain = {digest_of(content) for content in CONTENTS.values()}
    assert plain.isdisjoint(path.name for path in files)


def test_the_same_file_sealed_twice_has_nothing_in_common(running: Running) -> None:
    """`other` has the bytes of `secret`, and a key of its own: its artifact is none of those."""
    (secret,), (other,) = (
        [
            file
            for variant in done("version", "show", "1", "-m", model, "-R", running.folder)["release"]["variants"]
            for file in variant["files"]
        ]
        for model in ("secret", "other")
    )
    assert secret["sha256"] == other["sha256"]
    assert secret["sealed"]["sha256"] != other["sealed"]["sha256"]


def test_an_entitled_device_gets_the_key_and_only_it_can_open_the_answer(device: Asking) -> None:
    assert opened_by(device, answered(device.ask())).startswith("AGE-SECRET-KEY-1")


def test_device_that_is_not_entitled_gets_no_key(http: httpx.Client, running: Running) -> None:
    stranger = Asking(http, "dev-stranger", token_for(running, "anybody"))
    answer = stranger.ask()
    assert (answer.status_code, "is not entitled" in answer.text) == (403, True)


def test_a_label_that_a_device_claims_for_itself_entitles_it_to_nothing(http: httpx.Client, running: Running) -> None:
    stranger = Asking(http, "dev-claims", token_for(running, "claims"))
    body = stranger.enrolment(None, labels={"tier": "pro"})
    http.post("/device/v1/enrol", json=body).raise_for_status()
    credential = http.post("/device/v1/enrol", json=stranger.enrolment(None)).raise_for_status().json()["credential"]
    stranger.headers = stranger.bearer(credential)
    assert stranger.ask().status_code == 403


def test_entitled_device_asks_for_another_model(device: Asking) -> None:
    answer = device.ask(model="other")
    assert (answer.status_code, "tier=staff" in answer.text) == (403, True)


def test_entitled_device_asks_in_another_namespace(running: Running, device: Asking) -> None:
    body = device.request()
    answer = httpx.post(
        f"{running.devices}/elsewhere/device/v1/release-key", json=body, headers=device.headers, trust_env=False
    )
    assert answer.status_code == 401


def test_blocked_device_asks(device: Asking, running: Running) -> None:
    answered(device.ask())
    done("device", "block", device.device_id, "--because", "stolen", "-R", running.folder)
    body, until = device.request(), time.monotonic() + 15
    while (answer := device.ask(body)).status_code == 200 and time.monotonic() < until:
        time.sleep(0.5)  # every process hears of a block within seconds
    assert (answer.status_code, "blocked" in answer.text) == (403, True)


def test_key_that_was_sealed_to_another_device_opens_nothing(http: httpx.Client, token: str, device: Asking) -> None:
    """Also where a thief has the other device's recipient key, or a server gives one answer for another version."""
    other = Asking(http, "dev-replays", token)
    answer = answered(device.ask())
    with pytest.raises(UntrustedInput, match="was not sealed to this device for this version"):
        opened_by(other, answer)
    for named in ({"device_id": "dev-replays"}, {"serial": 2}, {"model": "other"}, {"namespace": "elsewhere"}):
        with pytest.raises(UntrustedInput, match="was not sealed to this device for this version"):
            opened_by(device, answer, **named)


def test_somebody_on_the_way_names_his_own_recipient_key(http: httpx.Client, token: str, device: Asking) -> None:
    thief = Asking(http, "dev-on-the-way", token)
    body = device.request() | {"recipient": recipient_key_of(thief.recipient)}
    answer = device.ask(body)
    assert (answer.status_code, "the signature is not by the key" in answer.text) == (401, True)


def test_stolen_device_token_alone_gets_no_key(http: httpx.Client, token: str, device: Asking) -> None:
    """The thief signs with a key of his own, in the name of the device whose token he has."""
    thief = Asking(http, "dev-thief", token)
    thief.device_id, thief.headers = device.device_id, device.headers
    answer = thief.ask()
    assert (answer.status_code, "is not signed with the key of" in answer.text) == (401, True)


def test_device_asks_without_end(device: Asking) -> None:
    body = device.request()
    answers = [device.ask(body).status_code for _ in range(limits.RELEASE_KEYS_AN_HOUR + 1)]
    assert (set(answers[:-1]), answers[-1]) == ({200}, 429)


def test_thief_of_a_device_token_uses_up_nobody_elses_share_of_keys(
    http: httpx.Client, token: str, device: Asking
) -> None:
    """Requests were counted before the signature was looked at: a stolen token shut the device out for an hour."""
    thief = Asking(http, "dev-thief-of-shares", token)
    thief.device_id, thief.headers = device.device_id, device.headers
    for _ in range(limits.RELEASE_KEYS_AN_HOUR + 1):
        assert thief.ask().status_code in {401, 403, 429}
    assert opened_by(device, answered(device.ask())).startswith("AGE-SECRET-KEY-1")


def test_device_that_never_asked_is_named_in_a_bundle_by_its_enrolment_alone(
    http: httpx.Client, running: Running, token: str, tmp_path: Path
) -> None:
    quiet = Asking(http, "dev-quiet", token, names_recipient=True)
    bundle = tmp_path / "site.bundle"
    done("bundle", "export", bundle, "--model", "secret", "-R", running.folder)
    done("bundle", "add-keys", bundle, "--for-device", "dev-quiet", "-R", running.folder)
    with zipfile.ZipFile(bundle) as file:
        keys = parse(BundledKeys, file.read("release-keys/secret.json"), what="the keys")
    assert opened_by(quiet, next(each for each in keys.keys["dev-quiet"] if each.serial == 1))


def test_device_that_named_no_recipient_is_refused_with_what_to_do(
    http: httpx.Client, running: Running, token: str, tmp_path: Path
) -> None:
    Asking(http, "dev-old-agent", token)
    bundle = tmp_path / "site.bundle"
    done("bundle", "export", bundle, "--model", "secret", "-R", running.folder)
    said = whimbrel("bundle", "add-keys", bundle, "--for-device", "dev-old-agent", "-R", running.folder)
    assert said.status == 4
    assert "Upgrade its agent (pip install 'whimbrel[sealed]'), and let it refresh once" in said.err


def test_recipient_key_that_the_device_did_not_sign_enrols_nobody(http: httpx.Client, token: str) -> None:
    """Somebody on the way puts his own key in, to be given what bundles hold for the device."""
    victim = KeyedDevice(http, "dev-victim")
    asking = Asking(http, "dev-signs-for-others", token)
    challenge = asking.challenge()
    asking.device_id, asking.public_key = "dev-victim", victim.public_key
    named = asking.named_recipient(challenge)
    answer = victim.enrol(token, challenge=challenge, recipient=named)
    assert (answer.status_code, "signature is not by the key" in answer.text) == (401, True)
    without = {"device_id": "dev-victim", "enrol_token": token, "recipient": named}
    answer = http.post("/device/v1/enrol", json=without)
    assert (answer.status_code, "without a proof" in answer.text) == (400, True)


def test_every_key_that_was_handed_out_is_in_the_audit_log(device: Asking, running: Running) -> None:
    answered(device.ask())
    actions = [each["action"] for each in done("audit", "-R", running.folder)]
    assert "hand_out_release_key" in actions


def test_bundle_is_made_for_no_device_that_is_not_entitled_or_is_blocked(
    http: httpx.Client, running: Running, device: Asking
) -> None:
    """And where one of several is not, none gets a key."""
    answered(device.ask())
    Asking(http, "dev-of-a-bundle", token_for(running, "bundled")).ask()
    bundle = running.folder.parent / "site.bundle"
    done("bundle", "export", bundle, "--model", "secret", "-R", running.folder)
    size, where = bundle.stat().st_size, ["-R", running.folder]
    said = whimbrel(
        "bundle", "add-keys", bundle, "--for-device", device.device_id, "--for-device", "dev-of-a-bundle", *where
    )
    assert (said.status, "dev-of-a-bundle is not entitled" in said.err) == (4, True)
    done("device", "block", device.device_id, "--because", "stolen", *where)
    said = whimbrel("bundle", "add-keys", bundle, "--for-device", device.device_id, *where)
    assert (said.status, "is blocked" in said.err, bundle.stat().st_size) == (4, True, size)


def test_thief_of_the_database_alone_opens_nothing(running: Running) -> None:
    """What the rows hold is sealed to a key that is in no row."""
    with sqlite3.connect(running.folder / "whimbrel.db") as database:
        keys = [row[0] for row in database.execute("SELECT release_key FROM sealed_version")]
    assert len(keys) == 3
    for path in running.folder.glob("whimbrel.db*"):
        assert b"AGE-SECRET-KEY" not in path.read_bytes()
    for key in keys:
        assert key.startswith(b"age-encryption.org/v1")
        with pytest.raises(UntrustedInput, match="cannot be opened with this key"):
            agefile.open_bytes(key, identity=agefile.new_identity())
    assert SealingKey(running.folder / "keys/online/sealing.key").path.stat().st_mode & 0o777 == 0o600


def test_thief_who_writes_the_database_exchanges_two_keys(running: Running, device: Asking) -> None:
    """An entitled device of `secret` is to be given the key of `other`."""
    with sqlite3.connect(running.folder / "whimbrel.db") as database:
        (mine,), (other,) = (
            database.execute(
                "SELECT release_key FROM sealed_version WHERE model = ? AND serial = 1", (model,)
            ).fetchone()
            for model in ("secret", "other")
        )
        change = "UPDATE sealed_version SET release_key = ? WHERE model = 'secret' AND serial = 1"
        database.execute(change, (other,))
        database.commit()
        answer = device.ask()
        database.execute(change, (mine,))
        database.commit()
    assert (answer.status_code, "its log says why" in answer.text, "other" in answer.text) == (503, True, False)


def test_server_without_its_sealing_key_hands_out_nothing_and_tells_no_device_where_it_lay(
    running: Running, device: Asking
) -> None:
    """As a server that was set up from a backup of the database alone."""
    path = running.folder / "keys" / "online" / "sealing.key"
    key = path.read_bytes()
    path.unlink()
    try:
        answer = device.ask()
    finally:
        path.write_bytes(key)
        path.chmod(0o600)
    assert (answer.status_code, "sealing.key" in answer.text) == (503, False)
    answered(device.ask())


def test_wrong_key_of_a_server_is_no_evidence_against_the_version(running: Running, token: str, tmp_path: Path) -> None:
    """The server hands out another key, by mistake or on purpose; the device waits, and goes on with the right one."""
    recipient = SealingKey(running.folder / "keys/online/sealing.key").recipient
    assert recipient is not None
    wrong = keep_release_key(agefile.new_identity(), recipient, namespace="default", model="secret", serial=1)
    change = "UPDATE sealed_version SET release_key = ? WHERE model = 'secret' AND serial = 1"
    with sqlite3.connect(running.folder / "whimbrel.db") as database:
        (mine,) = database.execute(
            "SELECT release_key FROM sealed_version WHERE model = 'secret' AND serial = 1"
        ).fetchone()
        database.execute(change, (wrong,))
        database.commit()
        with Agent.open(tmp_path / "device", options(running, "dev-wrong", token)) as agent:
            status = agent.cycle(force=True).models["secret"]
            assert (status["serial"], status["refused"]) == (None, {})
            assert "cannot be opened with this key" in status["waits_for"]
        database.execute(change, (mine,))
        database.commit()
    with Agent.open(tmp_path / "device", options(running, "dev-wrong", token)) as agent:
        assert agent.cycle(force=True).models["secret"]["serial"] == 1
        assert opened(agent) == CONTENTS[1]


@pytest.mark.parametrize(
    "spoil", [lambda content: content[:-100], lambda content: content + b"more"], ids=["cut", "longer"]
)
def test_age_file_that_was_cut_or_made_longer_on_the_cdn_is_not_taken(
    running: Running, token: str, tmp_path: Path, spoil: object, request: pytest.FixtureRequest
) -> None:
    folder = running.folder / "files" / "default" / "artifacts"
    release = done("version", "show", "1", "-m", "secret", "-R", running.folder)["release"]
    names = [file["sealed"]["sha256"] for variant in release["variants"] for file in variant["files"]]
    names += [path.name for path in folder.iterdir() if path.is_file() and path.stat().st_size < 30_000]
    kept = {name: (folder / name).read_bytes() for name in names}
    try:
        for name, content in kept.items():
            (folder / name).write_bytes(spoil(content))
        with Agent.open(tmp_path / "device", options(running, f"dev-{request.node.callspec.id}", token)) as agent:
            status = agent.cycle(force=True).models["secret"]
            assert (status["serial"], status["refused"]) == (None, {})
    finally:
        for name, content in kept.items():
            (folder / name).write_bytes(content)
    with Agent.open(tmp_path / "device", options(running, f"dev-{request.node.callspec.id}", token)) as agent:
        assert agent.cycle(force=True).models["secret"]["serial"] == 1
