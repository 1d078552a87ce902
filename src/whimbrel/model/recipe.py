"""How is a version made again? A recipe: the command, its inputs by digest, and which output is which file.

1. A recipe is kept beside the version, and its digest is in the signed release.
2. It says what was run. It does not say that the same bytes come out: training on another machine may give others.
   `whimbrel version rebuild` runs it and compares.
"""

from typing import Annotated

from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import Digest, Name
from whimbrel.model.paths import PATH_CHARS, clash, file_and_folder, path_objection, shown

Path = Annotated[str, Meta(min_length=1, max_length=PATH_CHARS)]  # relative to the folder that the command runs in
Argument = Annotated[str, Meta(max_length=limits.RECIPE_ARGUMENT_CHARS)]


class Input(Document, frozen=True):
    """A file that lies in the folder before the command runs."""

    name: Path
    sha256: Digest
    size_bytes: Annotated[int, Meta(ge=0, le=limits.ARTIFACT_BYTES)]


class Output(Document, frozen=True):
    """A file, or a folder, that the command makes: `name` becomes the file `file` of the variant `variant`."""

    name: Path
    variant: Name
    file: Annotated[str, Meta(max_length=PATH_CHARS)]


class Recipe(Document, frozen=True, tag_field="format", tag="whimbrel-recipe-1"):
    """A command that makes a version's files from inputs.

    `command`: the program and its arguments; no shell reads them. `lock`: the input that names the environment's
    packages, such as a requirements file with hashes. `environment`: the same in words, for people.
    """

    command: Annotated[tuple[Argument, ...], Meta(min_length=1, max_length=limits.RECIPE_ARGUMENTS)]
    outputs: Annotated[tuple[Output, ...], Meta(min_length=1, max_length=limits.RECIPE_FILES)]
    inputs: Annotated[tuple[Input, ...], Meta(max_length=limits.RECIPE_FILES)] = ()
    lock: Path | None = None
    environment: Annotated[str, Meta(max_length=limits.RECIPE_ARGUMENT_CHARS)] = ""

    def __post_init__(self) -> None:
        if not self.command[0] or any("\0" in each for each in self.command):
            raise ValueError("command: it names no program, or holds a zero byte")
        names = [each.name for each in self.inputs] + [each.name for each in self.outputs]
        for name in names:
            if objection := path_objection(name):
                raise ValueError(f"the name {shown(name)} {objection}")
        if (clashing := clash(names)) is not None:
            raise ValueError(f"inputs and outputs: {clashing}")
        if (both := file_and_folder(names)) is not None:
            raise ValueError(f"inputs and outputs: {shown(both)} is both a file and a folder")
        if self.lock is not None and self.lock not in {each.name for each in self.inputs}:
            raise ValueError(f"lock: {shown(self.lock)} is not among the inputs")
