"""A version's provenance: what `publish` is told and verifies, what is kept, and what people are answered later."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from support.model_signing import Authority, key_files, sign_model
from support.repository import onnx_model
from support.server import done, repository, whimbrel
from whimbrel.cli import publish_provenance

pytestmark = pytest.mark.long

ANNA = "anna@example.com"
PLAN = "rollout: {model_version: wake@1.0.1, stages: [{name: a, target_percent: 50}, {name: b, target_percent: 100}]}\n"
DIGEST = hashlib.sha256(b"data").hexdigest()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return repository(tmp_path / "repo", versions=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return handed_over(tmp_path / "handed-over")


def handed_over(folder: Path) -> Path:
    """A folder with a model, as a team hands it over."""
    folder.mkdir()
    (folder / "wake.onnx").write_bytes(onnx_model(factor=3.0))
    (folder / "README.md").write_text("a model")
    return folder


def publish(repo: Path, model: Path, *options: object) -> Any:
    return done("publish", "-m", "wake", model / "wake.onnx", *options, "--no-deltas", "-R", repo)


class Told:
    """A repository with a version of which everything is said: it has the serial 2."""

    def __init__(self, place: Path) -> None:
        self.repo = repository(place / "repo", versions=1)
        self.model = handed_over(place / "team")
        private, public = key_files(place / "keys")
        self.bundle = sign_model(self.model, private, place / "model.sig")
        (place / "train.py").write_text("pass")
        recipe = place / "recipe.yaml"
        recipe.write_text("command: [python3, train.py]\ninputs: [train.py]\noutputs: [wake.onnx]\n")
        self.options: tuple[object, ...] = (
            *("--dataset", f"speech@{DIGEST}", "--code", "https://git.example.com/ml/wake@1f3b5a7"),
            *("--framework", "numpy 2", "--parent", "wake@1.0.0", "--recipe", recipe, "--metric", "accuracy=0.9"),
            *("--model-signature", self.bundle, "--model-signature-key", public),
        )
        publish(self.repo, self.model, *self.options)

    def provenance(self, *options: object) -> Any:
        return done("version", "provenance", "2", "-m", "wake", "-R", self.repo, *options)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return Told(tmp_path_factory.mktemp("told"))


def refusal(*arguments: object) -> str:
    answer = whimbrel(*arguments)
    assert answer.status != 0, answer.out
    assert "Traceback" not in answer.err
    return " ".join(answer.err.split())


def stored(repo: Path) -> int:
    return sum(1 for each in (repo / "blobs").rglob("*") if each.is_file())


def test_what_a_publisher_says_is_signed_and_answered(told: Told) -> None:
    answer = told.provenance()
    assert answer["datasets"] == [{"name": "speech", "digest": f"sha256:{DIGEST}"}]
    assert answer["code"] == {"url": "https://git.example.com/ml/wake", "commit": "1f3b5a7"}
    assert answer["parents"] == [{"model": "wake", "serial": 1, "version": answer["parents"][0]["version"]}]
    assert answer["framework"] == "numpy 2"
    assert answer["published_by"]
    assert len(answer["release_signed_by"]) == 1
    (signature,) = answer["model_signatures"]
    assert signature["signer"].startswith("key sha256:")
    assert signature["bundle"]["sha256"] == hashlib.sha256(told.bundle.read_bytes()).hexdigest()
    assert answer["recipe"]["size_bytes"] > 0
    assert publish(told.repo, told.model, *told.options)["already_published"]  # the same again changes nothing


def test_a_model_signature_is_verified_again_later(told: Told, tmp_path: Path) -> None:
    (verified,) = told.provenance("--verify")["verified"]
    assert (verified["problem"], verified["not_again"]) == (None, [])
    words = whimbrel("version", "provenance", "2", "-m", "wake", "-R", told.repo, "--verify").out
    assert f"speech (sha256:{DIGEST})" in words
    assert "is over these files: good, verified here against what the publisher recorded" in " ".join(words.split())
    _, other = key_files(tmp_path / "other")
    options = ("-m", "wake", "-R", told.repo, "--verify", "--model-signature-key", other)
    assert "signed with another key" in refusal("version", "provenance", "2", *options)


def test_a_bundle_that_was_changed_in_the_store_is_found(told: Told, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(told.repo, tmp_path / "repo"))
    digest = told.provenance()["model_signatures"][0]["bundle"]["sha256"]
    (place,) = (each for each in copy.rglob(digest) if each.is_file())
    place.write_bytes(b"another")
    assert "another file came" in refusal("version", "provenance", "2", "-m", "wake", "-R", copy, "--verify")


def test_what_is_kept_is_not_collected(told: Told) -> None:
    digests = {
        each["sha256"] for each in (told.provenance()["recipe"], told.provenance()["model_signatures"][0]["anchor"])
    }
    assert digests.isdisjoint(done("collect", "--older-than-hours", "0", "--dry-run", "-R", told.repo)["collected"])


def test_who_let_it_out_is_told(told: Told, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(told.repo, tmp_path / "repo"))
    (plan := tmp_path / "plan.yaml").write_text(PLAN)
    rollout = done("rollout", "start", plan, "-R", copy)["id"]
    (let_out,) = done("version", "provenance", "2", "-m", "wake", "-R", copy)["rollouts"]
    assert (let_out["id"], bool(let_out["started_by"])) == (rollout, True)


def test_what_nobody_said_is_unknown(told: Told) -> None:
    answer = done("version", "provenance", "1", "-m", "wake", "-R", told.repo)
    unknown = {name: answer[name] for name in ("datasets", "code", "framework", "parents", "recipe")}
    assert unknown == {"datasets": [], "code": None, "framework": "", "parents": [], "recipe": None}
    words = whimbrel("version", "provenance", "1", "-m", "wake", "-R", told.repo).out
    for what in ("data", "code", "framework", "made from", "recipe", "model signed by"):
        assert f"{what:<17} unknown" in words
    options = ("-m", "wake", "-R", told.repo, "--verify")
    assert "no model signature was given" in refusal("version", "provenance", "1", *options)


def test_the_bill_of_materials_is_valid(told: Told) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    texts = [
        whimbrel("version", "provenance", version, "-m", "wake", "-R", told.repo, "--format", "cyclonedx").out
        for version in ("1", "2", "2")  # with nothing said, and with everything
    ]
    assert [validator.validate_str(text) for text in texts] == [None, None, None]
    nothing, bill, again = map(json.loads, texts)
    component = bill["metadata"]["component"]
    assert component["type"] == "machine-learning-model"
    metrics = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert metrics == [{"type": "accuracy", "value": "0.9"}]
    assert {each["type"] for each in bill["components"]} == {"data", "file", "framework"}
    assert component["pedigree"]["ancestors"][0]["name"] == "wake"
    assert again["serialNumber"] == bill["serialNumber"] != nothing["serialNumber"]
    facts = {each["name"]: each["value"] for each in nothing["metadata"]["component"]["properties"]}
    assert facts["whimbrel:unknown"] == "data, code, framework, made from, recipe, model signed by"


def test_what_cannot_be_so_is_refused_and_nothing_is_published(repo: Path, model: Path) -> None:
    for options, words in (
        (("--parent", "wake@9.9.9"), "has no version '9.9.9'"),
        (("--parent", "nobody@1.0.0"), "nobody"),
        (("--code", "https://git.example.com/x@main"), "expected URL@COMMIT"),
        (("--code", "https://me:secret@git.example.com/x@1f3b5a7"), "user name or password"),
        (("--dataset", "speech@12"), "is none of sha256"),
        (("--model-signature-key", model / "README.md"), "no signature is given"),
        (("--model-signature", model / "README.md"), "who must have signed?"),
        (("--recipe", model / "README.md"), "README.md"),
    ):
        answer = refusal("publish", "-m", "wake", model / "wake.onnx", *options, "-R", repo)
        assert words in answer
    assert len(done("version", "list", "-m", "wake", "-R", repo)) == 1


def test_bytes_that_were_not_signed_are_not_uploaded(repo: Path, model: Path, tmp_path: Path) -> None:
    private, public = key_files(tmp_path / "keys")
    bundle = sign_model(model, private, tmp_path / "model.sig")
    (model / "wake.onnx").write_bytes(onnx_model(factor=4.0))
    before = stored(repo)
    options = ("--model-signature", bundle, "--model-signature-key", public, "-R", repo)
    assert "is not over what would be published: 'wake.onnx' has the SHA-256" in refusal(
        "publish", "-m", "wake", model / "wake.onnx", *options
    )
    assert stored(repo) == before


def test_a_model_that_demands_a_signer_takes_no_other(repo: Path, model: Path, tmp_path: Path) -> None:
    root, other = Authority(tmp_path / "root"), Authority(tmp_path / "other", "other")
    done("model", "set", "wake", "--model-signer-root", root.file, "--model-signer-identity", ANNA, "-R", repo)
    start = ("publish", "-m", "wake", model / "wake.onnx", "-R", repo)
    assert f"demands a model signature by {ANNA}" in refusal(*start)
    mallory = root.sign(model, tmp_path / "m.sig", identity="mallory@example.com")
    assert "signed by mallory@example.com" in refusal(*start, "--model-signature", mallory)
    strange = other.sign(model, tmp_path / "o.sig", identity=ANNA)
    assert "no root that is asked for vouches" in refusal(*start, "--model-signature", strange)
    assert "demands another signer" in refusal(
        *start, "--model-signature", strange, "--certificate-chain", other.file, "--model-signature-identity", ANNA
    )
    anna = root.sign(model, tmp_path / "a.sig", identity=ANNA)
    published = publish(repo, model, "--model-signature", anna)
    answer = done("version", "provenance", published["version"], "-m", "wake", "-R", repo, "--verify")
    assert answer["model_signatures"][0]["signer"] == ANNA
    assert answer["verified"][0]["problem"] is None
    done("model", "set", "wake", "--no-model-signer", "-R", repo)
    (model / "wake.onnx").write_bytes(onnx_model(factor=5.0))
    publish(repo, model)


def test_the_server_takes_no_version_whose_publisher_skipped_the_check(
    repo: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds the publisher's key may send what another program made."""
    private, public = key_files(tmp_path / "keys")
    done("model", "set", "wake", "--model-signer-key", public, "-R", repo)
    with monkeypatch.context() as patch:
        patch.setattr(publish_provenance, "_verified", lambda *_, **__: ())
        start = ("publish", "-m", "wake", model / "wake.onnx", "-R", repo)
        assert "demands a model signature by key sha256:" in refusal(*start)
    bundle = sign_model(model, private, tmp_path / "model.sig")
    (model / "wake.onnx").write_bytes(onnx_model(factor=4.0))
    with monkeypatch.context() as patch:
        patch.setattr(publish_provenance, "uncovered", lambda *_: None)
        assert "not over the variant" in refusal(*start, "--model-signature", bundle)
    assert len(done("version", "list", "-m", "wake", "-R", repo)) == 1
