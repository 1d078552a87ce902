"""No text of a library or of the operating system reaches people: each has one place where it becomes words."""

import ast
import errno
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

import whimbrel
from whimbrel.errors import UntrustedInput, reason_of

SOURCES = Path(whimbrel.__file__).parent
FOREIGN = {
    "OSError", "FileNotFoundError", "PermissionError", "UnicodeDecodeError", "UnicodeError", "ValidationError",
    "DecodeError", "MsgspecError", "IsADirectoryError",
}  # fmt: skip
IN_WORDS = {"reason_of", "sentence", "split_path", "trouble"}
WITHOUT_READERS = {  # what they say goes to nobody but a parent process of ours, or is matched and never shown
    "agent/probes/structure/coreml.py",
    "agent/probes/structure/safetensors.py",
    "agent/shadow/__main__.py",
    "agent/tuf_client.py",
    "server/alerts.py",  # the history of deliveries, which tells what the receiver's server said
    "stores/model_readers/onnx.py",  # the checker's own objection to the model, which is what was asked for
}


def handlers() -> Iterator[tuple[str, ast.ExceptHandler]]:
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and node.name and node.type is not None:
                caught = {each.id for each in ast.walk(node.type) if isinstance(each, ast.Name)}
                caught |= {each.attr for each in ast.walk(node.type) if isinstance(each, ast.Attribute)}
                if caught & FOREIGN:
                    yield str(path.relative_to(SOURCES)), node


def shown_raw(handler: ast.ExceptHandler) -> Iterator[int]:
    """The lines on which the error's own text is put into a text."""
    hidden: set[int] = set()
    for node in ast.walk(handler):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in IN_WORDS:
            hidden |= {id(each) for each in ast.walk(node)}
    for node in ast.walk(handler):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name) and node.value.id == handler.name:
            yield node.lineno
        if isinstance(node, ast.Attribute) and node.attr == "strerror":
            yield node.lineno
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "str":
            yield from (node.lineno for each in node.args if getattr(each, "id", "") == handler.name)


def test_no_error_of_the_system_or_of_a_library_is_shown_as_it_is() -> None:
    """`[Errno 2] No such file or directory: 'x'` and `Expected `str` matching regex ...` were on people's screens."""
    caught = list(handlers())
    assert len(caught) > 60
    raw = [f"{path}:{line}" for path, handler in caught if path not in WITHOUT_READERS for line in shown_raw(handler)]
    assert not raw


def test_every_pattern_of_a_field_has_words() -> None:
    bare = [
        f"{path.relative_to(SOURCES)}:{node.lineno}"
        for path in sorted(SOURCES.rglob("*.py"))
        if path.name != "patterns.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and any(word.arg == "pattern" for word in node.keywords)
    ]
    assert not bare


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), "it does not exist"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "you have no permission for it"),
        (OSError(errno.EBADMSG, "Bad message"), "Bad message"),
        (ssl.SSLError(1, "[SSL] PEM lib"), "[SSL] PEM lib"),
        (TimeoutError(), "no answer came in time"),
        (UnicodeDecodeError("utf-8", b"ab\xff", 2, 3, "invalid start byte"), "it is no UTF-8 text: see its byte 3"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deep"),
        (UntrustedInput("our own words"), "our own words"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_foreign_error_has_words(error: Exception, words: str) -> None:
    assert reason_of(error) == words
