"""Keys that change while devices are away, keys in tokens and services, and warnings of what expires."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from support.agents import AllGood
from support.keys import token
from support.server import done, model_file, repository, serving, whimbrel
from whimbrel import Agent, AgentOptions
from whimbrel.cli.key_secrets import ask_secret
from whimbrel.flows.alerts import event_of
from whimbrel.flows.publishing.warn_of_expiry import STEPS_S
from whimbrel.server.app import Repository, open_repository
from whimbrel.server.config import Folder
from whimbrel.stores.key_ceremony import Ceremony, Draft, documents_of, sign_draft
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.signed_metadata import SERIALIZER, add_signature
from whimbrel.stores.signer import load_signer, make_signer
from whimbrel.stores.transaction import transaction

pytestmark = pytest.mark.long

YEARS = 365 * 86400.0


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Repository]:
    folder = Folder.open(repository(tmp_path / "repo", versions=1))
    with open_repository(folder, clock=clock) as made:
        yield made


def changed(opened: Repository, clock: Clock, change: Callable[[Ceremony], object]) -> None:
    """A ceremony at the clock's time, with the keys of the folder, and what the leader does after it."""
    now = datetime.fromtimestamp(clock.now, UTC)
    with transaction(opened.database, "default") as stores:
        last = stores.roles.newest()["root"]
        roots = [stores.roles.role_bytes("root", version) for version in range(1, last + 1)]
        ceremony = Ceremony("default", roots, stores.roles.role_bytes, now=now)
        change(ceremony)
        draft: Draft = ceremony.draft("a test")
        draft, _ = sign_draft(draft, KeyFolder(opened.folder.offline_keys))
        stores.keys.accept(documents_of(draft), holds=opened.signers.holds, now=now)


@pytest.fixture
def files(opened: Repository) -> Iterator[str]:
    """The static files alone, as a CDN serves them."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

    folder = opened.folder.artifacts_folder
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def _publish(opened: Repository) -> None:
    assert opened.controllers.leader.take()
    await opened.controllers.publishing.publish("default")


def published(opened: Repository) -> None:
    asyncio.run(_publish(opened))


def test_device_that_was_away_for_years_follows_every_root_since(
    tmp_path: Path, opened: Repository, clock: Clock, files: str
) -> None:
    """Five root keys later, of which four roots expired long ago; every other key is another one, too."""
    options = AgentOptions(server=files, root=opened.folder.root, models=["wake"], probes=AllGood())
    published(opened)
    with Agent.open(tmp_path / "device", options) as agent:
        assert agent.cycle(clock.now, force=True).problems == ()
        for number in range(2, 7):
            clock.now += 1.5 * YEARS
            new = make_signer(opened.folder.offline_keys / f"root-{number}.pem").public_key
            online = make_signer(opened.folder.online_keys / f"timestamp-{number}.pem").public_key

            def everything(ceremony: Ceremony, new: object = new, online: object = online) -> None:
                for role, key in (("root", new), ("timestamp", online)):
                    (old,) = ceremony.keys_of(role).keyids
                    ceremony.add(role, key)
                    ceremony.revoke(role, old)
                for role in ("targets", "publisher-wake"):
                    ceremony.renew(role)

            changed(opened, clock, everything)
            published(opened)
        result = agent.cycle(clock.now, force=True)
        assert (result.problems, result.models["wake"]["serial"]) == ((), 1)


def test_a_model_with_a_floor_is_in_the_way_of_no_ceremony(opened: Repository, clock: Clock) -> None:
    """The server refused every change of keys, as it did not hold the floor's key, which lies elsewhere."""
    where = ("-R", opened.folder.path)
    done("floor", "require", "wake", "--expires-days", 30, "--yes", *where)
    for role in ("targets", "publisher-wake", "timestamp"):
        done("keys", "rotate", role, "--yes", *where)
    done("keys", "renew", "root", "--yes", *where)
    (floor,) = [each for each in done("keys", "status", *where)["roles"] if each["role"] == "floor-wake"]
    assert (floor["offline"], floor["warning"]) == (True, None)
    assert done("floor", "renew", "wake", *where)[0]["model"] == "wake"


def test_keys_of_a_floor_are_changed_like_those_of_other_roles(tmp_path: Path) -> None:
    """They could not be changed at all: a pipeline that lost its key needed the floor lifted and required anew."""
    folder = repository(tmp_path / "repo", versions=1)
    where, offline, pipeline = ("-R", folder), folder / "keys" / "offline", tmp_path / "pipeline"
    ends = done("floor", "require", "wake", "--expires-days", 30, "--yes", *where)["expires_at"]
    done("keys", "rotate", "floor-wake", "--yes", *where)
    (offline / "floor-wake.pem").unlink()  # lost
    assert done("floor", "show", *where)[0]["expires_at"] == ends
    done("floor", "renew", "wake", *where)
    done("keys", "init", "ci", "--keys", pipeline, "--public", tmp_path / "ci.json")
    draft = tmp_path / "draft.json"
    done("keys", "add", "floor-wake", tmp_path / "ci.json", "--threshold", 2, "--draft", draft, *where)
    done("keys", "sign", draft, "--keys", offline, "--yes")
    done("keys", "sign", draft, "--keys", pipeline, "--yes")
    done("keys", "submit", draft, "--yes", *where)
    refused = whimbrel("floor", "renew", "wake", "--keys", pipeline, *where)
    assert (refused.status, "bring the others into this folder" in refused.err) == (4, True), refused
    done("keys", "threshold", "floor-wake", 1, "--yes", *where)
    done("floor", "renew", "wake", "--keys", pipeline, *where)
    keys = next(each for each in done("keys", "status", *where)["roles"] if each["role"] == "floor-wake")["keys"]
    mine = KeyFolder(pipeline).named("ci").public.keyid
    (office,) = [each["keyid"] for each in keys if each["keyid"] != mine]
    done("keys", "revoke", "floor-wake", office, "--yes", *where)  # the other key signed the floor that holds
    renew = whimbrel("keys", "renew", "floor-wake", "--yes", *where)
    assert "whimbrel floor renew wake" in renew.err
    assert done("floor", "renew", "wake", "--keys", pipeline, *where)[0]["sequence"] == 1
    with serving(folder) as server:
        options = AgentOptions(server=server.devices, root=folder / "root.json", models=["wake"], probes=AllGood())
        with Agent.open(tmp_path / "device", options) as agent:
            assert agent.cycle(force=True).models["wake"]["serial"] == 1


def test_a_rotation_that_is_refused_leaves_no_new_key(opened: Repository) -> None:
    """Each try that lacked `--yes` left a private key that nobody had asked for in the folder of offline keys."""
    keys = opened.folder.offline_keys
    before = sorted(keys.iterdir())
    said = whimbrel("keys", "rotate", "publisher-wake", "-R", opened.folder.path)
    assert (said.status, "--yes" in said.err) == (4, True)
    assert sorted(keys.iterdir()) == before


def test_root_is_not_copied_before_its_own_keys_have_signed(opened: Repository, clock: Clock) -> None:
    """A device that saw the new root and the old timestamp would refuse both."""
    published(opened)
    key = make_signer(opened.folder.online_keys / "timestamp-2.pem").public_key

    def change(ceremony: Ceremony) -> None:
        (old,) = ceremony.keys_of("timestamp").keyids
        ceremony.add("timestamp", key)
        ceremony.revoke("timestamp", old)

    changed(opened, clock, change)
    assert opened.controllers.publishing._files_to_copy("default")[1] == []
    published(opened)
    folder = opened.folder.artifacts_folder
    assert folder is not None
    root, timestamp = (
        Metadata.from_bytes((folder / "default" / "metadata" / name).read_bytes())
        for name in ("2.root.json", "timestamp.json")
    )
    root.signed.verify_delegate("timestamp", timestamp.signed_bytes, timestamp.signatures)


def test_warning_is_told_at_each_step_once_and_ended_by_a_new_signature(opened: Repository, clock: Clock) -> None:
    def told() -> list[tuple[str | None, str]]:
        with transaction(opened.database, "default") as stores:
            entries = stores.alerts.entries(now=clock.now, without=set())
            return [(event_of(entry), entry.evidence["role"]) for _, entry in entries if "role" in entry.evidence]

    assert opened.controllers.leader.take()
    with transaction(opened.database, "default") as stores:
        end = stores.roles.expires("root")
    opened.controllers.expiry.warn("default")
    assert told() == []
    for count, step_s in enumerate(STEPS_S, 1):
        for moment in (end - step_s + 1, end - step_s + 120):
            clock.now = moment
            assert opened.controllers.leader.take()
            opened.controllers.expiry.warn("default")
        with transaction(opened.database, "default") as stores:
            log = [each for each in stores.registry.audit_log(limit=200) if each.evidence.get("role") == "root"]
        assert [each.action for each in log] == ["notice_expiry"] * count
    assert told().count(("metadata_expires", "root")) >= 1
    clock.now = end - 86400.0
    changed(opened, clock, lambda ceremony: ceremony.renew("root"))
    clock.now += 120
    assert opened.controllers.leader.take()
    opened.controllers.expiry.warn("default")
    assert ("metadata_renewed", "root") in told()


def test_every_command_says_what_expires_soon(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo", versions=1)
    root = Metadata.from_bytes((folder / "root.json").read_bytes())
    root.signed.version += 1
    root.signed.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=20, hours=1)
    root.signatures.clear()
    add_signature(root, load_signer(folder / "keys" / "offline" / "root.pem"))
    with open_repository(Folder.open(folder)) as opened, transaction(opened.database, "default") as stores:
        documents = {"root": root.to_bytes(SERIALIZER)}
        stores.keys.accept(documents, holds=opened.signers.holds, now=datetime.now(UTC))
    warned = done("keys", "status", "-R", folder)["roles"][0]["warning"]
    assert "root expires on" in warned
    assert "in 20 days" in warned
    done("keys", "renew", "publisher-wake", "--yes", "-R", folder)  # a change lets the leader look
    listed = whimbrel("model", "list", "-R", folder)
    assert listed.status == 0
    assert listed.err.startswith("note: root expires on")
    assert whimbrel("model", "list", "-R", folder, "--json").err == ""
    done("keys", "renew", "root", "--yes", "-R", folder)
    done("keys", "renew", "publisher-wake", "--yes", "-R", folder)
    assert whimbrel("model", "list", "-R", folder).err == ""


def test_versions_are_signed_by_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publisher's key in a PKCS#11 token: handed over by a ceremony, and used by `publish` and `version revoke`."""
    folder = repository(tmp_path / "repo", versions=1)
    uri = token(monkeypatch, keyid=3)
    keys, public = tmp_path / "release", tmp_path / "release.pub.json"
    done("keys", "init", "release", "--keys", keys, "--uri", uri, "--public", public)
    draft = tmp_path / "to-token.json"
    done("keys", "rotate", "publisher-wake", "--to", public, "--draft", draft, "-R", folder)
    done("keys", "sign", draft, "--keys", folder / "keys" / "offline", "--yes")
    done("keys", "sign", draft, "--keys", keys, "--yes")
    done("keys", "submit", draft, "--yes", "-R", folder)
    done("publish", "-m", "wake", model_file(tmp_path, 2), "-R", folder, "--keys", keys)
    done("version", "revoke", "1", "-m", "wake", "-R", folder, "--keys", keys, "--yes")
    monkeypatch.setenv("WHIMBREL_HSM_PIN", "")
    ask_secret.cache_clear()  # it is asked for once a process
    refused = whimbrel("publish", "-m", "wake", model_file(tmp_path, 3), "-R", folder, "--keys", keys)
    assert (refused.status, "WHIMBREL_HSM_PIN" in refused.err) == (4, True), refused
