"""Real ONNX models that pass a probe, and what they do on other inputs: agree, disagree, end their process, hang, eat.

All take x, float32 [1, 4], and give y, float32 [1, 4]: four scores. The golden input of a probe is 0, 1, 2, 3; what is
wrong with a model shows for inputs whose first value is over 100 alone.
"""

from typing import Any

import numpy as np

SIZE = 4
WRONG_OVER = 100.0


def calls(count: int, *, wrong: float = 0.0, seed: int = 7) -> list[dict[str, Any]]:
    """So many inputs; a share `wrong` of them are such that a bad model shows what it is."""
    chance = np.random.default_rng(seed)
    made = []
    for index in range(count):
        x = chance.normal(size=(1, SIZE)).astype(np.float32)
        x[0, 0] = 1000.0 if index < round(count * wrong) else -5.0
        made.append({"x": x})
    return [made[index] for index in chance.permutation(len(made))]


def good(*, factor: float = 2.0) -> bytes:
    """y = x * factor."""
    return _model([_helper().make_node("Mul", ["x", "factor"], ["y"])], {"factor": [factor]})


def disagreeing() -> bytes:
    """y = 2 x, and where it shows: the scores the other way round."""
    helper = _helper()
    turned = [helper.make_node("Neg", ["twice"], ["other"])]
    return _model(
        [
            helper.make_node("Mul", ["x", "two"], ["twice"]),
            *_shows(),
            _if("shows", turned, [helper.make_node("Identity", ["twice"], ["other"])]),
        ],
        {"two": [2.0], "edge": [WRONG_OVER]},
    )


def aborting() -> bytes:
    """y = 2 x, and where it shows: the least whole number by -1, which onnxruntime divides (SIGFPE on x86)."""
    helper = _helper()
    from onnx import TensorProto, numpy_helper

    least = numpy_helper.from_array(np.full((1, SIZE), np.iinfo(np.int64).min), "least_value")
    one = numpy_helper.from_array(np.array(1, dtype=np.int64), "one_value")

    fatal = [
        helper.make_node("Constant", [], ["least"], value=least),
        helper.make_node("Constant", [], ["one"], value=one),
        helper.make_node("Sub", ["x", "x"], ["zeros"]),
        helper.make_node("Cast", ["zeros"], ["none"], to=TensorProto.INT64),
        helper.make_node("Sub", ["none", "one"], ["minus"]),
        helper.make_node("Div", ["least", "minus"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["other"], to=TensorProto.FLOAT),
    ]
    return _with_branch(fatal)


def hanging() -> bytes:
    """y = 2 x, and where it shows: a loop that takes longer than anybody waits."""
    helper = _helper()
    from onnx import TensorProto, numpy_helper

    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Add", ["before", "before"], ["after"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    rounds = numpy_helper.from_array(np.array(2**60, dtype=np.int64), "rounds_value")
    always = numpy_helper.from_array(np.array(True), "always_value")
    return _with_branch(
        [
            helper.make_node("Constant", [], ["rounds"], value=rounds),
            helper.make_node("Constant", [], ["always"], value=always),
            helper.make_node("Loop", ["rounds", "always", "x"], ["other"], body=body),
        ]
    )


def hungry() -> bytes:
    """y = 2 x, and where it shows: an array of 64 GiB on the way."""
    helper = _helper()
    from onnx import numpy_helper

    many = numpy_helper.from_array(np.array([2**32, 4], dtype=np.int64), "many_value")
    return _with_branch(
        [
            helper.make_node("Constant", [], ["many"], value=many),
            helper.make_node("Expand", ["x", "many"], ["large"]),
            helper.make_node("ReduceMax", ["large"], ["other"], axes=[0], keepdims=1),
        ]
    )


def _with_branch(nodes: list[Any]) -> bytes:
    helper = _helper()
    plain = [helper.make_node("Mul", ["x", "two"], ["other"])]
    return _model([*_shows(), _if("shows", nodes, plain)], {"two": [2.0], "edge": [WRONG_OVER]})


def _shows() -> list[Any]:
    from onnx import numpy_helper

    helper = _helper()
    first = numpy_helper.from_array(np.array([0], dtype=np.int64), "first_value")
    return [
        helper.make_node("Constant", [], ["first"], value=first),
        helper.make_node("Gather", ["x", "first"], ["value"], axis=1),
        helper.make_node("Greater", ["value", "edge"], ["greater"]),
        helper.make_node("Squeeze", ["greater"], ["shows"]),
    ]


def _if(condition: str, then: list[Any], otherwise: list[Any]) -> Any:
    from onnx import TensorProto

    helper = _helper()
    named = helper.make_tensor_value_info("other", TensorProto.FLOAT, None)
    branches = [helper.make_graph(nodes, name, [], [named]) for name, nodes in (("then", then), ("else", otherwise))]
    return helper.make_node("If", [condition], ["y"], then_branch=branches[0], else_branch=branches[1])


def _model(nodes: list[Any], constants: dict[str, list[float]]) -> bytes:
    from onnx import TensorProto, numpy_helper

    helper = _helper()
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, SIZE])],
        [numpy_helper.from_array(np.array(each, dtype=np.float32), name) for name, each in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = made.SerializeToString()
    return content


def _helper() -> Any:
    from onnx import helper

    return helper
