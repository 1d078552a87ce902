"""A sealed model travels: published as age files, its key handed to entitled devices, opened on the device alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.sealing import CONTENTS, opened, options, publish, sealed_repository, token_for
from support.server import Running, done, serving, whimbrel
from whimbrel import Agent
from whimbrel.model.documents import digest_of

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(sealed_repository(tmp_path_factory.mktemp("sealed") / "repo")) as made:
        yield made


def test_entitled_device_opens_what_it_gets_and_nothing_sealed_is_left(running: Running, tmp_path: Path) -> None:
    token = token_for(running, "entitled", "tier=pro")
    with Agent.open(tmp_path / "device", options(running, "dev-pro", token)) as agent:
        result = agent.cycle(force=True)
        assert (result.problems, result.models["secret"]["serial"]) == ((), 1)
        assert opened(agent) == CONTENTS[1]
        assert list((tmp_path / "device" / "incoming").iterdir()) == []
    entry = next(each for each in done("audit", "-R", running.folder) if each["action"] == "hand_out_release_key")
    assert (entry["actor"], entry["model"], entry["evidence"]["serial"]) == ("dev-pro", "secret", 1)


def test_device_that_is_not_entitled_waits_with_the_reason_and_refuses_no_version(
    running: Running, tmp_path: Path
) -> None:
    """And fetches nothing; an operator's label lets it go on."""
    token = token_for(running, "plain")
    with Agent.open(tmp_path / "device", options(running, "dev-plain", token)) as agent:
        status = agent.cycle(force=True).models["secret"]
        assert status["serial"] is None
        assert "dev-plain is not entitled: the keys of this model are for tier=pro" in status["waits_for"]
        assert status["refused"] == {}
        assert not (tmp_path / "device" / "incoming").exists()
        done("device", "label", "dev-plain", "tier=pro", "--because", "bought it", "-R", running.folder)
    with Agent.open(tmp_path / "device", options(running, "dev-plain", token)) as agent:
        assert agent.cycle(force=True).models["secret"]["serial"] == 1


def test_device_without_a_token_is_told_why_it_gets_no_key(running: Running, tmp_path: Path) -> None:
    with Agent.open(tmp_path / "device", options(running, "dev-unknown", None)) as agent:
        status = agent.cycle(force=True).models["secret"]
        assert status["serial"] is None
        assert "no enrolment token" in status["waits_for"]


def test_versions_travel_as_sealed_patches_that_their_publisher_makes(tmp_path: Path) -> None:
    folder = sealed_repository(tmp_path / "repo")
    with serving(folder) as running:
        token = token_for(running, "entitled", "tier=pro")
        with Agent.open(tmp_path / "device", options(running, "dev-pro", token)) as agent:
            agent.cycle(force=True)
            for _ in range(3):
                opened(agent)
            agent.cycle(force=True)
            said = publish(folder, 2, "--delta-from", folder.parent / "secret-1.onnx")
            (patch,) = [each for each in said["deltas"] if each["from"] != "nothing"]
            assert patch["size_bytes"] < len(CONTENTS[2]) / 2
            plan = tmp_path / "plan.yaml"
            plan.write_text(
                'rollout:\n  model_version: "secret@' + said["version"] + '"\n  stages:\n'
                "    - {name: all, target_percent: 100, duration_hours: 1}\n"
                "  holdback_percent: 0\n"
            )
            done("rollout", "start", plan, "-R", folder)
            status = agent.cycle(force=True)
            assert status.models["secret"]["serial"] == 2, status
            assert opened(agent) == CONTENTS[2]
    assert patch["sha256"] in {path.name for path in (folder / "files" / "default" / "artifacts").iterdir()}
    assert done("collect", "--yes", "--older-than-hours", "0", "-R", folder)["collected"] == []


def test_publishing_the_same_files_again_changes_nothing(running: Running) -> None:
    assert publish(running.folder, 1)["already_published"] is True


def test_publisher_is_told_of_a_file_that_lies_open_already(tmp_path: Path) -> None:
    """The model was not sealed before: whoever reads the signed release finds the plain file by its digest."""
    folder = sealed_repository(tmp_path / "repo", versions=0)
    done("model", "set", "secret", "--no-sealed", "-R", folder)
    assert publish(folder, 1)["lies_open"] == []
    done("model", "set", "secret", "--sealed", "-R", folder)
    file = folder.parent / "secret-1.onnx"
    said = whimbrel("publish", "-m", "secret", file, "-R", folder)
    assert "WARNING: secret-1.onnx lies open on the server" in said.out
    assert publish(folder, 2)["lies_open"] == []


def test_recipe_of_a_sealed_version_is_kept_open_beside_it(tmp_path: Path) -> None:
    """It was encrypted with the files, so that the server missed it, and no version with one could be published."""
    folder = sealed_repository(tmp_path / "repo", versions=0)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("command: [cp, points.csv, secret-1.onnx]\ninputs: [points.csv]\noutputs: [secret-1.onnx]\n")
    (tmp_path / "points.csv").write_text("1,2\n")
    version = publish(folder, 1, "--recipe", recipe)["version"]
    said = whimbrel("version", "provenance", version, "-m", "secret", "-R", folder)
    assert (said.status, "recorded" in said.out) == (0, True)
    stored = [path.read_bytes() for path in (folder / "files/default/artifacts").iterdir()]
    assert len([content for content in stored if not content.startswith(b"age-encryption.org/v1")]) == 1


def test_delta_from_a_file_that_no_version_has_is_refused(running: Running, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"other")
    file = tmp_path / "two.onnx"
    file.write_bytes(CONTENTS[2])
    said = whimbrel("publish", "-m", "secret", file, "--delta-from", tmp_path / "other.onnx", "-R", running.folder)
    assert (said.status, "is no file of the newest 20 versions of secret" in said.err) == (2, True)


def test_bundle_is_opened_by_the_devices_whose_keys_were_added_and_by_no_other(
    running: Running, tmp_path: Path
) -> None:
    token, bundle = token_for(running, "site", "tier=pro"), tmp_path / "site.bundle"
    done("bundle", "export", bundle, "--model", "secret", "-R", running.folder)
    said = whimbrel("bundle", "add-keys", bundle, "--for-device", "dev-site", "-R", running.folder)
    assert (said.status, "dev-site" in said.err) == (4, True)
    with Agent.open(tmp_path / "site", options(running, "dev-site", token)) as agent:
        agent.cycle(force=True)  # the server learns its recipient key
    for path in (tmp_path / "site").rglob("pointer"):
        path.unlink()  # its model is lost, and so is the network
    done("bundle", "add-keys", bundle, "--for-device", "dev-site", "-R", running.folder)
    assert whimbrel("bundle", "add-keys", bundle, "--for-device", "dev-site", "-R", running.folder).status == 4
    with Agent.open(tmp_path / "site", options(running, "dev-site", None, server="")) as agent:
        assert agent.import_bundle(bundle).models["secret"]["serial"] == 1
        assert opened(agent) == CONTENTS[1]
    with Agent.open(tmp_path / "other", options(running, "dev-other", None, server="")) as agent:
        status = agent.import_bundle(bundle).models["secret"]
        assert (status["serial"], status["refused"]) == (None, {})
        assert "this bundle has no key for this device" in status["waits_for"]


def test_a_plain_version_of_a_model_that_was_sealed_lies_open(tmp_path: Path) -> None:
    folder = sealed_repository(tmp_path / "repo", versions=0)
    done("model", "set", "secret", "--no-sealed", "-R", folder)
    publish(folder, 1)
    assert digest_of(CONTENTS[1]) in {path.name for path in (folder / "files/default/artifacts").iterdir()}
