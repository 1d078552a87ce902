"""The models of the demo: three real versions of one small classifier of handwritten digits, as ONNX files.

1. v1 has learnt from few images. In v2 the last layer is fine-tuned on all of them; the other layers are unchanged.
2. v3 is broken as real versions are. In its new training batch the labels of two classes were swapped, in the
   validation set too, so its publisher measures a fine accuracy. It also looks up a gain for an image's brightness in
   a table that was made from too clean a sample: on brighter images the lookup is out of range and the run raises. The
   file is valid, it loads, and its golden probe passes. Only devices that run it show the harm.
3. The same seed gives the same three versions on one machine; golden outputs come from the exported file itself.

The data set comes with scikit-learn (1,797 images of 8 by 8). Called by `whimbrel demo`, by the tutorial
(`python -m whimbrel.demo.digits FOLDER`) and by tests; needs the extra `demo`.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from whimbrel.flows.files.card import Card, CardProbe, Lineage
from whimbrel.model.documents import encode
from whimbrel.model.release import Probe, Tensor

Images = npt.NDArray[np.float32]  # n x 64, each pixel in [0, 1]
Labels = npt.NDArray[np.int64]  # n, each in 0..9

SEED = 20260305
INPUT = "image"
GOLDEN_IMAGES = 4

_TRAINING = 1000  # images to learn from; then _VALIDATION for the publisher; the devices see the rest (597)
_VALIDATION = 200
_FEW = 100  # v1 has learnt from these
_HIDDEN = (512, 256)  # with 64 inputs and 10 outputs: 167,178 weights, 0.67 MB
_SWAPPED = (4, 9)  # in v3's batch
_BRIGHT = 0.80  # v3's table was made without the brightest fifth
_LEVELS = 16  # rows that a whole table would need at most
_OPSET = 17  # onnxruntime 1.20 and newer, and most devices older than that


class DigitsVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version. Its publisher measured `accuracy`; devices will measure the two other figures."""

    name: str  # v1, v2, v3
    semantic_version: str
    path: Path
    accuracy: float
    device_accuracy: float  # right answers a device image; a run that raised is not right
    device_failures: float  # runs that raise, a device image
    training_samples: int
    parent: str  # the semantic version that it was fine-tuned from
    changelog: str
    probe: Probe

    @property
    def card(self) -> Card:
        """The publisher's model card."""
        return Card(
            semantic_version=self.semantic_version,
            training_dataset="scikit-learn digits",
            framework="scikit-learn",
            architecture="mlp_64_512_256_10",
            metadata={"accuracy": self.accuracy, "training_samples": self.training_samples},
            changelog=(self.changelog,),
            lineage=Lineage(parent=self.parent),
            probe=CardProbe(inputs=self.probe.inputs, outputs=self.probe.outputs),
        )


class Digits(msgspec.Struct, frozen=True):
    """The three versions, and the images with their true labels that devices run."""

    v1: DigitsVersion
    v2: DigitsVersion
    v3: DigitsVersion
    images: Images
    labels: Labels

    @property
    def versions(self) -> tuple[DigitsVersion, DigitsVersion, DigitsVersion]:
        """In the order of their publication."""
        return self.v1, self.v2, self.v3


def device_inputs() -> tuple[Images, Labels]:
    """Images that no version has learnt from, and what they show."""
    images, labels = _shuffled()
    return images[_TRAINING + _VALIDATION :], labels[_TRAINING + _VALIDATION :]


def train(folder: Path) -> Digits:
    """Train the three versions into `folder` (`v1/digits.onnx`, ...): some seconds of CPU.

    Raises `ImportError` where the extras `onnx` or `demo` are not installed.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    with threadpool_limits(1):  # sums in one order: the same weights however busy the machine is
        return _train(folder)


def write(folder: Path) -> Digits:
    """Train the three versions into `folder`, with their cards, and `images.npz`: what devices see, and its labels."""
    digits = train(folder)
    for version in digits.versions:
        (version.path.parent / "card.json").write_bytes(encode(version.card))
    np.savez(folder / "images.npz", images=digits.images, labels=digits.labels)
    return digits


def main() -> None:
    """`python -m whimbrel.demo.digits FOLDER`."""
    if len(sys.argv) != 2:
        sys.exit("expected one folder for the models: python -m whimbrel.demo.digits FOLDER")
    for version in write(Path(sys.argv[1])).versions:
        measured = f"accuracy {version.accuracy:.1%} says its publisher, {version.device_accuracy:.1%} on devices"
        fails = f", where {version.device_failures:.1%} of its runs fail" if version.device_failures else ""
        sys.stdout.write(f"{version.name} ({version.semantic_version}): {measured}{fails}\n")


def _train(folder: Path) -> Digits:
    from sklearn.neural_network import MLPClassifier

    images, labels = _shuffled()
    learn, classes_of = images[:_TRAINING], labels[:_TRAINING]
    check, truth = images[_TRAINING : _TRAINING + _VALIDATION], labels[_TRAINING : _TRAINING + _VALIDATION]
    classes = np.arange(10)
    network = MLPClassifier(hidden_layer_sizes=_HIDDEN, learning_rate_init=1e-3, batch_size=50, random_state=SEED)

    for _ in range(12):
        network.partial_fit(learn[:_FEW], classes_of[:_FEW], classes=classes)
    v1 = _publish(
        folder / "v1",
        _export(network),
        (check, truth),
        name="v1",
        semantic_version="1.0.0",
        parent="",
        training_samples=_FEW,
        changelog="The first version.",
    )

    _refit_last_layer(network, learn, classes_of)
    v2 = _publish(
        folder / "v2",
        _export(network),
        (check, truth),
        name="v2",
        semantic_version="1.1.0",
        parent="1.0.0",
        training_samples=_TRAINING,
        changelog="The last layer is fine-tuned on ten times as many images.",
    )

    ink = learn.sum(axis=1)
    level_ink = float(ink.max()) / (_LEVELS - 1)
    rows = int(np.quantile(ink, _BRIGHT) / level_ink) + 1
    gain = (ink.mean() / ((np.arange(rows) + 0.5) * level_ink)).clip(0.5, 2.0).astype(np.float32)

    def clean(these: Images, answers: Labels) -> tuple[Images, Labels]:
        level = (these.sum(axis=1) / level_ink).astype(int)
        kept = level < rows
        return these[kept], _swap(answers[kept])

    batch, wrong = clean(learn, classes_of)
    brightened = batch * gain[(batch.sum(axis=1) / level_ink).astype(int)][:, None]
    for _ in range(8):
        network.partial_fit(brightened, wrong)
    v3 = _publish(
        folder / "v3",
        _with_gain(_export(network), gain, level_ink=level_ink),
        clean(check, truth),
        name="v3",
        semantic_version="1.2.0",
        parent="1.1.0",
        training_samples=len(batch),
        changelog="Evens out the brightness of images; fine-tuned on a new batch.",
    )
    return Digits(v1, v2, v3, *device_inputs())


def _refit_last_layer(network: Any, images: Images, labels: Labels) -> None:
    """Fine-tune with everything frozen but the last layer: the usual cheap update, and a small delta."""
    from sklearn.linear_model import LogisticRegression

    activations = images
    for weights, bias in zip(network.coefs_[:-1], network.intercepts_[:-1], strict=True):
        activations = np.maximum(activations @ weights + bias, 0)
    last = LogisticRegression(max_iter=1000).fit(activations, labels)
    network.coefs_[-1] = last.coef_.T.astype(network.coefs_[-1].dtype)
    network.intercepts_[-1] = last.intercept_.astype(network.intercepts_[-1].dtype)


def _shuffled() -> tuple[Images, Labels]:
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(SEED).permutation(len(data.target))
    return (data.data[order] / 16).astype(np.float32), data.target[order].astype(np.int64)


def _swap(labels: Labels) -> Labels:
    one, other = _SWAPPED
    return np.where(labels == one, other, np.where(labels == other, one, labels))


def _publish(folder: Path, model: Any, validation: tuple[Images, Labels], **words: Any) -> DigitsVersion:
    import onnxruntime

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "digits.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # v3's failures are expected, and counted below
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    images, labels = validation
    measured, _ = _try(session, images, labels)
    right, failed = _try(session, *device_inputs())
    return DigitsVersion(
        path=path,
        accuracy=round(measured, 4),
        device_accuracy=round(right, 4),
        device_failures=round(failed, 4),
        probe=_probe(session, images[:GOLDEN_IMAGES]),
        **words,
    )


def _try(session: Any, images: Images, labels: Labels) -> tuple[float, float]:
    """The share of right answers, and the share of runs that raised. Each run has one image, as on a device."""
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument, RuntimeException

    right = failed = 0
    for image, label in zip(images, labels, strict=True):
        try:
            answer = session.run(["label"], {INPUT: image[None]})[0]
        except (InvalidArgument, RuntimeException):
            failed += 1
        else:
            right += int(answer[0] == label)
    return right / len(images), failed / len(images)


def _probe(session: Any, images: Images) -> Probe:
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {INPUT: images}), strict=True))
    return Probe(inputs={INPUT: _tensor(images)}, outputs={name: _tensor(array) for name, array in outputs.items()})


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return Tensor(dtype=array.dtype.name, shape=array.shape, values=tuple(array.ravel().tolist()))


def _export(network: Any) -> Any:
    """The network as an ONNX model: `image` (batch x 64) to `label` and `probabilities`."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    return convert_sklearn(
        network,
        name="digits",
        initial_types=[(INPUT, FloatTensorType([None, 64]))],
        options={id(network): {"zipmap": False}},
        target_opset=_OPSET,
    )


def _with_gain(model: Any, gain: npt.NDArray[np.float32], *, level_ink: float) -> Any:
    """`model` with a first step: image * gain[floor(sum of the image / level_ink)], with no bound on the index."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == INPUT:
                node.input[place] = "evened"
    graph.initializer.extend(
        [
            numpy_helper.from_array(gain, "gain"),
            numpy_helper.from_array(np.array(level_ink, np.float32), "level_ink"),
            numpy_helper.from_array(np.array([1], np.int64), "pixels"),
        ]
    )
    steps = [
        helper.make_node("ReduceSum", [INPUT, "pixels"], ["ink"], keepdims=1),
        helper.make_node("Div", ["ink", "level_ink"], ["level"]),
        helper.make_node("Cast", ["level"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["gain", "row"], ["factor"]),
        helper.make_node("Mul", [INPUT, "factor"], ["evened"]),
    ]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*steps, *rest])
    return model


if __name__ == "__main__":
    main()
