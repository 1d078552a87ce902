"""What a person wrote about an experiment: understood wholly, or refused with the line."""

import re

import msgspec
import pytest

from support.experiments import TEXT, written
from whimbrel.agent.labels import seen_labels
from whimbrel.errors import IllegalTransition, UntrustedInput
from whimbrel.flows.files.experiment_file import read_experiment
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.experiment import KINDS_OF_DEVICES, Experiment
from whimbrel.plan.experiment_states import Act, Phase, after
from whimbrel.plan.ranges import Range

PUBLISHED = """
experiment:
  id: exp-7
  name: accuracy of the new head
  variants:
    - id: baseline
      model_version: "wake@1.0.0"
      description: what runs today
    - id: candidate
      model_version: "wake@2.0.0"
      description: the new head
  allocation: {baseline: 0.5, candidate: 0.5}
  primary_metric: accuracy
  guardrail_metrics: [crash_rate, latency_p99, battery]
  minimum_sample_size: 10000
  duration_days: 7
"""


def read(text: str) -> Experiment:
    return read_experiment(text, what="e.yaml")


def test_the_published_form_is_taken_as_it_is() -> None:
    plan = read(PUBLISHED)
    assert (plan.model, plan.control_id, [arm.id for arm in plan.treated]) == ("wake", "baseline", ["candidate"])
    assert plan.ranges() == {"baseline": Range(0, 500_000), "candidate": Range(500_000, 1_000_000)}
    assert plan.primary.rises
    assert plan.guard_plan(plan.treated[0]).alpha == 0.1
    assert (plan.minimum_sample_size, plan.duration_days) == (10_000, 7)


def test_what_the_form_leaves_out_has_its_published_values() -> None:
    text = PUBLISHED.replace("  minimum_sample_size: 10000\n  duration_days: 7\n", "")
    assert read(text) == read(PUBLISHED)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("id: e1", "id: e1\n  bucket_by: user_id", "expected device, or label:<name>"),
        ("id: e1", 'id: e1\n  bucket_by: "label:a b"', "expected device, or label:<name>"),
        ("id: e1", "id: e1\n  bucket_by: label:os", "os names a kind of device"),
        ("id: e1", "id: e1\n  bucket_by: label:runtime.litert", "names a kind of device"),
        ("id: e1", "id: e1\n  devices_per_value: 3", "bucket_by names no label"),
        (
            "id: e1",
            "id: e1\n  bucket_by: label:user_id\n  selector: {match_labels: {user_id: ann}}",
            "Policies are public",
        ),
        ("name: A", "nam: A", "nam"),
        ("control: 50%", "control: 50", r"allocation 50: .* such as 5%"),
        ("control: 50%", "control: 0%", "allocation 0%"),
        ("control: 50%", "control: 60%", "adds up to 110%"),
        ("control: 50%", "controls: 50%", "allocation is of controls, large"),
        ("wake@2.0.0", "other@2.0.0", "one model"),
        ("wake@2.0.0", "wake 2", "names no version"),
        ("id: large", "id: control", "share an id"),
        ("primary_metric: watch_time", "primary_metric: latency_p99", "cannot decide"),
        ("crash_rate, lat", "{name: crash_rate, margin: 1}, lat", "without direction and margin"),
        ("crash_rate, lat", "latency_p99, lat", "share a name"),
        ("reshuffle: false", "on_decision: rollout", "go together"),
        ("reshuffle: false", "control: huge", "control is 'huge'"),
        ("reshuffle: false", "range_percent: [50, 50]", "from below to"),
        ("reshuffle: false", "minimum_days: 3", "more than duration_days"),
        ("reshuffle: false", "alpha: 0", "alpha"),
        ("reshuffle: false", "minimum_sample_size: 1", "minimum_sample_size"),
        ("reshuffle: false", "on_decision: rollout\n  rollout: {stages: []}", "rollout"),
        ("reshuffle: false", "on_decision: rollout\n  rollout: {model_version: wake@2.0.0}", "leave model_version out"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_line(before: str, after: str, words: str) -> None:
    assert before in TEXT
    with pytest.raises(UntrustedInput, match=r"e\.yaml:\d+: ") as said:
        read(TEXT.replace(before, after))
    assert said.match(words)


def test_the_budget_is_split_evenly_over_the_arms() -> None:
    three = written(
        variants=[{"id": name, "model_version": "wake@1.0.0"} for name in ("control", "a", "b")],
        allocation={"control": 0.2, "a": 0.4, "b": 0.4},
        guardrail_metrics=[{"name": "skips"}],
    )
    assert three.arm_alpha == 0.025
    guard = three.guard_plan(three.treated[0]).alpha + sum([three.own_guard_alpha()] * len(three.own_guardrails))
    assert 2 * guard == pytest.approx(three.guardrail_alpha)


def test_arms_lie_side_by_side_in_the_range_and_what_is_over_is_in_none() -> None:
    plan = written(range_percent=[10, 30], allocation={"control": 0.25, "large": "50%"})
    assert plan.ranges() == {"control": Range(100_000, 150_000), "large": Range(150_000, 250_000)}


A, B, C = ({"id": name, "model_version": f"wake@{n}.0.0"} for n, name in enumerate("abc", start=1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"range_percent": [50, 50]}, "range_percent is [50, 50]; expected [from, to] with from below to"),
        ({"range_percent": [60.5, 50]}, "range_percent is [60.5, 50]; expected [from, to] with from below to"),
        ({"variants": [A, B, A]}, "two variants share an id: a, b, a"),
        (
            {"variants": [A, B, {"id": "c", "model_version": "alarm@1.0.0"}]},
            "the variants are versions of alarm and wake; an experiment is about one model",
        ),
        ({"control": "c"}, "control is 'c'; the variants are a, b"),
        ({"allocation": {"b": 0.5, "c": 0.5}}, "allocation is of b, c; the variants are a, b"),
        ({"allocation": {"a": 1.0}}, "allocation is of a; the variants are a, b"),
        (
            {"variants": [A, B, C], "allocation": {"a": 0.5, "b": 0.25, "c": 0.2501}},
            "the allocation adds up to 100.01%; at most 100% can be given",
        ),
        ({"allocation": {"a": 0.5, "b": 0.5 + 2e-9}}, "the allocation adds up to 100%; at most 100% can be given"),
        ({"allocation": {"a": 0.5, "b": 4e-7}}, "the share of b is below one in 1,000,000 devices"),
        (
            {"allocation": {"a": "0.00004%", "b": "0.00004%"}, "range_percent": [0, 1]},
            "the share of a, b is below one in 1,000,000 devices",
        ),
        *[
            (
                {"allocation": {"a": share, "b": 0.5}},
                f"allocation {shown}: a share is a number from 0 to 1, or a percent with its sign, such as 5%",
            )
            for share, shown in (
                *((0.0, "0"), (-0.5, "-0.5"), (1.001, "1.001"), ("101%", "101%"), ("0%", "0%"), ("5", "5"), ("", "")),
                *(("5 %", "5 %"), ("-5%", "-5%"), ("1000%", "1000%"), ("5.1234567%", "5.1234567%"), ("5%\n", "5%\n")),
            )
        ],
        ({"minimum_days": 7.5}, "minimum_days 7.5 is more than duration_days 7"),
        *[
            (
                changes,
                "on_decision: rollout and the key `rollout` (a plan without model_version) go together",
            )
            for changes in (
                {"on_decision": "rollout"},
                {"rollout": {"stages": [{"name": "all", "target_percent": 100}]}},
            )
        ],
        (
            {"on_decision": "rollout", "rollout": {"model_version": "wake@2.0.0"}},
            "rollout: leave model_version out: it is the version that won",
        ),
        (
            {"on_decision": "rollout", "rollout": {"stages": [{"name": "all", "target_percent": 101}]}},
            "rollout: target_percent of stage 1 is 101; expected a number of at most 100",
        ),
        (
            {"bucket_by": "user_id" * 20},
            f"bucket_by: expected device, or label:<name> such as label:user_id; found {('user_id' * 20)[:80]!r}",
        ),
        (
            {"devices_per_value": 2},
            "devices_per_value: it says how many devices share a value, and bucket_by names no label",
        ),
        (
            {"bucket_by": "label:os"},
            "bucket_by: os names a kind of device, so all devices of a kind would be in one arm; name a label with "
            "thousands of values, such as user_id, or leave bucket_by out",
        ),
        (
            {"bucket_by": "label:home", "selector": {"match_labels": {"home": "1"}}},
            "selector: it asks for home, by which devices are divided. Policies are public, so no value may be in one, "
            "and devices without home are in no arm anyway; leave it out of the selector",
        ),
        *[
            (
                {"primary_metric": name},
                f"primary_metric {name!r} is watched as a guardrail and cannot decide; use error_rate, crash_rate, or "
                "a metric that the app records (say, its latency in ms under a name of its own)",
            )
            for name in ("latency", "latency_p50", "latency_ms", "silence", "install_failures", "crash", "error")
        ],
        (
            {"guardrail_metrics": ["skips", {"name": "error_rate", "margin": 1}]},
            "guardrail 'error_rate' is watched as in a rollout; name it without direction and margin",
        ),
        ({"guardrail_metrics": ["skips", "f1", {"name": "skips"}]}, "two guardrails share a name: skips, f1, skips"),
    ],
)
def test_an_experiment_that_means_nothing_is_refused_in_words(changes: dict[str, object], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=f"^{re.escape(said)}$"):
        asked(**changes)


def asked(**changes: object) -> Experiment:
    """An experiment on two variants, with only what it must say."""
    whole = {"name": "A", "variants": [A, B], "allocation": {"a": 0.5, "b": 0.5}, "primary_metric": "accuracy"}
    return msgspec.convert(whole | changes, type=Experiment)


@pytest.mark.parametrize(
    ("allocation", "shares"),
    [
        ({"a": 1e-6, "b": 1 - 1e-6}, [1e-6, 1 - 1e-6]),
        ({"a": "0.0001%", "b": "99.9999%"}, [1e-6, 0.999999]),
        ({"a": "5%", "b": "12.345678%"}, [0.05, 0.12345678]),
        ({"a": 0.1 + 0.2, "b": 0.7}, [0.1 + 0.2, 0.7]),  # 1.0000000000000002 with rounding
        ({"a": 0.5, "b": 0.5 + 1e-9}, [0.5, 0.5 + 1e-9]),  # as much rounding as is passed over
    ],
)
def test_a_share_is_a_number_or_a_percent(allocation: dict[str, object], shares: list[float]) -> None:
    plan = asked(allocation=allocation)
    assert [plan.share("a"), plan.share("b")] == pytest.approx(shares)


def test_three_arms_whose_shares_are_rounded_fill_the_range_without_a_gap() -> None:
    plan = asked(variants=[A, B, C], allocation={"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, range_percent=[0, 0.001])
    assert plan.ranges() == {"a": Range(0, 3), "b": Range(3, 7), "c": Range(7, 10)}


@pytest.mark.parametrize(
    ("ids", "control", "id_of"),
    [
        (("a", "b"), None, "a"),
        (("a", "control"), None, "control"),
        (("a", "baseline"), None, "baseline"),
        (("baseline", "control"), None, "control"),
        (("a", "control"), "a", "a"),
    ],
)
def test_the_control_is_the_one_that_is_named_so_or_the_first(
    ids: tuple[str, str], control: str | None, id_of: str
) -> None:
    variants = [{"id": name, "model_version": "wake@1.0.0"} for name in ids]
    plan = asked(variants=variants, allocation=dict.fromkeys(ids, 0.5), control=control)
    assert plan.control_id == id_of
    assert [arm.id for arm in plan.treated] == [name for name in ids if name != id_of]


def test_metrics_that_are_compared_are_the_primary_and_those_that_the_app_records() -> None:
    names = ["skips", "crash_rate", {"name": "loads", "direction": "decrease", "margin": 2}, "recall"]
    plan = asked(guardrail_metrics=names)
    assert plan.compared == ("accuracy", "skips", "loads", "recall")
    assert [(each.name, each.rises, each.margin) for each in plan.own_guardrails] == [
        ("skips", True, 0),
        ("loads", False, 2),
        ("recall", True, 0.005),
    ]
    assert plan.watched_guardrails == {"crash_rate": ("crash",)}
    ratio = asked(guardrail_metrics=names, primary_metric="crash_rate")
    assert (ratio.primary.is_ratio, plan.primary.is_ratio) == (True, False)
    assert ratio.compared == ("skips", "loads", "recall")
    assert asked(primary_metric="skips", guardrail_metrics=["skips", "loads"]).compared == ("skips", "loads")


def test_an_arm_is_watched_by_a_plan_of_one_stage_that_lasts_a_year() -> None:
    three = asked(
        variants=[A, B, C], allocation=dict.fromkeys("abc", 0.25), guardrail_alpha=0.12, check_interval_sec=60
    )
    guard = three.guard_plan(three.treated[1])
    assert (guard.model_version, guard.window_s(), three.window_s()) == ("wake@3.0.0", 60, 60)
    (stage,) = guard.stages
    assert (stage.name, stage.target_percent, stage.duration_hours) == ("c", 100, 8760)
    assert stage.success_criteria == SuccessCriteria()
    assert guard.alpha == pytest.approx(0.06)


@pytest.mark.parametrize(("own", "watched", "each"), [(0, 0.1, 0.05), (1, 0.05, 0.05), (4, 0.05, 0.0125)])
def test_half_of_the_guardrails_budget_is_the_apps_own_where_it_has_some(own: int, watched: float, each: float) -> None:
    plan = asked(guardrail_metrics=[*(f"m{n}" for n in range(own)), "crash_rate"])
    assert plan.guard_plan(plan.treated[0]).alpha == pytest.approx(watched)
    assert plan.own_guard_alpha() == pytest.approx(each)


def test_what_follows_is_a_plan_of_the_version_that_won() -> None:
    plan = asked(on_decision="rollout", rollout={"stages": [{"name": "all", "target_percent": 100}], "alpha": 0.2})
    followed = plan.follow_up("wake@3.0.0")
    assert (followed.model_version, followed.alpha, len(followed.stages)) == ("wake@3.0.0", 0.2, 1)


def test_an_experiment_by_a_label_takes_all_buckets_and_others_their_range() -> None:
    assert asked(range_percent=[10, 30]).taken == Range(100_000, 300_000)
    labelled = asked(range_percent=[10, 30], bucket_by="label:home", devices_per_value=1)
    assert (labelled.taken, labelled.range, labelled.cluster) == (Range(), Range(100_000, 300_000), 1)
    assert asked(minimum_days=7).minimum_days == 7


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize("phase", Phase)
def test_only_a_running_experiment_moves(phase: Phase, act: Act) -> None:
    ends = {Act.SHIP: Phase.SHIPPED, Act.KEEP: Phase.KEPT, Act.END: Phase.INCONCLUSIVE, Act.STOP: Phase.STOPPED}
    if phase is Phase.RUNNING:
        assert after(phase, act) is ends.get(act, Phase.RUNNING)
        return
    said = f"an experiment that is {phase} is over: it cannot {act.replace('_', ' ')}; start a new one"
    with pytest.raises(IllegalTransition, match=f"^{re.escape(said)}$"):
        after(phase, act)


@pytest.mark.parametrize(("metric", "rises"), [("accuracy", True), ("error_rate", False), ("crash_rate", False)])
def test_less_of_a_rate_is_better_unless_it_is_said(metric: str, rises: bool) -> None:
    assert written(primary_metric=metric).primary.rises is rises
    assert written(primary_metric={"name": metric, "direction": "increase"}).primary.rises


def test_arms_by_a_label_are_taken_in_both_spellings_and_count_two_devices_as_one() -> None:
    plan = read(TEXT.replace("id: e1", "id: e1\n  bucketBy: label:user_id"))
    assert (plan.bucket_label, plan.cluster, plan.taken) == ("user_id", 2.0, Range())
    assert read(TEXT).bucket_label is None
    assert read(TEXT.replace("id: e1", "id: e1\n  bucket_by: device")) == read(TEXT)
    assert (read(TEXT).cluster, written(bucket_by="label:home", devices_per_value=5).cluster) == (1.0, 5.0)


def test_every_label_that_an_agent_finds_by_itself_names_a_kind_of_device() -> None:
    seen = {name for name in seen_labels() if not name.startswith("runtime.")}
    assert seen <= KINDS_OF_DEVICES
