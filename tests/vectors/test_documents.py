"""Golden bytes of every document, every field set. A change here changes the format, and needs a decision record."""

import msgspec
import pytest

from whimbrel.health.pairs import Pairs
from whimbrel.health.panel import Panel
from whimbrel.health.report import Announcement, Batch, Build, Cohort, Summary, Window
from whimbrel.health.run_history import RunHistoryPart
from whimbrel.health.shadow import ShadowSums, Units
from whimbrel.health.tally import Cell, Moments
from whimbrel.model.documents import Document, encode, parse
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.provenance import Dataset, Kept, ModelSignature, Parent, SourceCode
from whimbrel.model.release import (
    File,
    Floor,
    Line,
    Probe,
    Reference,
    Release,
    Requirement,
    Sealed,
    Signature,
    Tensor,
    TensorSpec,
    Training,
    Validation,
    Variant,
)
from whimbrel.model.selector import Expression, Selector
from whimbrel.policy.policy import Arm, Conditions, Entry, Layer, Pin, Policy, Quarantine, SetLead
from whimbrel.policy.policy import Window as Hours
from whimbrel.policy.shadow import Shadow

SELECTOR = Selector(
    match_labels={"os": "linux"}, match_expressions=(Expression(key="app", operator="Version", values=(">=1.8", "<3")),)
)
TENSOR = Tensor(dtype="float32", shape=(1, 2), values=(0.5, 1.0))
LOCAL_LIMITS = LocalLimits(
    crash_loop=5,
    sessions=50,
    error_rate_max=0.125,
    latency_ms_p95_max=40.0,
    accuracy_min=0.75,
    probe_every_s=86400.0,
    on_failed_probe="go_back",
)
RELEASE = Release(
    model="wake",
    serial=3,
    version="2026.03.05.1",
    semantic_version="2.4.1",
    build_hash="a1b2c3d4e5f6",
    created="2026-03-05T10:00:00Z",
    variants=(
        Variant(
            name="linux",
            files=(
                File(
                    name="model.onnx",
                    size_bytes=7,
                    sha256="a" * 64,
                    format="onnx",
                    packed=True,
                    sealed=Sealed(sha256="b" * 64, size_bytes=207),
                ),
            ),
            selector=SELECTOR,
            runtime="onnxruntime",
            precision="float32",
            signature=Signature(
                inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", None, 4)),),
                outputs=(TensorSpec(name="y", dtype="float32", shape=(1,)),),
            ),
            probe=Probe(
                inputs={"x": TENSOR},
                outputs={"y": TENSOR},
                absolute_tolerance=0.5,
                relative_tolerance=0.25,
                latency_ms_max=9.5,
                memory_mib_max=64,
                output_ranges={"y": (0.0, 1.0)},
                validation=Validation(inputs={"x": TENSOR}, labels=(7,), output="y", accuracy_min=0.5),
                smoke=False,
            ),
        ),
    ),
    training=Training(
        date="d",
        dataset="s",
        framework="f",
        run="r",
        parent="p",
        architecture="a",
        build_hash="b",
        target_hardware=("h1", "h2"),
        datasets=(Dataset(name="speech", digest="md5:" + 32 * "d"),),
        code=SourceCode(url="https://git.example.com/wake", commit="1f3b5a7"),
        parents=(Parent(model="wake", serial=2, version="2026.03.04.1"),),
        recipe=Kept(sha256=64 * "c", size_bytes=5),
    ),
    metrics={"accuracy": 0.875, "samples": 12},
    changelog=("better",),
    requires=(Requirement(model="sleep", serial=2),),
    reference=Reference(kind="classes", bins=("cat", "dog"), shares=(0.75, 0.25)),
    unchecked=("an objection",),
    local_limits=LOCAL_LIMITS,
    model_signatures=(
        ModelSignature(
            method="key",
            signer="key sha256:1",
            bundle=Kept(sha256=64 * "e", size_bytes=6),
            anchor=Kept(sha256=64 * "f", size_bytes=7),
            variants=("linux",),
        ),
    ),
)
LINE = Line(model="wake", sequence=4, minimum_serial=2, revoked=(3, 5))
POLICY = Policy(
    model="wake",
    sequence=9,
    baseline=2,
    known_good=(2, 1),
    layers=(
        Layer(
            salt=42,
            entries=(
                Entry(
                    rollout="r1",
                    selector=SELECTOR,
                    start=10,
                    end=999990,
                    before=("accuracy",),
                    delays_s=(1.5, 20.0),
                    delays_by_class={"pi": (20.0, 90.0)},
                    bucket_by="user_id",
                    arms=(
                        Arm(
                            role="treated",
                            name="canary",
                            stage=1,
                            serial=3,
                            start=0,
                            end=50000,
                            selector=SELECTOR,
                            conditions=Conditions(idle=True),
                        ),
                        Arm(role="control", name="control", stage=0, serial=2, start=50000, end=1000000),
                        Arm(
                            role="treated",
                            name="shadow",
                            stage=0,
                            serial=3,
                            start=0,
                            end=1,
                            shadow=Shadow(sample_ppm=50000, compare="values", tolerance=0.25),
                        ),
                    ),
                ),
            ),
        ),
    ),
    quarantine=(Quarantine(serial=4, selector=SELECTOR),),
    overrides=(3,),
    set_leads=(SetLead(serial=3, model="encoder", lead_serial=7),),
    pins=(Pin(serial=1, devices=("dev-1",)), Pin(serial=2, selector=SELECTOR)),
    conditions=Conditions(
        unmetered=True,
        charging=True,
        battery_min=0.5,
        idle=True,
        window_utc=(0, 3600),
        start_jitter_s=60.0,
        windows=(Hours(start_s=79200, end_s=21600, zone="Europe/Berlin", days=("fri",)),),
        storage_mib_min=500,
        metered_mib_a_day=20,
    ),
    on_revoked="stop",
    refresh_s=60.0,
    report_s=30.0,
    activate_max_age_s=120.0,
    report_labels=("region",),
    hardware_label="chip",
    slice_labels=("os",),
    local_limits=LOCAL_LIMITS,
)
BATCH = Batch(
    epoch="0123456789abcdef",
    labels={"region": "NZ"},
    models=("wake", "sleep"),
    waiting={"wake": "a charger"},
    builds={
        "wake": Build(
            serial=3, variant="small", latency_ms_max=20.0, memory_mib_max=64.0, latency_ms=12.5, memory_mib=40.0
        )
    },
    run_history=RunHistoryPart(head='{"number":1}', signature=86 * "s", entries=('{"number":1}',)),
    runs={"wake": 2},
    windows=(
        Window(
            model="wake",
            serial=3,
            first=7,
            last=8,
            hardware_class="x1",
            slices={"os": "linux"},
            cohorts=(Cohort(rollout="r1", stage=1, role="control", age_s=2.5, before={"accuracy": 0.5}),),
            sessions=4,
            crashed=1,
            inferences=5,
            errors=2,
            metrics={"accuracy": Summary(n=2, sum=1.5, sumsq=1.25, most=1.0)},
            latency={-3: 1, 254: 2},
            shadow=ShadowSums(
                serial=4,
                inputs=7,
                compared=4,
                agreed=3.5,
                errors=2,
                crashed=1,
                dropped=6,
                skipped=5,
                active_ms=8.0,
                candidate_ms=12.0,
                active={34: 4},
                candidate={55: 4},
            ),
            predictions={0: 3, 2: 1},
        ),
    ),
)
ANNOUNCEMENT = Announcement(
    model="wake",
    step="went_back",
    serial=3,
    rollout="r1",
    stage=1,
    role="control",
    hardware_class="x1",
    slices={"os": "linux"},
    reason="it crashed",
    bytes_moved=8,
    moved_by={"delta": 8},
)
CELL = Cell(
    stage=1,
    window=6,
    role="control",
    hardware_class="x1",
    slices={"os": "linux"},
    age_bucket=5,
    at_risk=9,
    sessions=8,
    unused=5,
    crashed=7,
    error_units=6,
    error_share=0.5,
    error_squares=0.375,
    metrics={"accuracy": Moments(n=2, sum=1.5, sumsq=1.25)},
    latency={-3: 1, 254: 2},
    due=4,
    overdue=3,
    due_again=3,
    overdue_again=1,
    user_reports=2,
    version_reports=1,
    prediction_units=2,
    predictions={1: Moments(n=2, sum=1.5, sumsq=1.25)},
    pairs={"accuracy": Pairs(pairs=3, squares=5, now=1.5, then=2.5, both=1.25)},
    panels={"accuracy": Panel(n=9, y=1.5, yy=1.25, both=8, both_y=1.0, both_yy=0.75, x=2.5, xx=2.0, xy=1.75)},
    shadow=Units(
        windows=3,
        inputs=7,
        compared=4,
        agreed=3.5,
        errors=2,
        crashed=1,
        dropped=6,
        skipped=5,
        compared_windows=2,
        disagreed_share=0.25,
        failed_share=0.5,
        crashed_windows=1,
        ratios={21: 2},
        active={34: 4},
        candidate={55: 4},
        disagreed={-69: 1},
        failed={-34: 1},
    ),
)

_SELECTOR = (
    '{"match_expressions":[{"key":"app","operator":"Version","values":[">=1.8","<3"]}],"match_labels":{"os":"linux"}}'
)
_LOCAL_LIMITS = (
    '"local_limits":{"accuracy_min":0.75,"crash_loop":5,"error_rate_max":0.125,"latency_ms_p95_max":40.0,'
    '"on_failed_probe":"go_back","probe_every_s":86400.0,"sessions":50}'
)
_TENSOR = '{"dtype":"float32","shape":[1,2],"values":[0.5,1.0]}'
GOLDEN = {
    "release": (
        RELEASE,
        """
{"build_hash":"a1b2c3d4e5f6","changelog":["better"],"created":"2026-03-05T10:00:00Z",
"format":"whimbrel-release-1",<LOCAL_LIMITS>,"metrics":{"accuracy":0.875,"samples":12},"model":"wake",
"model_signatures":[{"anchor":{"sha256":"<F>","size_bytes":7},"bundle":{"sha256":"<E>","size_bytes":6},
"method":"key","signer":"key sha256:1","variants":["linux"]}],
"reference":{"bins":["cat","dog"],"kind":"classes","shares":[0.75,0.25]},
"requires":[{"model":"sleep","serial":2}],"semantic_version":"2.4.1","serial":3,
"training":{"architecture":"a","build_hash":"b","code":{"commit":"1f3b5a7","url":"https://git.example.com/wake"},
"dataset":"s","datasets":[{"digest":"md5:dddddddddddddddddddddddddddddddd","name":"speech"}],"date":"d",
"framework":"f","parent":"p","parents":[{"model":"wake","serial":2,"version":"2026.03.04.1"}],
"recipe":{"sha256":"<C>","size_bytes":5},"run":"r",
"target_hardware":["h1","h2"]},"unchecked":["an objection"],
"variants":[{"files":[{"format":"onnx","name":"model.onnx","packed":true,
"sealed":{"sha256":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","size_bytes":207},
"sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size_bytes":7}],
"name":"linux","precision":"float32","probe":{"absolute_tolerance":0.5,"inputs":{"x":<TENSOR>},
"latency_ms_max":9.5,"memory_mib_max":64,"output_ranges":{"y":[0.0,1.0]},"outputs":{"y":<TENSOR>},
"relative_tolerance":0.25,
"smoke":false,"validation":{"accuracy_min":0.5,"inputs":{"x":<TENSOR>},"labels":[7],"output":"y"}},
"runtime":"onnxruntime",
"selector":<SELECTOR>,"signature":{"inputs":[{"dtype":"float32","name":"x",
"shape":["batch",null,4]}],"outputs":[{"dtype":"float32","name":"y","shape":[1]}]}}],
"version":"2026.03.05.1"}
""",
    ),
    "line": (
        LINE,
        """
{"format":"whimbrel-line-1","minimum_serial":2,"model":"wake","revoked":[3,5],"sequence":4}
""",
    ),
    "floor": (
        Floor(model="wake", sequence=4, days=30),
        """
{"days":30,"format":"whimbrel-floor-1","model":"wake","sequence":4}
""",
    ),
    "policy": (
        POLICY,
        """
{"activate_max_age_s":120.0,"baseline":2,"conditions":{"battery_min":0.5,"charging":true,
"idle":true,"metered_mib_a_day":20,"start_jitter_s":60.0,"storage_mib_min":500,"unmetered":true,
"window_utc":[0,3600],
"windows":[{"days":["fri"],"end_s":21600,"start_s":79200,"zone":"Europe/Berlin"}]},
"format":"whimbrel-policy-1","hardware_label":"chip","known_good":[2,1],
"layers":[{"entries":[{"arms":[{"conditions":{"idle":true},"end":50000,"name":"canary","role":"treated",
"selector":<SELECTOR>,
"serial":3,"stage":1,"start":0},{"end":1000000,"name":"control","role":"control","serial":2,
"stage":0,"start":50000},{"end":1,"name":"shadow","role":"treated","serial":3,
"shadow":{"compare":"values","sample_ppm":50000,"tolerance":0.25},"stage":0,"start":0}],"before":["accuracy"],
"bucket_by":"user_id","delays_by_class":{"pi":[20.0,90.0]},"delays_s":[1.5,20.0],"end":999990,"rollout":"r1",
"selector":<SELECTOR>,"start":10}],"salt":42}],<LOCAL_LIMITS>,"model":"wake",
"on_revoked":"stop","overrides":[3],"pins":[{"devices":["dev-1"],"serial":1},{"selector":<SELECTOR>,
"serial":2}],"quarantine":[{"selector":<SELECTOR>,"serial":4}],"refresh_s":60.0,
"report_labels":["region"],"report_s":30.0,"sequence":9,
"set_leads":[{"lead_serial":7,"model":"encoder","serial":3}],"slice_labels":["os"]}
""",
    ),
    "batch": (
        BATCH,
        """
{"builds":{"wake":{"latency_ms":12.5,"latency_ms_max":20.0,"memory_mib":40.0,"memory_mib_max":64.0,"serial":3,
"variant":"small"}},"epoch":"0123456789abcdef","labels":{"region":"NZ"},"models":["wake","sleep"],
"run_history":{"entries":["{\\"number\\":1}"],"head":"{\\"number\\":1}",
"signature":"ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss"},
"runs":{"wake":2},"waiting":{"wake":"a charger"},"windows":[{"cohorts":[{"age_s":2.5,
"before":{"accuracy":0.5},"role":"control","rollout":"r1","stage":1}],"crashed":1,"errors":2,"first":7,
"hardware_class":"x1","inferences":5,"last":8,"latency":{"-3":1,"254":2},"metrics":{"accuracy":{"most":1.0,"n":2,"sum":1.5,
"sumsq":1.25}},"model":"wake","predictions":{"0":3,"2":1},"serial":3,"sessions":4,
"shadow":{"active":{"34":4},"active_ms":8.0,
"agreed":3.5,"candidate":{"55":4},"candidate_ms":12.0,"compared":4,"crashed":1,"dropped":6,"errors":2,"inputs":7,
"serial":4,"skipped":5},"slices":{"os":"linux"}}]}
""",
    ),
    "announcement": (
        ANNOUNCEMENT,
        """
{"bytes_moved":8,"hardware_class":"x1","model":"wake","moved_by":{"delta":8},
"reason":"it crashed","role":"control",
"rollout":"r1","serial":3,"slices":{"os":"linux"},"stage":1,"step":"went_back"}
""",
    ),
    "cell": (
        CELL,
        """
{"age_bucket":5,"at_risk":9,"crashed":7,"due":4,"due_again":3,"error_share":0.5,"error_squares":0.375,"error_units":6,
"hardware_class":"x1","latency":{"-3":1,"254":2},"metrics":{"accuracy":{"n":2,"sum":1.5,
"sumsq":1.25}},"overdue":3,"overdue_again":1,"pairs":{"accuracy":{"both":1.25,"now":1.5,"pairs":3,"squares":5,"then":2.5}},"panels":{"accuracy":{"both":8,"both_y":1.0,"both_yy":0.75,"n":9,"x":2.5,
"xx":2.0,"xy":1.75,"y":1.5,"yy":1.25}},"prediction_units":2,
"predictions":{"1":{"n":2,"sum":1.5,"sumsq":1.25}},"role":"control","sessions":8,"shadow":{"active":{"34":4},
"agreed":3.5,"candidate":{"55":4},"compared":4,"compared_windows":2,"crashed":1,"crashed_windows":1,
"disagreed":{"-69":1},"disagreed_share":0.25,"dropped":6,"errors":2,"failed":{"-34":1},"failed_share":0.5,"inputs":7,"ratios":{"21":2},"skipped":5,
"windows":3},"slices":{"os":"linux"},"stage":1,"unused":5,"user_reports":2,"version_reports":1,"window":6}
""",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_of_a_document(name: str) -> None:
    document, golden = GOLDEN[name]
    text = (
        golden.replace("<SELECTOR>", _SELECTOR)
        .replace("<TENSOR>", _TENSOR)
        .replace("<LOCAL_LIMITS>", _LOCAL_LIMITS)
        .replace("<C>", 64 * "c")
        .replace("<E>", 64 * "e")
        .replace("<F>", 64 * "f")
        .replace("\n", "")
    )
    assert encode(document).decode() == text


@pytest.mark.parametrize("name", GOLDEN)
def test_a_document_is_read_back(name: str) -> None:
    document, _ = GOLDEN[name]
    assert parse(type(document), encode(document), what=name) == document


def _structs(value: object) -> list[Document]:
    if isinstance(value, Document):
        return [value, *(each for field in value.__struct_fields__ for each in _structs(getattr(value, field)))]
    if isinstance(value, tuple | dict):
        return [each for one in (value.values() if isinstance(value, dict) else value) for each in _structs(one)]
    return []


@pytest.mark.parametrize("name", GOLDEN)
def test_every_field_is_set_somewhere_in_the_vector(name: str) -> None:
    """A field that is added and not put into the vector fails here."""
    unset: dict[type, set[str]] = {}
    for each in _structs(GOLDEN[name][0]):
        missing = set(each.__struct_fields__) - set(msgspec.to_builtins(each))
        unset[type(each)] = unset.get(type(each), missing) & missing
    assert {kind.__name__: fields for kind, fields in unset.items() if fields} == {}
