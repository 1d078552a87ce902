"""The demo's three models are what the demo says of them."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from whimbrel.demo.digits import INPUT, Digits, device_inputs, train
from whimbrel.flows.publishing.check_golden import golden_objection
from whimbrel.model.release import Probe
from whimbrel.stores.inspection import inspect


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return train(tmp_path_factory.mktemp("digits"))


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _passes(path: Path, probe: Probe) -> bool:
    feed = {name: np.array(t.values, t.dtype).reshape(t.shape) for name, t in probe.inputs.items()}
    names = list(probe.outputs)
    found = dict(zip(names, _session(path).run(names, feed), strict=True))
    return all(
        np.allclose(
            found[name],
            np.array(t.values, t.dtype).reshape(t.shape),
            atol=probe.absolute_tolerance,
            rtol=probe.relative_tolerance,
        )
        for name, t in probe.outputs.items()
    )


def test_every_version_passes_its_own_golden_probe_the_broken_one_too(digits: Digits) -> None:
    for version in digits.versions:
        assert _passes(version.path, version.probe), version.name


def test_cards_say_what_was_measured_and_what_came_before(digits: Digits) -> None:
    for before, version in zip([None, *digits.versions], digits.versions, strict=False):
        assert version.card.metrics["accuracy"] == version.accuracy
        assert version.card.lineage.parent == (before.semantic_version if before else "")
        assert version.card.probe is not None
        assert version.card.probe.probe() == version.probe


def test_inspection_and_golden_values_agree(digits: Digits) -> None:
    for version in digits.versions:
        found = inspect(version.path)
        assert found.format == "onnx"
        assert found.signature is not None
        assert golden_objection(version.probe, found.signature) is None


def test_versions_tell_each_other_apart_by_the_probe(digits: Digits) -> None:
    assert not _passes(digits.v1.path, digits.v2.probe)


def test_publisher_measures_each_version_better_than_the_one_before(digits: Digits) -> None:
    assert digits.v1.accuracy < digits.v2.accuracy <= digits.v3.accuracy
    assert digits.v2.accuracy > 0.9


def test_devices_find_v2_better_and_never_failing(digits: Digits) -> None:
    assert digits.v2.device_accuracy > digits.v1.device_accuracy + 0.03
    assert digits.v1.device_failures == digits.v2.device_failures == 0


def test_devices_find_v3_failing_or_wrong_on_a_quarter_to_two_fifths_of_inputs(digits: Digits) -> None:
    assert 0.05 < digits.v3.device_failures < 0.3
    assert 0.25 <= 1 - digits.v3.device_accuracy <= 0.45


def test_v2_is_v1_with_other_weights_so_a_delta_makes_sense(digits: Digits) -> None:
    assert digits.v1.path.stat().st_size == digits.v2.path.stat().st_size
    assert 600_000 < digits.v2.path.stat().st_size < 800_000


def test_batch_dimension_is_free(digits: Digits) -> None:
    images, _ = device_inputs()
    for count in (1, 7):
        assert _session(digits.v1.path).run(["label"], {INPUT: images[:count]})[0].shape == (count,)


def test_same_seed_trains_the_same_bytes(digits: Digits, tmp_path: Path) -> None:
    again = train(tmp_path)
    for one, other in zip(digits.versions, again.versions, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes(), one.name
