"""What teams hand over with a model: signatures over it, keys and certificates, recipes. The first byte says which.

Signatures are verified wholly, so that the certificates in them reach the libraries.
"""

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from support.model_signing import NOW, Authority, key_files, sign_model
from whimbrel.errors import WhimbrelError
from whimbrel.flows.files.recipe_file import read_recipe
from whimbrel.interop.model_signing.bundle import read_bundle
from whimbrel.interop.model_signing.coverage import Contents, uncovered
from whimbrel.interop.model_signing.signature import read_anchor, verify_signature
from whimbrel.model.documents import parse
from whimbrel.model.provenance import ModelSigner, read_code, read_dataset
from whimbrel.model.recipe import Recipe

_RECIPE = b"""command: [python3, train.py]
inputs: {train.py: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}
outputs: {out/m.onnx: cpu/m.onnx}
lock: train.py
"""
_KEPT = (
    b'{"format":"whimbrel-recipe-1","command":["sh"],"inputs":[{"name":"a","sha256":"'
    + 64 * b"a"
    + b'","size_bytes":1}],'
    b'"outputs":[{"name":"b","variant":"cpu","file":"b"}],"lock":"a"}'
)


class _Signed:
    """A file that was signed with a key, and with a certificate."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (model := folder / "m.onnx").write_bytes(b"weights")
            private, public = key_files(folder)
            root = Authority(folder / "root")
            self.by_key = sign_model(model, private, folder / "key.sig").read_bytes()
            self.by_name = root.sign(model, folder / "name.sig", identity="anna@example.com").read_bytes()
            self.key = ModelSigner(method="key", anchor=public.read_text())
            self.name = ModelSigner(method="certificate", anchor=root.file.read_text(), identity="anna@example.com")


@functools.cache
def _signed() -> _Signed:
    return _Signed()


def _verify(content: bytes) -> None:
    bundle = read_bundle(content)
    by = _signed().name if bundle.certificates else _signed().key
    uncovered([Contents("m.onnx", sha256=64 * "a")], verify_signature(bundle, by, at=NOW).files)


def _options(content: bytes) -> None:
    for read_option in (read_dataset, read_code):
        try:
            read_option(content.decode("utf-8", "surrogateescape"))
        except ValueError:
            continue


_READERS: tuple[Callable[[bytes], object], ...] = (
    _verify,
    lambda content: read_recipe(content.decode("utf-8", "surrogateescape"), what="recipe.yaml"),
    lambda content: parse(Recipe, content, what="the recipe"),
    lambda content: read_anchor(content, method="key", what="the key"),
    lambda content: read_anchor(content, method="certificate", what="the roots"),
    _options,
)


def read(content: bytes) -> None:
    reader = _READERS[content[0] % len(_READERS)] if content else _READERS[0]
    try:
        reader(content[1:])
    except WhimbrelError as error:
        str(error)


def seeds() -> Iterator[bytes]:
    signed = _signed()
    texts = (signed.by_key, signed.by_name, _RECIPE, _KEPT, signed.key.anchor.encode(), signed.name.anchor.encode())
    for number, text in zip((0, 0, 1, 2, 3, 4), texts, strict=True):
        yield bytes([number]) + text
    yield bytes([5]) + b"speech@" + 64 * b"a"
    yield bytes([5]) + b"https://git.example.com/wake@1f3b5a7"
