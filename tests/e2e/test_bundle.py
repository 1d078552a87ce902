"""Versions on a stick: the same checks, no network; and devices that were away."""

import time
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from support import server as server_support
from support.agents import AllGood
from support.repository import Repository, Server, onnx_model
from support.server import done, model_file, whimbrel
from whimbrel import Agent, AgentOptions, limits
from whimbrel.delta.codec import encode_bytes
from whimbrel.device.conditions import Situation
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import digest_of, encode
from whimbrel.model.ways import DeltaIndex, Step
from whimbrel.policy.policy import Conditions
from whimbrel.trust import roles

pytestmark = pytest.mark.long
DAY_S = 86400.0
CONTENTS = {serial: onnx_model(factor=float(serial), padding=30_000) for serial in (1, 2)}
STATIC = "metadata/", "targets/"


@pytest.fixture
def repository() -> Repository:
    made = Repository()
    for serial, content in CONTENTS.items():
        made.release("detector", serial, content)
    made.policy("detector", baseline=1)
    return made


def stick(repository: Repository, path: Path, *, without: str = "", packing: int = zipfile.ZIP_STORED) -> Path:
    """A bundle of everything that a repository serves."""
    with zipfile.ZipFile(path, "w", packing) as file:
        for name, content in repository.files.items():
            file.writestr(name, content)
        for digest, content in repository.blobs.items():
            if digest != without:
                file.writestr(f"artifacts/{digest}", content)
    return path


@pytest.fixture
def agent(tmp_path: Path, repository: Repository) -> Iterator[Agent]:
    with Agent.open(
        tmp_path / "device",
        AgentOptions(
            server="http://127.0.0.1:9",
            root=repository.root_bytes,
            probes=AllGood(),
            situation=lambda: Situation(unmetered=False),
            models=["detector"],
        ),
    ) as made:
        yield made


def test_device_without_a_network_takes_a_bundle(agent: Agent, repository: Repository, tmp_path: Path) -> None:
    result = agent.import_bundle(stick(repository, tmp_path / "stick"))
    assert (result.models["detector"]["state"], result.problems) == ("on trial", ())
    with agent.session("detector") as model:
        assert model.path.read_bytes() == CONTENTS[1]


def test_bundle_that_travelled_for_weeks_is_taken_and_staleness_is_said(
    agent: Agent, repository: Repository, tmp_path: Path
) -> None:
    result = agent.import_bundle(stick(repository, tmp_path / "stick"), time.time() + 20 * DAY_S)
    assert result.models["detector"]["serial"] == 1
    assert agent.status()["stale_s"] == pytest.approx(19 * DAY_S, abs=60)


def test_bundle_that_is_older_than_a_month_is_refused(agent: Agent, repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(UntrustedInput, match="31 days ago"):
        agent.import_bundle(stick(repository, tmp_path / "stick"), time.time() + 31 * DAY_S)


def test_bundle_activates_after_its_sessions_however_old_its_policy_is_by_then(
    agent: Agent, repository: Repository, tmp_path: Path
) -> None:
    agent.import_bundle(stick(repository, tmp_path / "one"))
    for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
        with agent.session("detector"):
            pass
    agent.cycle()
    repository.policy("detector", baseline=2, conditions=Conditions(unmetered=True, start_jitter_s=5000))
    with agent.session("detector"):
        assert agent.import_bundle(stick(repository, tmp_path / "two")).models["detector"]["state"] == "ready"
    repository.policy("detector", baseline=2)
    found = agent.import_bundle(stick(repository, tmp_path / "three"), time.time() + 2 * DAY_S)
    assert found.models["detector"]["serial"] == 2


def test_bundle_from_before_what_the_device_knows_moves_nothing(
    agent: Agent, repository: Repository, tmp_path: Path
) -> None:
    old = stick(repository, tmp_path / "old")
    repository.policy("detector", baseline=2)
    agent.import_bundle(stick(repository, tmp_path / "new"))
    result = agent.import_bundle(old)
    assert not result.refreshed
    assert (result.models["detector"]["serial"], result.models["detector"]["wanted"]) == (2, 2)


def test_bundle_with_changed_bytes_is_refused(agent: Agent, repository: Repository, tmp_path: Path) -> None:
    digest = digest_of(CONTENTS[1])
    repository.blobs[digest] = CONTENTS[1][:-1] + b"?"
    assert agent.import_bundle(stick(repository, tmp_path / "one")).models["detector"]["serial"] is None
    repository.files["metadata/1.policy-detector.json"] = b"{}"
    result = agent.import_bundle(stick(repository, tmp_path / "two"))
    assert result.problems
    assert result.models["detector"]["serial"] is None


def test_bundle_comes_whole_however_long_it_takes_and_whatever_a_network_may_cost(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass of a download ended after a minute, and the next import began anew: a slow stick never came through."""
    monkeypatch.setattr(limits, "DOWNLOAD_PASS_S", -1.0)
    with Agent.open(
        tmp_path / "device",
        AgentOptions(
            server="http://127.0.0.1:9",
            root=repository.root_bytes,
            probes=AllGood(),
            mirrors=["http://127.0.0.1:9/cdn"],
            metered_mib_a_day=1,
            bandwidth_kib_s=1,
            models=["detector"],
        ),
    ) as agent:
        repository.release("detector", 3, onnx_model(padding=2 * limits.MIB))
        repository.policy("detector", baseline=3)
        result = agent.import_bundle(stick(repository, tmp_path / "stick"))
        assert (result.models["detector"]["serial"], result.problems) == (3, ())
        assert not (tmp_path / "device/budget.json").exists()


def test_bundle_is_taken_by_a_device_that_waits_for_its_server(tmp_path: Path, repository: Repository) -> None:
    """It waited for the server's time to come, with the bytes in its hand."""
    with Server(repository) as server, opened(tmp_path, server) as agent:
        server.faults[f"artifacts/{digest_of(CONTENTS[1])}"] = lambda to: busy(to, 3000)
        assert agent.cycle().models["detector"]["state"] == "downloading"
        server.down = True
        result = agent.import_bundle(stick(repository, tmp_path / "stick"))
        assert (result.models["detector"]["serial"], result.problems) == (1, ())


def test_bundle_moves_the_models_that_it_holds_and_no_other(tmp_path: Path) -> None:
    repository = Repository(models=("detector", "wake"))
    for model in repository.models:
        repository.release(model, 1, CONTENTS[1])
        repository.policy(model, baseline=1, activate_max_age_s=600)
    path = stick(repository, tmp_path / "stick")
    one = tmp_path / "one"
    with zipfile.ZipFile(path) as both, zipfile.ZipFile(one, "w") as file:
        for name in both.namelist():
            if "wake" not in name:
                file.writestr(name, both.read(name))
    with Agent.open(
        tmp_path / "device",
        AgentOptions(
            server="http://127.0.0.1:9", root=repository.root_bytes, models=["detector", "wake"], probes=AllGood()
        ),
    ) as agent:
        result = agent.import_bundle(one)
        assert ([each["serial"] for each in result.models.values()], result.problems) == ([1, None], ())
        result = agent.import_bundle(path)
        assert ([each["serial"] for each in result.models.values()], result.problems) == ([1, 1], ())


def test_bundle_of_one_model_makes_no_old_policy_of_another_fresh(tmp_path: Path) -> None:
    repository = Repository(models=("detector", "wake"))
    for model in repository.models:
        repository.release(model, 1, CONTENTS[1])
    repository.release("wake", 2, CONTENTS[2])
    repository.policy("detector", baseline=1)
    repository.policy("wake", baseline=1, activate_max_age_s=600)
    now = time.time()
    with Server(repository) as server, opened(tmp_path, server, models=["detector", "wake"]) as agent:
        agent.cycle(now)
        for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
            with agent.session("wake"):
                pass
        repository.policy("wake", baseline=2, activate_max_age_s=600)
        with agent.session("wake"):
            assert agent.cycle(now + 1, force=True).models["wake"]["state"] == "ready"
        server.down = True
        with (
            zipfile.ZipFile(stick(repository, tmp_path / "both")) as both,
            zipfile.ZipFile(tmp_path / "one", "w") as file,
        ):
            for name in both.namelist():
                if "wake" not in name:
                    file.writestr(name, both.read(name))
        assert agent.import_bundle(tmp_path / "one", now + 7200).problems == ()
        assert agent.cycle(now + 7201).models["wake"]["serial"] == 1


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 1000])
def test_file_that_is_no_bundle_is_refused(agent: Agent, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stick").write_bytes(content)
    with pytest.raises(UntrustedInput, match="is no bundle"):
        agent.import_bundle(tmp_path / "stick")


def test_compressed_zip_is_no_bundle(agent: Agent, repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(UntrustedInput, match="are compressed"):
        agent.import_bundle(stick(repository, tmp_path / "stick", packing=zipfile.ZIP_DEFLATED))


def test_bundle_with_a_patch_is_enough_where_its_base_is(agent: Agent, repository: Repository, tmp_path: Path) -> None:
    agent.import_bundle(stick(repository, tmp_path / "one"))
    for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
        with agent.session("detector"):
            pass
    patch = encode_bytes(CONTENTS[1], CONTENTS[2])
    step = Step(
        base=digest_of(CONTENTS[1]),
        target=digest_of(CONTENTS[2]),
        target_bytes=len(CONTENTS[2]),
        sha256=repository.blob(patch),
        size_bytes=len(patch),
    )
    index = DeltaIndex(model="detector", serial=2, steps=(step,))
    repository.put(roles.policy_role("detector"), roles.deltas_path("detector", 2), encode(index))
    repository.policy("detector", baseline=2)
    result = agent.import_bundle(stick(repository, tmp_path / "two", without=digest_of(CONTENTS[2])))
    assert result.models["detector"]["serial"] == 2


@pytest.mark.parametrize("timestamp", [b"", b"{}", b"[" * 100_000, b'{"signed":{"expires":"soon"}}'])
def test_timestamp_that_cannot_be_read_is_said(
    agent: Agent, repository: Repository, tmp_path: Path, timestamp: bytes
) -> None:
    repository.files["metadata/timestamp.json"] = timestamp
    with pytest.raises(UntrustedInput, match="the bundle's timestamp cannot be read"):
        agent.import_bundle(stick(repository, tmp_path / "stick"))


# --- export, from a real repository ---


def test_export_from_a_folder_and_import_on_a_device(tmp_path: Path) -> None:
    folder = server_support.repository(tmp_path / "repository")
    out = done("bundle", "export", "-m", "wake", tmp_path / "stick", "-R", folder)
    assert out["serials"] == [1]
    assert out["size_bytes"] == (tmp_path / "stick").stat().st_size
    with Agent.open(
        tmp_path / "device",
        AgentOptions(server="http://127.0.0.1:9", root=folder / "root.json", models=["wake"], probes=AllGood()),
    ):
        pass
    said = done("agent", "import", tmp_path / "stick", "--folder", tmp_path / "device")
    assert said["models"]["wake"]["serial"] == 1
    assert whimbrel("bundle", "export", "-m", "wake", tmp_path / "stick", "-R", folder).status == 2


def test_import_on_a_device_that_never_saw_a_server(tmp_path: Path) -> None:
    """It said that the folder has no settings, and asked for a server, which such a device does not have."""
    folder = server_support.repository(tmp_path / "repository")
    done("bundle", "export", "-m", "wake", tmp_path / "stick", "-R", folder)
    device = tmp_path / "device"
    said = whimbrel("agent", "import", tmp_path / "stick", "--folder", device)
    assert (said.status, "(missing: root)" in said.err) == (4, True)
    said = done("agent", "import", tmp_path / "stick", "--folder", device, "--root", folder / "root.json")
    assert (said["models"]["wake"]["serial"], said["problems"]) == (1, [])
    with Agent.open(device, AgentOptions(probes=AllGood())) as agent:
        for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
            with agent.session("wake") as model:
                assert model.serial == 1
        result = agent.cycle()
        assert result.models["wake"]["state"] == "committed"
        assert any("no server yet" in problem for problem in result.problems)
        assert result.next_s > 0
    with server_support.serving(folder) as server, Agent.open(device, AgentOptions(server=server.devices)) as agent:
        assert agent.cycle(force=True).problems == ()


def test_export_from_a_server_is_the_same(tmp_path: Path) -> None:
    folder = server_support.repository(tmp_path / "repository")
    with server_support.serving(folder) as server:
        done("bundle", "export", "-m", "wake", tmp_path / "one", "--server", server.devices)
    done("bundle", "export", "-m", "wake", tmp_path / "two", "-R", folder)
    names = [set(zipfile.ZipFile(tmp_path / each).namelist()) for each in ("one", "two")]
    assert names[0] - {"metadata/timestamp.json"} <= names[1] | names[0]
    assert {name for name in names[0] if name.startswith("artifacts/")} == {
        f"artifacts/{digest_of(model_file(tmp_path, 1).read_bytes())}"
    }


def test_export_with_a_base_leaves_out_what_is_there(tmp_path: Path) -> None:
    folder = server_support.repository(tmp_path / "repository")
    done("bundle", "export", "-m", "wake", tmp_path / "stick", "-R", folder, "--base", "1.0.0")
    assert not [name for name in zipfile.ZipFile(tmp_path / "stick").namelist() if name.startswith("artifacts/")]
    said = whimbrel("bundle", "export", "-m", "wake", tmp_path / "other", "-R", folder, "--base", "9.0.0")
    assert (said.status, "no version '9.0.0'" in said.err) == (4, True)
    assert whimbrel("bundle", "export", "-m", "nothing", tmp_path / "other", "-R", folder).status == 4
    assert not (tmp_path / "other").exists()


def test_bundle_holds_what_its_versions_require_and_a_set_comes_as_one(tmp_path: Path) -> None:
    folder = server_support.repository(tmp_path / "repository")
    done("model", "add", "encoder", "-R", folder)
    (tmp_path / "card.yaml").write_text("requires: [{model: wake, serial: 1}]\n")
    done("publish", "--model", "encoder", model_file(tmp_path, 9), "-R", folder, "--card", tmp_path / "card.yaml")
    out = done("bundle", "export", "-m", "encoder", tmp_path / "stick", "-R", folder)
    assert (out["serials"], out["with"]) == ([1], {"wake": [1]})
    with Agent.open(
        tmp_path / "device",
        AgentOptions(server="http://127.0.0.1:9", root=folder / "root.json", models=["encoder", "wake"]),
    ):
        pass
    said = done("agent", "import", tmp_path / "stick", "--folder", tmp_path / "device")
    assert {name: found["serial"] for name, found in said["models"].items()} == {"encoder": 1, "wake": 1}


def test_import_of_a_version_that_fails_here_says_why_and_ends_with_3(tmp_path: Path) -> None:
    """It ended with 0, and said only that the model is quarantined."""
    folder = server_support.repository(tmp_path / "repository")
    done("model", "add", "bad", "-R", folder)
    card = tmp_path / "card.yaml"
    card.write_text("probe: {latency_ms_max: 0.000001}\n")
    done("publish", "-m", "bad", model_file(tmp_path, 9), "-R", folder, "--card", card, "--unchecked")
    done("bundle", "export", "-m", "bad", tmp_path / "stick", "-R", folder)
    said = whimbrel(
        *("agent", "import", tmp_path / "stick", "--folder", tmp_path / "device", "--root", folder / "root.json")
    )
    assert (said.status, "bad: this device refuses serial 1: " in said.err) == (3, True), said


def test_import_that_brings_nothing_says_so_by_its_status(tmp_path: Path) -> None:
    """It said nothing: a stick of another model, or one without the bytes, ended with status 0."""
    folder = server_support.repository(tmp_path / "repository")
    done("model", "add", "other", "-R", folder)
    done("publish", "--model", "other", model_file(tmp_path, 9), "-R", folder)
    for model in ("wake", "other"):
        done("bundle", "export", "-m", model, tmp_path / model, "-R", folder)
    with Agent.open(
        tmp_path / "device", AgentOptions(server="http://127.0.0.1:9", root=folder / "root.json", models=["wake"])
    ):
        pass
    said = whimbrel("agent", "import", tmp_path / "other", "--folder", tmp_path / "device")
    assert (said.status, "holds other; this agent keeps wake" in said.err) == (2, True)
    with zipfile.ZipFile(tmp_path / "wake") as whole, zipfile.ZipFile(tmp_path / "part", "w") as part:
        for name in whole.namelist():
            if not name.startswith("artifacts/"):
                part.writestr(name, whole.read(name))
    said = whimbrel("agent", "import", tmp_path / "part", "--folder", tmp_path / "device", "--json")
    assert (said.status, said.json["models"]["wake"]["state"]) == (3, "downloading")
    assert "answered 404" in said.err


# --- away for weeks ---


def rotate(repository: Repository, times: int) -> None:
    """New roots, each with a new key, signed by the old one too."""
    for _ in range(times):
        old, new = repository.signers["root"], CryptoSigner.generate_ed25519()
        repository.root.revoke_key(old.public_key.keyid, "root")
        repository.root.add_key(new.public_key, "root")
        repository.root.version += 1
        metadata = Metadata(repository.root)
        metadata.sign(old)
        metadata.sign(new, append=True)
        repository.files[f"metadata/{repository.root.version}.root.json"] = metadata.to_bytes()
        repository.signers["root"] = new


def busy(handler: BaseHTTPRequestHandler, seconds: int) -> None:
    handler.send_response(503)
    handler.send_header("Retry-After", str(seconds))
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def opened(tmp_path: Path, server: Server, **changes: object) -> Agent:
    root, probes = server.repository.root_bytes, AllGood()
    given = {"server": server.url, "root": root, "models": ["detector"], "probes": probes, **changes}
    return Agent.open(tmp_path / "device", AgentOptions(**given))


def test_root_rotations_that_were_missed_are_followed_one_by_one(tmp_path: Path, repository: Repository) -> None:
    with Server(repository) as server, opened(tmp_path, server) as agent:
        agent.cycle()
        rotate(repository, 5)
        repository.policy("detector", baseline=2)
        result = agent.cycle(force=True)
        assert (result.models["detector"]["wanted"], result.problems) == (2, ())


def test_other_keys_of_every_role_are_followed_and_the_old_ones_move_nothing(
    tmp_path: Path, repository: Repository
) -> None:
    with Server(repository) as server, opened(tmp_path, server) as agent:
        agent.cycle()
        stolen = dict(repository.signers)
        for _ in range(2):
            repository.new_keys()
        repository.policy("detector", baseline=2)
        result = agent.cycle(force=True)
        assert (result.models["detector"]["wanted"], result.problems) == (2, ())
        for role in ("timestamp", roles.policy_role("detector")):
            kept, repository.signers[role] = repository.signers[role], stolen[role]
            repository.policy("detector", baseline=1)
            result = agent.cycle(force=True)
            assert result.models["detector"]["wanted"] == 2
            assert any("not signed by the key that it needs" in problem for problem in result.problems)
            repository.signers[role] = kept
        repository.policy("detector", baseline=1)
        assert agent.cycle(force=True).models["detector"]["wanted"] == 1


def test_expired_metadata_keeps_the_model_running_and_says_how_stale_it_is(
    tmp_path: Path, repository: Repository
) -> None:
    with Server(repository) as server, opened(tmp_path, server) as agent:
        agent.cycle()
        server.down = True
        later = time.time() + 21 * DAY_S
        result = agent.cycle(later, force=True)
        assert (result.models["detector"]["serial"], result.models["detector"]["wanted"]) == (1, 1)
        assert agent.status()["stale_s"] == pytest.approx(20 * DAY_S, abs=120)
        with agent.session("detector") as model:
            assert model.serial == 1
        server.down = False
        repository.now += timedelta(days=21)
        repository.timestamp.expires = repository.now + roles.TIMESTAMP_LIFE
        repository.policy("detector", baseline=2)
        assert agent.cycle(later, force=True).models["detector"]["wanted"] == 2
        assert agent.status()["stale_s"] == 0


@pytest.mark.parametrize("clock", [0.0, 4e9])
def test_wrong_clock_breaks_nothing_that_runs(tmp_path: Path, repository: Repository, clock: float) -> None:
    with Server(repository) as server, opened(tmp_path, server) as agent:
        agent.cycle()
        result = agent.cycle(clock, force=True)
        assert result.models["detector"]["serial"] == 1
        assert bool(result.problems) is (clock > 1e9)  # a clock that is far ahead trusts nothing that is signed now
        assert agent.cycle(force=True).problems == ()


def test_server_that_moved_is_followed_by_the_settings(tmp_path: Path, repository: Repository) -> None:
    with Server(repository) as server, opened(tmp_path, server) as agent:
        agent.cycle()
    repository.policy("detector", baseline=2)
    with (
        Server(repository) as moved,
        Agent.open(tmp_path / "device", AgentOptions(server=moved.url, probes=AllGood())) as agent,
    ):
        result = agent.cycle(force=True)
        assert (result.models["detector"]["wanted"], result.problems) == (2, ())
