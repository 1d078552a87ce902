"""Which devices can run a version is counted by what devices tell, and what is not told is not guessed."""

import msgspec
import pytest

from support.values import T0, Town, reports, town, window
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.version_fit import NoFit, VariantNeeds, VersionFit, fit_of, fit_of_version, runs_where
from whimbrel.health.report import Build
from whimbrel.model.selector import Expression, Operator, Selector

ANDROID = VariantNeeds(name="android", selector=Selector(match_labels={"platform": "android"}))
OPSET = Expression(key="runtime.onnxruntime", operator="NotVersion", values=("<1.18",))
NEW_RUNTIME = VariantNeeds(name="onnx", selector=Selector(match_expressions=(OPSET,)))
ANY = VariantNeeds(name="any")


def fit(here: Town, *variants: VariantNeeds, told: tuple[str, ...] = ("platform", "runtime.onnxruntime")) -> VersionFit:
    model = here.registry.model("wake")
    settings = msgspec.structs.replace(model.settings, report_labels=told)
    return fit_of(here.fleet, msgspec.structs.replace(model, settings=settings), variants)


def counts(found: VersionFit) -> tuple[dict[str, int], int, int, int]:
    return {each.name: each.devices for each in found.variants}, found.some, found.unknown, found.none


def test_each_device_counts_for_the_first_variant_that_fits() -> None:
    with town() as here:
        here.enrol("a", "b", labels={"platform": "android"}, models=("wake",))
        here.enrol("c", labels={"platform": "linux"}, models=("wake",))
        here.enrol("x", labels={"platform": "linux"}, models=("sleep",))
        found = fit(here, ANDROID, ANY)
        assert (found.fleet, counts(found)) == (3, ({"android": 2, "any": 1}, 0, 0, 0))


def test_why_no_variant_fits_is_said_of_the_nearest_one_with_what_devices_have() -> None:
    with town() as here:
        here.enrol("a", "b", "c", labels={"runtime.onnxruntime": "1.14.0", "platform": "linux"}, models=("wake",))
        here.enrol("d", labels={"runtime.onnxruntime": "1.17.1", "platform": "linux"}, models=("wake",))
        here.enrol("e", labels={"platform": "linux"}, models=("wake",))  # brings a runtime of its own
        picky = VariantNeeds(
            name="picky", selector=Selector(match_labels={"platform": "ios"}, match_expressions=(OPSET,))
        )
        found = fit(here, picky, NEW_RUNTIME)
        assert counts(found) == ({"picky": 0, "onnx": 1}, 0, 0, 4)
        (reason,) = found.reasons
        assert (reason.devices, reason.variant) == (4, "onnx")
        assert reason.needs == "runtime.onnxruntime not to be <1.18"
        assert reason.has == {"runtime.onnxruntime=1.14.0": 3, "runtime.onnxruntime=1.17.1": 1}


def test_what_depends_on_a_label_that_devices_do_not_tell_is_not_known() -> None:
    with town() as here:
        here.enrol("a", labels={}, models=("wake",))
        here.enrol("b", labels={"platform": "android"}, models=("wake",))  # told because another model asks for it
        assert counts(fit(here, ANDROID, told=())) == ({"android": 1}, 0, 1, 0)
        assert fit(here, ANDROID, told=()).untold == ("platform",)
        assert counts(fit(here, ANDROID, ANY, told=())) == ({"android": 1, "any": 0}, 1, 0, 0)
        assert counts(fit(here, ANDROID)) == ({"android": 1}, 0, 0, 1)
        assert fit(here, ANDROID).reasons[0].has == {"no platform": 1}


def test_a_label_that_is_not_told_and_only_leaves_out_some_values_is_assumed_to_be_fine() -> None:
    """Which runtime a device has it tells only when it is asked, and nearly every ONNX file leaves out old ones."""
    with town() as here:
        here.enrol("a", "b", labels={}, models=("wake",))
        found = fit(here, NEW_RUNTIME, told=())
        assert counts(found) == ({"onnx": 2}, 0, 0, 0)
        assert (found.fleet, found.assumed, found.assumed_for, found.untold) == (2, 2, ("runtime.onnxruntime",), ())
        found = fit(here, ANDROID, NEW_RUNTIME, told=())
        assert (counts(found), found.assumed) == (({"android": 0, "onnx": 0}, 2, 0, 0), 2)
        assert fit(here, NEW_RUNTIME).assumed == 0


def test_whether_a_device_may_run_a_version_is_no_only_where_that_is_certain() -> None:
    may_run = runs_where([ANDROID, NEW_RUNTIME], told=["platform"])
    assert may_run is not None
    assert may_run({"platform": "linux"})
    assert not may_run({"platform": "linux", "runtime.onnxruntime": "1.14"})
    assert may_run({"platform": "android", "runtime.onnxruntime": "1.14"})
    assert runs_where([ANDROID, ANY], told=["platform"]) is None


def test_an_empty_fleet_has_no_numbers() -> None:
    with town() as here:
        found = fit(here, ANY)
        assert (found.fleet, counts(found), found.reasons) == (0, ({"any": 0}, 0, 0, 0), ())


@pytest.mark.parametrize(
    ("operator", "values", "has", "needs"),
    [
        ("In", ("a", "b"), "x", "k to be a or b"),
        ("NotIn", ("x", "y"), "x", "k not to be x or y"),
        ("DoesNotExist", (), "x", "k not to be there"),
        ("Exists", (), None, "k to be there"),
        ("Gt", ("5",), "5", "k over 5"),
        ("Lt", ("5",), "5", "k under 5"),
        ("Version", (">=2", "<3"), "1.0", "k to be >=2, <3"),
        ("NotVersion", ("<2",), "1.0", "k not to be <2"),
    ],
)
def test_what_a_build_needs_is_said_in_words(
    operator: Operator, values: tuple[str, ...], has: str | None, needs: str
) -> None:
    term = Expression(key="k", operator=operator, values=values)
    with town() as here:
        here.enrol("a", labels={} if has is None else {"k": has}, models=("wake",))
        found = fit(here, VariantNeeds(name="v", selector=Selector(match_expressions=(term,))), told=("k",))
    assert found.reasons == (NoFit(1, "v", needs, {f"k={has}" if has is not None else "no k": 1}),)


def test_several_terms_that_do_not_hold_are_named_together() -> None:
    both = VariantNeeds(name="v", selector=Selector(match_labels={"os": "ios", "platform": "android", "ring": "a"}))
    with town() as here:
        here.enrol("a", labels={"platform": "linux", "ring": "a"}, models=("wake",))
        (reason,) = fit(here, both, told=("os", "platform", "ring")).reasons
    assert (reason.needs, reason.has) == ("os to be ios and platform to be android", {"no os, platform=linux": 1})


def test_the_most_frequent_reasons_and_values_are_told_and_no_more() -> None:
    needs = [VariantNeeds(name=f"v{n}", selector=Selector(match_labels={f"k{n}": "y", "all": "y"})) for n in range(10)]
    with town() as here:
        for n in range(10):
            for each in range(n + 1):  # of n + 1 devices the variant n is the nearest
                labels = {f"k{n}": "y", "all": f"no{min(each, 4)}"}
                here.enrol(f"d{n}-{each}", labels=labels, models=("wake",))
        found = fit(here, *needs, told=("all", *(f"k{n}" for n in range(10))))
    assert [(each.devices, each.variant) for each in found.reasons] == [(n + 1, f"v{n}") for n in range(9, 1, -1)]
    assert found.reasons[0].has == {"all=no4": 6, "all=no0": 1, "all=no1": 1}
    assert found.none == found.fleet == 55


def test_a_device_counts_once_also_where_its_build_is_assumed() -> None:
    with town() as here:
        here.enrol("a", "b", labels={}, models=("wake",))
        here.enrol("c", labels={"runtime.onnxruntime": "1.20"}, models=("wake",))
        found = fit(here, NEW_RUNTIME, told=())
        assert (found.fleet, counts(found), found.assumed) == (3, ({"onnx": 3}, 0, 0, 0), 2)
        assert (found.model, found.told, found.running) == ("wake", (), {})


def test_how_many_devices_run_each_build_is_told_of_a_version_that_is_published() -> None:
    with town() as here:
        told = [
            reports(
                device,
                window(cohorts=(), hardware_class=hardware),
                builds={"wake": Build(serial=2, variant="any")},
                models=("wake",),
            )
            for device, hardware in (("a", "pi4"), ("b", "pi5"))
        ]
        here.enrol("a", "b", models=("wake",))
        ingest(here.registry, here.fleet, told, now=T0 + 400, devices=here.stores.inventory)
        found = fit_of_version(here.registry, here.fleet, "wake", 2)
        assert (counts(found), found.running) == (({"any": 2}, 0, 0, 0), {"any": 2})
        assert fit_of_version(here.registry, here.fleet, "wake", 1).running == {}
