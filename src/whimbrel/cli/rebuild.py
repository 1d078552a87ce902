"""`whimbrel version rebuild`: run the recipe of a version in a fresh folder, and compare what comes out.

1. The inputs are copied first, and must have the recorded digests: otherwise nothing is run.
2. It runs code on this machine, so it asks. The command is kept to its folder, and from the network, as far as the
   system can (`cage/command.py`); what it cannot is said before.
3. Each output is the same, differs, or is missing. Only the same bytes are the same: there is no "nearly". A command
   that was ended, or that says itself that it failed, has made nothing.
4. What was built is somebody else's: it is kept without special files and without the bits that lend a user's rights.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from whimbrel import limits
from whimbrel.cage.check import walls_here
from whimbrel.cage.command import Ran, Request, run
from whimbrel.cage.removal import remove_tree
from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.options import ModelName, Yes
from whimbrel.cli.output import Json, note, print_json, print_table, say, size_of, stderr
from whimbrel.cli.provenance import Version, kept_file, signed_release
from whimbrel.durable import temporary_for
from whimbrel.errors import NotFound, Refused, Unavailable, UntrustedInput, reason_of
from whimbrel.flows.publishing.provenance import ProvenanceView
from whimbrel.model.documents import parse
from whimbrel.model.paths import shown
from whimbrel.model.recipe import Input, Output, Recipe
from whimbrel.model.release import File, Release
from whimbrel.packing import pack

_OUTPUT = "output"


class Compared(msgspec.Struct, frozen=True):
    """An output beside the file that was published. `rebuilt` None: the command made no such file."""

    output: str
    variant: str
    file: str
    result: Literal["same", "differs", "missing"]
    published: str
    rebuilt: str | None


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a rebuild. `same`: the command went well, and all files are the same.

    `not_in_recipe`: published files that the recipe does not make. `copied`: outputs that are an input byte by byte.
    """

    model: str
    version: str
    same: bool
    files: list[Compared]
    not_in_recipe: list[str]
    copied: list[str]
    ran: Ran
    last_words: str


@connected
def rebuild(
    client: Client,
    version: Version,
    model: ModelName,
    inputs: Annotated[Path, typer.Option(help="The folder that holds the recipe's inputs, by their names.")] = Path(),
    keep: Annotated[Path | None, typer.Option(help="Keep what was built in this folder, which must not exist.")] = None,
    time_limit_s: Annotated[
        float, typer.Option(min=1, max=limits.REBUILD_MAX_S, help="Seconds after which the command is ended.")
    ] = limits.REBUILD_S,
    size_limit_mib: Annotated[
        int, typer.Option(min=1, max=limits.REBUILD_BYTES // limits.MIB, help="Mebibytes that it may write.")
    ] = limits.REBUILD_BYTES // limits.MIB,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Run the recipe of a version again, and compare what comes out with what was published, by digests.

    It runs the recorded command on this machine, in a fresh folder with the recorded inputs and nothing else. Exit
    status 1: something differs or is missing.
    """
    path = f"models/{quoted(model)}/versions/{quoted(version)}"
    view = client.get(f"{path}/provenance", as_=ProvenanceView)
    release = signed_release(client, path, view)
    if release.training.recipe is None:
        raise NotFound(
            f"no recipe of {model} {release.version} is recorded; publish the next version with --recipe FILE"
        )
    recipe = parse(Recipe, kept_file(client, path, release.training.recipe), what="the recipe")
    files = _published(recipe, release)
    if keep is not None and keep.exists():
        raise Refused(f"{keep} exists already; name a new folder to keep the files in")
    _check_inputs(recipe, inputs)
    confirm(
        f"to rebuild {model} {release.semantic_version} by running {_command_words(recipe)}",
        consequence=f"{_walls_words()}; {_lock_words(recipe)}",
        nature="runs code of its publisher's on this machine",
        yes=yes,
    )
    keeping: Unavailable | None = None
    with _fresh_folder() as place:
        folder, scratch = Path(place, "work"), Path(place, "scratch")
        scratch.mkdir()
        _lay_out(recipe, inputs, folder)
        bytes_max = size_limit_mib * limits.MIB
        request = Request(
            command=recipe.command, folder=str(folder), scratch=str(scratch), time_s=time_limit_s, bytes_max=bytes_max
        )
        ran = _run(request)
        last_words = _last_words(scratch / _OUTPUT)
        compared = [_compared(each, file, folder, scratch) for each, file in zip(recipe.outputs, files, strict=True)]
        if keep is not None:
            keeping = not_kept(folder, keep)
    made = {(each.variant, each.file) for each in recipe.outputs}
    others = [f"{v.name}/{f.name}" for v in release.variants for f in v.files if (v.name, f.name) not in made]
    rebuilt = Rebuilt(
        model=model,
        version=release.version,
        same=ran.is_well and all(each.result == "same" for each in compared),
        files=compared,
        not_in_recipe=others,
        copied=_copied(recipe, files),
        ran=ran,
        last_words=last_words,
    )
    if json:
        print_json(rebuilt)
    else:
        _tell(rebuilt, None if keeping is not None else keep)
    if keeping is not None:
        raise keeping
    if not rebuilt.same:
        raise typer.Exit(1)


def _published(recipe: Recipe, release: Release) -> list[File]:
    """The published file of each output. Raises `UntrustedInput` where the recipe is of another version."""
    files = {(variant.name, file.name): file for variant in release.variants for file in variant.files}
    try:
        return [files[each.variant, each.file] for each in recipe.outputs]
    except KeyError as error:
        raise UntrustedInput(f"the recipe makes {error}, which is not a file of {release.version}") from error


def _check_inputs(recipe: Recipe, folder: Path) -> None:
    """Raises `UntrustedInput` where an input is another one than was recorded, before anything is done."""
    for each in recipe.inputs:
        found = _digest(folder / each.name, each)
        if found != each.sha256:
            raise UntrustedInput(
                f"the input {shown(each.name)} has the SHA-256 {found}; recorded is {each.sha256}. Nothing was run"
            )


def _digest(path: Path, wanted: Input) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NotFound(
            f"the input {shown(wanted.name)} (SHA-256 {wanted.sha256}) cannot be read in {path.parent}: "
            f"{reason_of(error)}; name the folder that holds the inputs with --inputs DIR"
        ) from error


def _lay_out(recipe: Recipe, inputs: Path, folder: Path) -> None:
    """Copy the inputs into the fresh folder. What was copied is checked again: a file may have changed meanwhile."""
    folder.mkdir()
    try:
        for each in recipe.inputs:
            place = folder / each.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(inputs / each.name, place)
        for output in recipe.outputs:
            (folder / output.name).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"the inputs cannot be copied to {folder}: {reason_of(error)}; is there room?") from error
    _check_inputs(recipe, folder)


def _run(request: Request) -> Ran:
    with _progress() as tell:
        return run(request, tell)


@contextlib.contextmanager
def _progress() -> Iterator["_Tell"]:
    if not stderr.is_terminal:
        yield _Tell(None)
        return
    with stderr.status("running the recipe") as status:
        yield _Tell(status)


class _Tell:
    """Says how long the command runs, and how much it wrote, where a person looks on."""

    def __init__(self, status: object) -> None:
        self._status = status

    def __call__(self, ran: Ran) -> None:
        if self._status is not None:
            words = f"running the recipe for {ran.elapsed_s:.0f} s; {size_of(ran.size_bytes)} written"
            self._status.update(words)  # type: ignore[attr-defined]


def _compared(output: Output, file: File, folder: Path, scratch: Path) -> Compared:
    place = folder / output.name
    rebuilt: str | None = None
    with contextlib.suppress(OSError, UntrustedInput, RecursionError):
        # A link may lead anywhere, and is no file that the command made.
        if place.resolve() == folder.resolve() / output.name:
            if file.packed and place.is_dir():
                pack(place, archive := scratch / "packed")
                place = archive
            if place.is_file():
                with place.open("rb") as opened:
                    rebuilt = hashlib.file_digest(opened, "sha256").hexdigest()
    result: Literal["same", "differs", "missing"] = "missing" if rebuilt is None else "differs"
    if rebuilt == file.sha256:
        result = "same"
    return Compared(output.name, output.variant, output.file, result, file.sha256, rebuilt)


def _copied(recipe: Recipe, files: Sequence[File]) -> list[str]:
    """Outputs that are one of the inputs: a recipe that copies proves nothing of where a file comes from."""
    inputs = {each.sha256 for each in recipe.inputs}
    return [output.name for output, file in zip(recipe.outputs, files, strict=True) if file.sha256 in inputs]


@contextlib.contextmanager
def _fresh_folder() -> Iterator[Path]:
    """A folder that is removed afterwards, whatever a command made in it."""
    place = Path(tempfile.mkdtemp(prefix="whimbrel-rebuild-"))
    try:
        yield place
    finally:
        try:
            remove_tree(place)
        except OSError as error:
            note(f"not all of {place} could be removed: {reason_of(error)}; remove it yourself")


def not_kept(folder: Path, keep: Path) -> Unavailable | None:
    """Copy what was built, links as links. Returns why that is not possible; nothing is left then."""
    temporary = temporary_for(keep)
    try:
        shutil.copytree(folder, temporary, symlinks=True, ignore=_special)
        for place, _, names in os.walk(temporary):
            for name in names:
                if not (path := Path(place, name)).is_symlink():
                    path.chmod(path.stat().st_mode & 0o777)
        temporary.rename(keep)
    except (OSError, RecursionError) as error:
        with contextlib.suppress(OSError):
            remove_tree(temporary)
        many = isinstance(error, shutil.Error)  # of files, each with its reason: a list, and no sentence
        words = "some of it cannot be copied" if many else reason_of(error)
        return Unavailable(f"what was built cannot be kept in {keep}: {words}")
    return None


def _special(folder: str, names: list[str]) -> list[str]:
    """The names that are neither files, folders nor links: a pipe would never end."""
    modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
    return [
        name for name, mode in modes.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))
    ]


def _tell(rebuilt: Rebuilt, keep: Path | None) -> None:
    ran = rebuilt.ran
    took = f"after {ran.elapsed_s:.0f} s"
    if ran.problem is not None:
        say(f"the command {ran.problem.removeprefix('it ')}")
    elif ran.stopped is not None:
        say(f"the command was ended {took}: {ran.stopped}")
    elif ran.status:
        say(f"the command ended with status {ran.status} {took}")
    if (ran.problem or ran.stopped or ran.status) and rebuilt.last_words:
        say(f"  its last words: {rebuilt.last_words}")
    rows = [[each.output, each.result, each.published, each.rebuilt] for each in rebuilt.files]
    print_table(["output", "result", "published SHA-256", "rebuilt SHA-256"], rows)
    for name in rebuilt.not_in_recipe:
        say(f"  {name} is not made by the recipe")
    for name in rebuilt.copied:
        say(f"  {name} is an input, byte by byte: the recipe copies it, and does not say where it comes from")
    if rebuilt.same:
        say(f"{rebuilt.model} {rebuilt.version}: the recipe makes the same bytes again ({took})")
    elif all(each.result == "same" for each in rebuilt.files):
        say(f"{rebuilt.model} {rebuilt.version}: the bytes are the same, and the command did not go well: not proven")
    else:
        say(f"{rebuilt.model} {rebuilt.version}: the recipe does not make the same bytes here")
    if not (ran.landlock and ran.offline and ran.read_only) and ran.problem is None:
        note(f"it ran {_held_words(landlock=ran.landlock, offline=ran.offline, read_only=ran.read_only)}")
    if keep is not None:
        say(f"what was built lies in {keep}")


def _command_words(recipe: Recipe) -> str:
    words = " ".join(recipe.command)
    return f"`{words if len(words) <= 200 else words[:197] + '...'}`"


def _walls_words() -> str:
    try:
        tried = walls_here()
    except Unavailable:
        return "it may do what you may"
    offline = tried.filtered or tried.namespaces
    words = _held_words(landlock=bool(tried.landlock), offline=offline, read_only=tried.namespaces)
    return f"it runs {words}"


def _held_words(*, landlock: bool, offline: bool, read_only: bool) -> str:
    files = "kept to a folder of its own" if landlock else "with all files that you may read and write"
    if landlock and not read_only:
        files += " (but it can change the modes and times of your other files)"
    return f"{files}, {'without a network' if offline else 'with the network'}"


def _lock_words(recipe: Recipe) -> str:
    if recipe.lock is None:
        return "which packages it ran with is not recorded"
    return f"it uses the packages that are installed here; recorded are those of {recipe.lock}"


def _last_words(output: Path) -> str:
    """The end of what the command printed."""
    try:
        with output.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - limits.REBUILD_TOLD_CHARS))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""
