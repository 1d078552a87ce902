"""What a file asks of its runtime, read by hand, and held against the runtime that is installed here."""

import onnxruntime
import pytest
from onnx import TensorProto, helper

from whimbrel.model import runtime_needs
from whimbrel.model.formats import Format
from whimbrel.model.runtime_needs import too_old
from whimbrel.model.selector import Expression, Selector


def identity(*, opset: int = 17, ir: int = 8, domain: str = "", more: dict[str, int] | None = None) -> bytes:
    """An ONNX file of one node."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    opsets = {domain: opset, **(more or {})}
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(name, number) for name, number in opsets.items()]
    )
    model.ir_version = ir
    return bytes(model.SerializeToString())


def bounds(content: bytes, kind: Format = "onnx") -> tuple[str, ...]:
    term = too_old(kind, lambda offset, size: content[offset : offset + size], len(content))
    return term.values if term else ()


def opens(content: bytes) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's errors have no tree
        return False
    return True


@pytest.mark.parametrize(
    ("content", "bound"),
    [
        (identity(opset=7, ir=3), ()),
        (identity(opset=17, ir=8), ("<1.12",)),
        (identity(opset=17, ir=10), ("<1.18",)),
        (identity(opset=21, ir=8), ("<1.18",)),
        (identity(opset=22, ir=10), ("<1.21",)),
        (identity(opset=22, domain="ai.onnx"), ("<1.21",)),
        (identity(opset=25, ir=8), ("<1.24",)),
        (identity(opset=13, ir=7, more={"ai.onnx.ml": 4}), ("<1.17",)),
        (identity(opset=13, ir=7, more={"com.example": 99}), ("<1.6",)),
        (identity(opset=99), ("<=1.31.1",)),
        (identity(opset=13, ir=99), ("<=1.31.1",)),
    ],
)
def test_the_newest_fact_of_an_onnx_file_decides(content: bytes, bound: tuple[str, ...]) -> None:
    assert bounds(content) == bound


@pytest.mark.parametrize("opset", range(12, 30))
def test_the_table_agrees_with_the_installed_runtime_on_opsets(opset: int) -> None:
    content = identity(opset=opset, ir=8)
    term = Expression(key="v", operator="NotVersion", values=bounds(content))
    assert term.matches({"v": onnxruntime.__version__}) == opens(content)


@pytest.mark.parametrize("ir", range(4, 16))
def test_the_table_agrees_with_the_installed_runtime_on_ir_versions(ir: int) -> None:
    content = identity(opset=13, ir=ir)
    term = Expression(key="v", operator="NotVersion", values=bounds(content))
    assert term.matches({"v": onnxruntime.__version__}) == opens(content)


@pytest.mark.parametrize(
    ("head", "bound"),
    [
        (b"GGUF\x01\0\0\0", ("<0.1.79",)),
        (b"GGUF\x02\0\0\0", ("<0.1.79",)),
        (b"GGUF\x03\0\0\0", ("<0.2.12",)),
        (b"GGUF\0\0\0\x03", ("<0.2.12",)),
        (b"GGUF", ()),
        (b"tiny", ()),
    ],
)
def test_a_gguf_file_says_its_version_in_its_own_byte_order(head: bytes, bound: tuple[str, ...]) -> None:
    assert bounds(head, "gguf") == bound


def test_formats_that_say_nothing_of_their_runtime_leave_nobody_out() -> None:
    assert too_old("tflite", lambda *_: b"", 0) is None
    assert too_old("safetensors", lambda *_: b"", 0) is None


def test_a_device_without_the_runtimes_label_is_not_left_out() -> None:
    content = identity(opset=22, ir=10)
    term = too_old("onnx", lambda offset, size: content[offset : offset + size], len(content))
    assert term is not None
    selector = Selector(match_expressions=(term,))
    versions = {"1.20.1": False, "1.21.0": True, "1.31.1": True, "built by hand": False}
    assert {each: selector.matches({"runtime.onnxruntime": each}) for each in versions} == versions
    assert selector.matches({"os": "linux"})


def test_rows_rise() -> None:
    for rows in (runtime_needs._ONNX_IR, *runtime_needs._ONNX_OPSETS.values(), runtime_needs._GGUF):
        assert [number for number, _ in rows] == sorted({number for number, _ in rows})
        reaches = [runtime_needs._reach(bound) for _, bound in rows]
        assert reaches == sorted(set(reaches))


@pytest.mark.parametrize("content", [identity()[:-1], b"\x08", b"\x42\x7f\x01", b"\xff" * 40])
def test_a_file_that_is_cut_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"it|field"):
        bounds(content)
