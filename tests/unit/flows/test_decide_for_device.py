"""The thin check: a client that cannot decide gets the whole answer, of all models that must change together."""

import msgspec
import pytest

from support.values import SALT, arm, devices_in, file, line, policy, release, selector
from whimbrel.flows.decide_for_device import PublishedModel, decide_for_device
from whimbrel.model.release import Requirement, Sealed, Variant
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.policy import Entry, Layer, Policy

TREATED, CONTROL = devices_in(0, 50_000, 1)[0], devices_in(50_000, BUCKETS, 1)[0]
BUILD = {"name": "model.onnx", "size_bytes": 100, "sha256": "a" * 64, "format": "onnx"}
ONE = {
    "offer": "run",
    "serial": 1,
    "version": "2026.01.01.1",
    "semantic_version": "1.0.0",
    "variant": "any",
    "files": [BUILD],
}


def wake(**changes: object) -> PublishedModel:
    return PublishedModel(**{"policy": policy(), "line": line(), "releases": {1: release(1), 2: release(2)}} | changes)


def asked(
    models: dict[str, PublishedModel],
    *,
    runs: dict[str, int | None] | None = None,
    device: str = CONTROL,
    labels: dict[str, str] | None = None,
    cohort_key: str | None = None,
) -> dict[str, dict[str, object]]:
    runs = {"wake": None} if runs is None else runs
    return decide_for_device(runs, models.get, device_id=device, labels=labels or {}, cohort_key=cohort_key)


def test_the_answer_names_the_version_its_build_and_why() -> None:
    answer = asked({"wake": wake()})["wake"]
    because = answer.pop("because")
    assert answer == ONE
    assert because


def test_a_device_falls_into_its_arm_by_its_id_or_by_the_key_that_was_drawn() -> None:
    models = {"wake": wake()}
    assert asked(models, device=TREATED)["wake"]["serial"] == 2
    assert asked(models, device=TREATED, cohort_key=CONTROL)["wake"]["serial"] == 1
    assert asked(models, device=CONTROL, cohort_key=TREATED)["wake"]["serial"] == 2


def test_of_a_sealed_build_the_answer_has_both_forms() -> None:
    sealed = file(sealed=Sealed(sha256="d" * 64, size_bytes=300))
    only = release(1, variants=(Variant(name="any", files=(sealed,)),))
    (told,) = asked({"wake": wake(releases={1: only})})["wake"]["files"]
    assert told == BUILD | {"sealed": {"sha256": "d" * 64, "size_bytes": 300}}


def test_a_model_that_there_is_not_is_kept_and_said_to_be_unknown() -> None:
    assert asked({"wake": wake()}, runs={"nap": 3})["nap"] == {
        "offer": "keep",
        "serial": None,
        "because": "there is no policy for a model 'nap'",
    }


def test_each_model_that_is_asked_for_is_answered_and_no_other() -> None:
    other = wake(policy=policy(model="nap", layers=()), line=line(model="nap"))
    models = {"wake": wake(), "nap": other}
    assert asked(models, runs={"nap": None, "wake": 1}).keys() == {"nap", "wake"}
    assert asked(models, runs={"nap": None}).keys() == {"nap"}
    assert asked(models, runs={}) == {}


def test_a_version_of_which_no_build_fits_is_passed_over() -> None:
    android = release(2, variants=(Variant(name="phone", files=(file(),), selector=selector(platform="android")),))
    models = {"wake": wake(releases={1: release(1), 2: android})}
    assert asked(models, device=TREATED, labels={"platform": "linux"})["wake"]["serial"] == 1
    fits = asked(models, device=TREATED, labels={"platform": "android"})["wake"]
    assert (fits["serial"], fits["variant"]) == (2, "phone")


def test_a_version_whose_release_is_not_known_is_named_without_files() -> None:
    answer = asked({"wake": wake(releases={})})["wake"]
    assert (answer["offer"], answer["serial"], "files" in answer) == ("run", 1, False)


# --- sets ---


def decoder(**changes: object) -> PublishedModel:
    own = policy(model="decoder", baseline=1, known_good=(1,), layers=())
    fields = {"policy": own, "line": line(model="decoder"), "releases": {1: release(1, model="decoder")}}
    return PublishedModel(**fields | changes)


def both(*, offered: Policy | None = None) -> dict[str, PublishedModel]:
    """An encoder whose version 2 requires the decoder's version 2, which a layer of the same salt offers."""
    entry = Entry(rollout="r1-decoder", arms=(arm("treated", 0, 50_000, serial=2),))
    own = offered or msgspec.structs.replace(decoder().policy, layers=(Layer(salt=SALT, entries=(entry,)),))
    needs = release(2, requires=(Requirement(model="decoder", serial=2),))
    releases = {serial: release(serial, model="decoder") for serial in (1, 2)}
    return {"wake": wake(releases={1: release(1), 2: needs}), "decoder": decoder(policy=own, releases=releases)}


def test_what_a_version_requires_is_named_also_where_one_model_is_asked_for() -> None:
    answer = asked(both(), device=TREATED)
    assert answer.keys() == {"wake"}
    assert (answer["wake"]["serial"], answer["wake"]["requires"]) == (2, [{"model": "decoder", "serial": 2}])
    assert asked(both(), device=TREATED, runs={"decoder": 1})["decoder"]["serial"] == 2
    assert "requires" not in asked(both())["wake"]


def test_where_the_device_would_not_get_what_is_required_it_gets_neither() -> None:
    models = both(offered=decoder().policy)
    assert asked(models, device=TREATED)["wake"]["serial"] == 1
    without = {"wake": both()["wake"]}
    assert asked(without, device=TREATED)["wake"]["serial"] == 1


@pytest.mark.parametrize("runs", [{"wake": None}, {"wake": 1, "decoder": 1, "speaker": 1}])
def test_what_is_required_is_looked_for_to_the_end_of_the_chain_and_once(runs: dict[str, int | None]) -> None:
    models = both()
    needs = release(
        2, model="decoder", requires=(Requirement(model="speaker", serial=1), Requirement(model="wake", serial=2))
    )
    releases = {1: release(1, model="decoder"), 2: needs}
    models["decoder"] = msgspec.structs.replace(models["decoder"], releases=releases)
    models["speaker"] = decoder(
        policy=policy(model="speaker", layers=()), line=line(model="speaker"), releases={1: release(1, model="speaker")}
    )
    looked_for: list[str] = []

    def find(name: str) -> PublishedModel | None:
        looked_for.append(name)
        return models.get(name)

    answer = decide_for_device(runs, find, device_id=TREATED, labels={})
    assert answer["wake"]["serial"] == 2
    assert sorted(looked_for) == ["decoder", "speaker", "wake"]
