"""Which devices can run a version is counted by what devices tell, and what is not told is not guessed."""

import msgspec

from support.values import Town, town
from whimbrel.flows.version_fit import VariantNeeds, VersionFit, fit_of, runs_where
from whimbrel.model.selector import Expression, Selector

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
