"""What a file asks of its runtime, read by hand, and held against the runtime that is installed here."""

from typing import Any

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


def test_the_term_names_the_runtime_of_the_format() -> None:
    content = identity(opset=22, ir=10)
    assert too_old("onnx", lambda offset, size: content[offset : offset + size], len(content)) == Expression(
        key="runtime.onnxruntime", operator="NotVersion", values=("<1.21",)
    )
    gguf = b"GGUF\x03\0\0\0"
    assert too_old("gguf", lambda offset, size: gguf[offset : offset + size], len(gguf)) == Expression(
        key="runtime.llama_cpp", operator="NotVersion", values=("<0.2.12",)
    )


@pytest.mark.parametrize(
    ("facts", "bound"),
    [
        *[
            ({"opset": opset, "ir": 3}, bound)
            for opset, bound in ((11, ()), (12, ("<1.3",)), (13, ("<1.6",)), (14, ("<1.8",)))
        ],
        *[
            ({"opset": opset, "ir": 3}, (bound,))
            for opset, bound in ((15, "<1.9"), (16, "<1.11"), (18, "<1.14"), (19, "<1.16"))
        ],
        *[
            ({"opset": opset, "ir": 3}, (bound,))
            for opset, bound in ((20, "<1.17"), (23, "<1.23"), (24, "<1.24"), (26, "<1.25"))
        ],
        ({"opset": 27, "ir": 3}, ("<=1.31.1",)),
        *[
            ({"opset": 7, "ir": ir}, bound)
            for ir, bound in ((7, ()), (8, ("<1.9",)), (9, ("<1.15",)), (10, ("<1.18",)))
        ],
        *[
            ({"opset": 7, "ir": ir}, (bound,))
            for ir, bound in ((11, "<1.23"), (12, "<1.24"), (13, "<1.24"), (14, "<=1.31.1"))
        ],
        *[
            ({"opset": 7, "ir": 3, "more": {"ai.onnx.ml": number}}, bound)
            for number, bound in ((2, ()), (3, ("<1.12",)), (4, ("<1.17",)), (5, ("<1.18",)), (6, ("<=1.31.1",)))
        ],
    ],
)
def test_each_row_of_the_tables_begins_at_its_number(facts: dict[str, Any], bound: tuple[str, ...]) -> None:
    assert bounds(identity(**facts)) == bound


def test_a_runtime_that_is_as_new_as_was_tried_is_further_than_one_before_it() -> None:
    """`<=1.31.1` leaves out more than `<1.31.1` would, and less than `<1.32`."""
    assert bounds(identity(opset=26, ir=14)) == ("<=1.31.1",)
    assert bounds(identity(opset=27, ir=9)) == ("<=1.31.1",)


def opset_field(domain: bytes, version: int) -> bytes:
    inner = b"\x0a" + bytes([len(domain)]) + domain + b"\x10" + bytes([version])
    return b"\x42" + bytes([len(inner)]) + inner


def test_so_many_operator_sets_are_looked_at() -> None:
    """A file of 256 sets is read to its last; a set after them is not, however new it is."""
    known = opset_field(b"com.example", 1) * 255 + opset_field(b"", 13)
    assert bounds(known) == ("<1.6",)
    assert bounds(opset_field(b"com.example", 1) * 256 + opset_field(b"", 13)) == ()


def test_an_operator_set_is_read_up_to_1024_bytes() -> None:
    def of_bytes(size: int) -> bytes:
        inner = b"\x0a" + bytes([0x80 | (size - 5) & 127, (size - 5) >> 7]) + b"d" * (size - 5) + b"\x10\x0d"
        return b"\x42" + bytes([0x80 | size & 127, size >> 7]) + inner

    assert bounds(of_bytes(1024)) == ()
    with pytest.raises(ValueError, match="it ends inside a number"):
        bounds(of_bytes(1025))


def test_an_operator_set_without_a_domain_is_of_the_usual_operators() -> None:
    assert bounds(b"\x42\x02\x10\x0d") == ("<1.6",)
    assert bounds(b"\x42\x04\x10\x0d\x0a\x00") == ("<1.6",)
    assert bounds(opset_field(b"\xff\xfe", 13)) == ()  # no text, and no domain that is known


def test_rows_rise() -> None:
    for rows in (runtime_needs._ONNX_IR, *runtime_needs._ONNX_OPSETS.values(), runtime_needs._GGUF):
        assert [number for number, _ in rows] == sorted({number for number, _ in rows})
        reaches = [runtime_needs._reach(bound) for _, bound in rows]
        assert reaches == sorted(set(reaches))


@pytest.mark.parametrize("content", [identity()[:-1], b"\x08", b"\x42\x7f\x01", b"\xff" * 40])
def test_a_file_that_is_cut_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"it|field"):
        bounds(content)
