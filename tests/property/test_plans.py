"""Laws of reading plans."""

import string
from contextlib import suppress

import msgspec
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.files.yaml_file import load_yaml
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.plan import Plan, PlanFile, Stage

fractions = st.none() | st.floats(0, 1)
# A letter first: YAML 1.1 writes the word 0e0 without quotes, 1.2 reads a number, and we ask for quotes.
names = st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,11}", fullmatch=True)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    shares = sorted(draw(st.lists(st.floats(0.001, 100), min_size=1, max_size=5)))
    labels = draw(st.lists(names, min_size=len(shares), max_size=len(shares), unique=True))
    stages = tuple(
        Stage(
            name=name,
            target_percent=share,
            duration_hours=draw(st.floats(0, 8760)),
            success_criteria=SuccessCriteria(accuracy_drop_max=draw(fractions), error_rate_max=draw(fractions)),
            regions=tuple(draw(st.lists(st.sampled_from(["NO", "NZ", "true", "1.10", "null", "y"]), max_size=3))),
        )
        for name, share in zip(labels, shares, strict=True)
    )
    return Plan(model_version="m@1.2.0", stages=stages, alpha=draw(st.floats(0.001, 0.2)))


@settings(max_examples=60, deadline=None)
@given(plan=plans(), flow=st.booleans())
def test_a_plan_that_another_writer_wrote_is_read_back(plan: Plan, flow: bool) -> None:
    text = yaml.safe_dump(msgspec.to_builtins(PlanFile(rollout=plan)), default_flow_style=flow)
    assert read_plan(text, what="plan.yaml") == plan


json_values = st.recursive(
    st.booleans() | st.integers(-(10**17), 10**17) | st.floats(-1e300, 1e300) | st.text(string.printable, max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(value=json_values)
def test_json_is_yaml(value: object) -> None:
    assert load_yaml(msgspec.json.encode(value).decode(), what="x")[0] == value


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60) | st.text("ab:-[]{}&*!|>'\"#%@`,? \n\t", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(UntrustedInput):
        load_yaml(text, what="x")
