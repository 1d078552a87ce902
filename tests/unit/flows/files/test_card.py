"""A model card says what its writer meant, or is refused with the line."""
# ruff: noqa: E501  (the table of refusals: one row a line)

from pathlib import Path

import pytest

from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.card import Card, CardReference, read_card
from whimbrel.flows.files.variant_spec import parse_variant
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.release import Probe, Tensor, Training

CARD = """\
semantic_version: "2.10.0"
training_date: 2026-03-04T23:00:00Z
training_dataset: 2026_q1_v3
framework: pytorch_2.1
architecture: feedforward_56_128_64_32_1
metadata: {accuracy: 0.842, training_samples: 2347891}
compatibility: {min_ios_version: "15.0", min_android_api: 26, min_app_version: 1.8.0}
changelog:
  - Fewer false alarms in wind.
lineage: {run: "mlflow:5d1e", parent: 2.4.0}
probe:
  latency_ms_max: 50
  inputs: {x: {dtype: float32, shape: [1, 2], values: [0.5, 1]}}
  outputs: {y: {dtype: float32, shape: [1], values: [0.25]}}
budgets: {size_bytes_max: 500000, metric_min: {accuracy: 0.84}}
"""

# The two published documents of a mobile app's models, as one.
MANIFEST = """\
{"model_id": "impulse_predictor", "version": "2026.03.05.1",
 "version_parts": {"year": 2026, "month": 3, "day": 5, "iteration": 1},
 "semantic_version": "2.4.1", "build_hash": "a1b2c3d4e5f6", "training_date": "2026-03-04T23:00:00Z",
 "training_dataset": "2026_q1_v3", "framework": "pytorch_2.1", "architecture": "feedforward_56_128_64_32_1",
 "files": [{"name": "model.mlpackage", "url": "https://...", "size": 458752, "sha256": "DIGEST", "platform": "ios"},
           {"name": "model.tflite", "url": "https://...", "size": 450560, "sha256": "DIGEST", "platform": "android"}],
 "metadata": {"accuracy": 0.842, "precision": 0.864, "recall": 0.839, "f1_score": 0.851, "training_samples": 2347891},
 "compatibility": {"min_ios_version": "15.0", "min_android_api": 26, "min_app_version": "1.8.0"},
 "changelog": ["..."],
 "rollout": {"percentage": 10, "regions": ["AU", "NZ"], "user_segments": ["beta_testers"]}}
""".replace("DIGEST", "0" * 64)


def _card() -> Card:
    return read_card(CARD, what="card.yaml")


def test_everything_a_card_says_reaches_the_release() -> None:
    card = _card()
    assert card.semantic_version == "2.10.0"
    assert card.metrics == {"accuracy": 0.842, "training_samples": 2347891}
    assert card.changes == ("Fewer false alarms in wind.",)
    assert card.training == Training(
        date="2026-03-04T23:00:00Z",
        dataset="2026_q1_v3",
        framework="pytorch_2.1",
        architecture="feedforward_56_128_64_32_1",
        run="mlflow:5d1e",
        parent="2.4.0",
    )
    assert card.probe is not None
    assert card.probe.probe() == Probe(
        inputs={"x": Tensor(dtype="float32", shape=(1, 2), values=(0.5, 1))},
        outputs={"y": Tensor(dtype="float32", shape=(1,), values=(0.25,))},
        latency_ms_max=50,
    )


def test_the_card_in_the_reference_is_read() -> None:
    page = (Path(__file__).parents[4] / "docs" / "reference" / "card.md").read_text(encoding="utf-8")
    card = read_card(page.split("```yaml\n")[1].split("```")[0], what="card.md")
    assert card.probe is not None
    assert (card.semantic_version, card.probe.golden) == ("2.10.0", "golden.npz")


def test_local_limits_of_a_card_are_read_and_checked() -> None:
    card = read_card("local_limits: {crash_loop: 5, error_rate_max: 0.05, on_failed_probe: go_back}", what="card.yaml")
    assert card.local_limits == LocalLimits(crash_loop=5, error_rate_max=0.05, on_failed_probe="go_back")
    for wrong in ("{error_rate_max: 5}", "{crash_lop: 3}", "{sessions: 3}", "{probe_every_s: 1}"):
        with pytest.raises(UntrustedInput, match="local_limits"):
            read_card(f"local_limits: {wrong}", what="card.yaml")


def test_the_published_manifest_is_taken_as_it_is() -> None:
    card = read_card(MANIFEST, what="manifest.json")
    assert (card.model_id, card.version, card.build_hash) == ("impulse_predictor", "2026.03.05.1", "a1b2c3d4e5f6")
    assert [file.platform for file in card.files] == ["ios", "android"]
    assert card.rollout is not None
    plan = card.rollout.plan("impulse_predictor@2026.03.05.1")
    assert plan.stages[0].target_percent == 10
    assert plan.stages[0].selector.matches({"region": "NZ", "user_segment": "beta_testers"})


def test_a_listed_file_that_differs_is_said() -> None:
    file = read_card(MANIFEST, what="manifest.json").files[1]
    assert file.differs(size_bytes=450560, sha256="0" * 64) is None
    assert file.differs(size_bytes=1, sha256="0" * 64) == "model.tflite has 1 bytes; the card says 450560"
    assert "the card says 000" in (file.differs(size_bytes=450560, sha256="1" * 64) or "")


def test_golden_values_may_come_from_a_file() -> None:
    card = read_card("probe: {golden: golden.npz, memory_mib_max: 64}", what="card.yaml")
    assert card.probe is not None
    golden = Probe(inputs={"x": Tensor(dtype="float32", shape=(1,), values=(1,))}, relative_tolerance=0.5)
    probe = card.probe.probe(golden)
    assert (probe.inputs, probe.relative_tolerance, probe.memory_mib_max) == (golden.inputs, 0.5, 64)


def test_budgets_say_what_is_not_kept() -> None:
    budgets = _card().budgets
    assert budgets.broken(size_bytes=500_000, metrics={"accuracy": 0.84}) == []
    assert budgets.broken(size_bytes=500_001, metrics={"accuracy": 0.8}) == [
        "it has 500001 bytes, over the budget of 500000",
        "accuracy is 0.8, below the floor of 0.84",
    ]
    assert budgets.broken(size_bytes=1, metrics={}) == ["accuracy has a budget of 0.84 and was not measured"]


def test_compatibility_holds_each_platform_to_its_own_minimum() -> None:
    variants = _card().restricted(parse_variant("precision=int8"))
    assert [variant.name for variant in variants] == ["int8-ios", "int8-android", "int8"]

    def offered(**labels: str) -> str | None:
        return next((each.name for each in variants if each.selector.matches(labels)), None)

    assert offered(platform="ios", ios_version="15.1", app_version="1.10") == "int8-ios"
    assert offered(platform="ios", ios_version="14.9", app_version="1.10") is None
    assert offered(platform="ios", app_version="1.10") is None
    assert offered(platform="android", android_api="26", app_version="1.8.0") == "int8-android"
    assert offered(platform="android", android_api="9", app_version="1.8.0") is None
    assert offered(platform="linux", app_version="1.8") == "int8"
    assert offered(app_version="1.8") == "int8"
    assert offered(app_version="1.7") is None
    assert offered(ios_version="14", app_version="1.8") is None


def test_compatibility_of_a_build_for_one_platform_is_one_variant() -> None:
    (variant,) = _card().restricted(parse_variant("platform=ios,precision=fp16"))
    assert variant.name == "ios-fp16"
    assert variant.selector.matches({"platform": "ios", "ios_version": "15.0", "app_version": "2"})
    assert not variant.selector.matches({"platform": "ios", "ios_version": "9.3", "app_version": "2"})


def test_card_and_variant_that_contradict_each_other_are_refused() -> None:
    card = read_card("compatibility: {selector: {match_labels: {chip: a}}}", what="card.yaml")
    assert card.restricted(parse_variant("chip=a"))[0].selector.match_labels == {"chip": "a"}
    with pytest.raises(UntrustedInput, match="different things of the label 'chip'"):
        card.restricted(parse_variant("chip=b"))


# fmt: off
REFUSED = [
    ("semantic_version: 2.10", 'card.yaml:1: semantic_version: 2.10 is read as a number or truth value; quote it: "2.10"'),
    ("semantic_version: '2.10'", "card.yaml:1: semantic_version: '2.10' is not a semantic version"),
    ("a: 1", "card.yaml:1: unknown key 'a'"),
    ("framework: x\narchitectur: y", "card.yaml:2: unknown key 'architectur'; did you mean 'architecture'?"),
    ("framework: x\nmetadata:\n  recall: 1\n  accuracy: high", "card.yaml:4: metadata.accuracy: expected a number, found 'high'"),
    ("metadata: {a b: 1}", "card.yaml:1: metadata.a b: "),
    ("training_date: yesterday", "card.yaml:1: training_date: 'yesterday' is no date"),
    ("compatibility:\n  min_ios_version: 15.10", 'card.yaml:2: compatibility.min_ios_version: 15.10 is read as a number or truth value; quote it: "15.10"'),
    ("compatibility:\n  min_ios_version: new", "card.yaml:2: compatibility.min_ios_version: 'new' is not a dotted version"),
    ("compatibility:\n  min_io_version: '15'", "did you mean 'min_ios_version'?"),
    ("version: 2026.13.01.1", "card.yaml:1: version: '2026.13.01.1' is not a calendar version: month must be in 1..12"),
    ("version: 2026.03.05.1\nversion_parts: {year: 2026, month: 3, day: 5, iteration: 2}", "card.yaml:2: version_parts: they say 2026.03.05.2"),
    ("build_hash: 123456789012", 'quote it: "123456789012"'),
    ("probe: {golden: a.npz, inputs: {x: {dtype: float32, shape: [1], values: [1]}}}", "card.yaml:1: probe.golden: values are given in a file and inline"),
    ("probe: {inputs: {x: {dtype: float32, shape: [3], values: [1]}}}", "a tensor of shape [3] holds 3 values, found 1"),
    ("probe: {inputs: {x: {dtype: float32, shape: [1], values: [1]}}}", "one of the two is missing"),
    ("budgets: {size_bytes_max: -1}", "card.yaml:1: budgets.size_bytes_max:"),
    ("- a list", "card.yaml:1: it has no keys at its top; expected: model_id"),
    ("lineage:", "card.yaml:1: there is no value here"),
]
# fmt: on


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_a_card_that_cannot_be_understood_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(UntrustedInput) as caught:
        read_card(text, what="card.yaml")
    assert said in str(caught.value)


def test_a_card_may_say_how_predictions_are_spread() -> None:
    text = 'semantic_version: "1.0.0"\nreference: {classes: [left, right], shares: [0.6, 0.4]}\n'
    card = read_card(text, what="card.yaml")
    assert isinstance(card.reference, CardReference)
    assert card.reference.reference().bin_shares == (0.6, 0.4, 0.0)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("{edges: [1, 2], shares: [0.5, 0.5]}", "2 edges need 3 shares; found 2"),
        ("{edges: [2, 1], shares: [0.5, 0.25, 0.25]}", "must be numbers that rise"),
        ("{classes: [a, a], shares: [0.5, 0.5]}", "a class is listed twice"),
        ("{classes: [a, b], shares: [0.5, 0.4]}", "must add up to 1; they are 0.9 together"),
        ("{classes: [a], edges: [1], shares: [1]}", "either edges or classes"),
        ("validation", "has no validation samples"),
    ],
)
def test_a_spread_that_cannot_be_is_refused(reference: str, said: str) -> None:
    with pytest.raises(UntrustedInput, match=said):
        read_card(f"reference: {reference}\n", what="card.yaml")


def test_a_card_may_go_without_made_up_inputs() -> None:
    asked = read_card("probe: {smoke: false, latency_ms_max: 5}", what="card.yaml").probe
    assert asked is not None
    assert asked.probe() == Probe(smoke=False, latency_ms_max=5)
    other = read_card("probe: {latency_ms_max: 5}", what="card.yaml").probe
    assert other is not None
    assert other.probe().smoke


def test_the_pipelines_own_words_are_kept() -> None:
    card = read_card("build_hash: a1b2\ntarget_hardware: [pi-4, pi-5]", what="card.yaml")
    assert (card.training.build_hash, card.training.target_hardware) == ("a1b2", ("pi-4", "pi-5"))
    assert read_card("target_hardware: pi-4", what="card.yaml").training.target_hardware == ("pi-4",)


def test_whole_numbers_stay_whole_as_far_as_readers_of_json_hold_them() -> None:
    metrics = read_card(
        f"metadata: {{samples: 2347891, accuracy: 1.0, most: {2**53 - 1}, tokens: {10**24}}}", what="c"
    ).metrics
    assert metrics == {"samples": 2347891, "accuracy": 1.0, "most": 2**53 - 1, "tokens": 1e24}
    assert {name: type(value) for name, value in metrics.items()} == {
        "samples": int,
        "accuracy": float,
        "most": int,
        "tokens": float,
    }


# --- one variant ---


_TWO = """
probe:
  inputs: {x: {dtype: float32, shape: [1], values: [1]}}
  outputs: {y: {dtype: float32, shape: [1], values: [2]}}
  absolute_tolerance: 0.001
  latency_ms_max: 50
budgets: {size_bytes_max: 1000, metric_min: {accuracy: 0.8}}
variants:
  int8:
    probe: {absolute_tolerance: 0.05, memory_mib_max: 64}
    budgets: {size_bytes_max: 300}
  npu:
    probe:
      inputs: {x: {dtype: float32, shape: [1], values: [7]}}
      outputs: {y: {dtype: float32, shape: [1], values: [8]}}
"""


def test_variant_has_its_own_probe_over_the_general_one() -> None:
    card = read_card(_TWO, what="card.yaml")
    general, int8, npu = (probe.probe() for name in ("cpu", "int8", "npu") if (probe := card.probe_of(name)))
    assert (general.absolute_tolerance, general.latency_ms_max, general.memory_mib_max) == (0.001, 50, None)
    assert (int8.absolute_tolerance, int8.latency_ms_max, int8.memory_mib_max) == (0.05, 50, 64)
    assert (int8.inputs, int8.outputs) == (general.inputs, general.outputs)
    assert (npu.inputs["x"].values, npu.outputs["y"].values, npu.absolute_tolerance) == ((7.0,), (8.0,), 0.001)


def test_variant_may_bring_a_probe_where_the_card_has_no_general_one() -> None:
    card = read_card("variants: {int8: {probe: {golden: int8.npz}}}", what="card.yaml")
    assert card.probe_of("cpu") is None
    own = card.probe_of("int8")
    assert own is not None
    assert own.golden == "int8.npz"


def test_golden_file_of_a_variant_replaces_values_that_are_given_inline() -> None:
    card = read_card(
        _TWO.replace("{absolute_tolerance: 0.05, memory_mib_max: 64}", "{golden: g.npz}"), what="card.yaml"
    )
    own = card.probe_of("int8")
    assert own is not None
    assert (own.golden, own.inputs, own.outputs, own.latency_ms_max) == ("g.npz", {}, {}, 50)


def test_variant_has_its_own_budget_of_bytes() -> None:
    card = read_card(_TWO, what="card.yaml")
    assert card.broken_budgets({"cpu": 1000, "int8": 300}, {"accuracy": 0.9}) == []
    assert card.broken_budgets({"cpu": 1001, "int8": 301}, {"accuracy": 0.9}) == [
        "it has 1001 bytes, over the budget of 1000",
        "the variant int8 has 301 bytes, over its budget of 300",
    ]


def test_variant_that_is_not_published_is_refused_with_the_names_that_are() -> None:
    card = read_card(_TWO, what="card.yaml")
    card.check_variants(["int8", "npu", "cpu"])
    with pytest.raises(UntrustedInput, match=r"speaks of a variant 'npu'; published are default, int8"):
        card.check_variants(["int8", "default"])


def test_variant_that_is_taken_apart_by_platform_keeps_the_name_of_its_probe() -> None:
    made = _card().restricted(parse_variant("precision=int8"))
    assert len(made) > 1
    assert {spec.given_name for spec in made} == {"int8"}
