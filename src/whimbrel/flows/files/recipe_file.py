"""The recipe of a version, as a person writes it (YAML), for `whimbrel publish --recipe recipe.yaml`.

    command: [python3, train.py, --seed, "7"]     # no shell reads it
    inputs: [train.py, digits.csv]                # files beside the recipe
    outputs: [detector.onnx]                      # files that it makes
    lock: requirements.lock                       # which of the inputs names the packages
    environment: Python 3.11, Linux, x86-64       # words for people

Inputs may have their SHA-256 (`{digits.csv: 9f86...}`), and outputs another name than the file that was published
(`{out/model.onnx: detector.onnx}`). The command runs in a folder that holds the inputs and nothing else.
docs/howto/prove-where-a-model-comes-from.md
"""

from collections.abc import Callable, Sequence
from typing import Annotated

from msgspec import Meta

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.yaml_file import parse_yaml
from whimbrel.model.documents import Document, convert, plain
from whimbrel.model.ids import Digest
from whimbrel.model.paths import path_objection, shown
from whimbrel.model.recipe import Argument, Input, Output, Path, Recipe
from whimbrel.model.release import Variant


class RecipeFile(Document, frozen=True):
    """A recipe before its inputs are hashed."""

    command: Annotated[tuple[Argument, ...], Meta(min_length=1, max_length=limits.RECIPE_ARGUMENTS)]
    outputs: (
        Annotated[dict[Path, str], Meta(min_length=1, max_length=limits.RECIPE_FILES)]
        | Annotated[tuple[Path, ...], Meta(min_length=1, max_length=limits.RECIPE_FILES)]
    )
    inputs: (
        Annotated[dict[Path, Digest], Meta(max_length=limits.RECIPE_FILES)]
        | Annotated[tuple[Path, ...], Meta(max_length=limits.RECIPE_FILES)]
    ) = ()
    lock: Path | None = None
    environment: str = ""

    @property
    def input_digests(self) -> dict[str, str | None]:
        """The inputs, and the digest that is written of each."""
        return dict(self.inputs) if isinstance(self.inputs, dict) else dict.fromkeys(self.inputs)

    @property
    def output_names(self) -> dict[str, str]:
        """What each output is published as."""
        return self.outputs if isinstance(self.outputs, dict) else {name: name for name in self.outputs}


def read_recipe(text: str, *, what: str) -> RecipeFile:
    """The recipe in `text`. `what` names the file in errors. Raises `UntrustedInput`, with the line."""
    recipe = parse_yaml(RecipeFile, text, what=what, bytes_max=limits.CARD_BYTES)
    for name in (*recipe.input_digests, *recipe.output_names):
        if objection := path_objection(name):
            raise UntrustedInput(f"{what}: the name {shown(name)} {objection}")
    return recipe


def complete(
    recipe: RecipeFile, variants: Sequence[Variant], measure: Callable[[str], tuple[str, int]], *, what: str
) -> Recipe:
    """The recipe as it is kept. `measure` gives the SHA-256 and the bytes of an input that lies beside it.

    Raises `UntrustedInput` where an input is not what is written of it, or an output is published nowhere.
    """
    inputs = []
    for name, written in recipe.input_digests.items():
        digest, size_bytes = measure(name)
        if written is not None and written != digest:
            raise UntrustedInput(f"{what}: the input {shown(name)} has the SHA-256 {digest}; written is {written}")
        inputs.append(Input(name=name, sha256=digest, size_bytes=size_bytes))
    outputs = [_output(name, published, variants, what=what) for name, published in recipe.output_names.items()]
    body = {
        "format": "whimbrel-recipe-1",
        "command": recipe.command,
        "inputs": [plain(each) for each in inputs],
        "outputs": [plain(each) for each in outputs],
        "lock": recipe.lock,
        "environment": recipe.environment,
    }
    return convert(Recipe, body, what=what)


def _output(name: str, published: str, variants: Sequence[Variant], *, what: str) -> Output:
    files = {(variant.name, file.name): file.sha256 for variant in variants for file in variant.files}
    meant = [key for key in files if published in {key[1], "/".join(key)}]
    if not meant:
        names = ", ".join(shown(file) for _, file in list(files)[:10])
        raise UntrustedInput(
            f"{what}: the output {shown(name)} is published as {shown(published)}, which is not among {names}"
        )
    if len({files[key] for key in meant}) > 1:
        names = " or ".join("/".join(key) for key in meant[:3])
        raise UntrustedInput(f"{what}: {shown(published)} is a file of several variants; name one of them: {names}")
    return Output(name=name, variant=meant[0][0], file=meant[0][1])
