"""Which files make a model? What is given to `whimbrel publish` becomes variants, with their files under their names.

1. A folder is one variant: all its files, under their paths below it. Names that begin with a dot are left out. A Core
   ML package is one file of a variant, which travels packed.
2. A file that is a model is a variant, with the files that it names: weights beside an ONNX graph, the other shards.
   These are found beside it, whether they are given or not. Any other file belongs to the model before it.
3. Links are followed to their content; the name is the link's. What a runtime is to open here is laid out without
   links, as it will lie on a device. A link that leads out of the model's folder is refused, unless a person says that
   it is meant: an unpacked archive could else have any file of the publisher's machine published. What the person
   named, and the blobs of a snapshot in the cache of the Hugging Face Hub, are the model's.
4. The entry comes first: the file that a runtime opens.

Called by `publish`.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from whimbrel import limits
from whimbrel.agent.probes.formats import PROBES
from whimbrel.errors import UntrustedInput
from whimbrel.model.formats import FORMATS, TITLES, Format
from whimbrel.model.mistaken_files import HEAD_BYTES, is_pointer, mistaken_for_a_model
from whimbrel.model.paths import DEPTH
from whimbrel.stores.inspection import recognise

_ENDINGS = tuple(ending for row in FORMATS for ending in row.endings)


class Part(msgspec.Struct, frozen=True):
    """One file of a variant, or one package. `name`: its path on devices; `path`: where it is now, perhaps a link."""

    name: str
    path: Path


class GivenModel(msgspec.Struct, frozen=True):
    """One model of the command line: a folder, or the files that were found to make it, the entry first."""

    folder: Path | None = None
    parts: tuple[Part, ...] = ()


# --- what is given ---


def group(paths: list[Path]) -> list[GivenModel]:
    """The models among `paths`, in their order. Raises `UntrustedInput` for what is no part of any."""
    for path in paths:
        if not path.exists():
            raise UntrustedInput(f"there is no file {path}; name model files, or the folder of a model")
    models: list[GivenModel] = []
    loose: list[tuple[int, Path]] = []  # with the number of models before it
    for path in paths:
        if path.is_dir():
            models.append(GivenModel(folder=path))
            continue
        kind = _recognised(path)
        if kind is None:
            loose.append((len(models), path))
            continue
        names = _names(path, kind)
        entry = path.with_name(names[0])
        if path != entry and (entry in paths or any(each.parts[:1] == (Part(names[0], entry),) for each in models)):
            continue  # a shard whose first one is a model of this list
        models.append(GivenModel(parts=tuple(_found(path, name, paths) for name in names)))
    for before, path in loose:
        _add(models, before, path)
    return models


def _found(model: Path, name: str, paths: list[Path]) -> Part:
    beside = model.parent / name
    if beside.is_file():
        return Part(name, beside)
    given = next((path for path in paths if path.name == PurePosixPath(name).name and path.is_file()), None)
    if given is None:
        raise UntrustedInput(f"{model} needs {name!r} beside it, which is not there; give all files of the model")
    return Part(name, given)


def _add(models: list[GivenModel], before: int, path: Path) -> None:
    """Add a file that is no model by itself to the model that is given before it."""
    if any(os.path.samefile(part.path, path) for model in models for part in model.parts):
        return
    place = max(0, before - 1)
    if place >= len(models):
        recognise(path)  # raises, and says what it is
        raise UntrustedInput(f"{path} is no model; expected {TITLES}")
    model = models[place]
    if model.folder is not None:
        raise UntrustedInput(f"{path} is no model, and {model.folder} is a folder: put the file into it")
    root = model.parts[0].path.parent
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    _refuse_pointer(path)
    models[place] = GivenModel(parts=(*model.parts, Part(name, path)))


def _recognised(path: Path) -> Format | None:
    """The format of a model file; None for any other file. Raises `UntrustedInput` for one that is named as a model."""
    try:
        return recognise(path)
    except UntrustedInput:
        if path.name.lower().endswith(_ENDINGS):
            raise
        return None


def _names(path: Path, kind: Format) -> tuple[str, ...]:
    try:
        return PROBES[kind].parts(path)
    except (ValueError, KeyError, TypeError) as error:
        raise UntrustedInput(f"{path} looks like {kind}, but {error}") from error


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if is_pointer(head):
        raise UntrustedInput(f"{path} {mistaken_for_a_model(head)}")


# --- a folder ---


def parts_of(model: GivenModel, *, entry: str = "") -> tuple[Part, ...]:
    """All files of a model, the entry first, then by name. `entry`: the one that a person chose.

    Raises `UntrustedInput` for a folder without a model, with several, or with what cannot travel.
    """
    if model.folder is None:
        parts = model.parts
        if entry and entry != parts[0].name:
            raise UntrustedInput(f"entry={entry} is for a folder; {parts[0].path} is the file that is opened")
    elif _is_package(model.folder):
        package = Path(os.path.abspath(model.folder))  # it has a name, also where "." is given
        parts = (Part(package.name, package),)
    else:
        parts = _of_folder(model.folder, entry)
    if len(parts) > limits.FILES:
        raise UntrustedInput(f"{parts[0].path} has {len(parts)} files; a variant has at most {limits.FILES}")
    return parts[0], *sorted(parts[1:], key=lambda part: part.name)


def _of_folder(folder: Path, entry: str) -> tuple[Part, ...]:
    tree = dict(_walk(folder, most=limits.FILES))
    entries: dict[str, tuple[str, ...]] = {}
    covered: set[str] = set()  # files that a model before them names: a shard is not looked at again
    for name, path in sorted(tree.items()):
        names = None if name in covered else _entry_names(name, path)
        if names is not None:
            entries[name] = names
            covered.update(names)
    if not entry:
        entry = _only_entry(folder, list(entries))
    if entry not in entries:
        raise UntrustedInput(f"entry={entry} is no model in {folder}; there are {_listed(list(entries))}")
    for name in entries[entry]:
        if name not in tree:
            raise UntrustedInput(f"{folder / entry} needs {name!r}, which is not in the folder")
    for path in tree.values():
        if path.is_file():
            _refuse_pointer(path)
    return (Part(entry, tree[entry]), *(Part(name, path) for name, path in tree.items() if name != entry))


def _entry_names(name: str, path: Path) -> tuple[str, ...] | None:
    """The files that a runtime needs that opens `path`, below the folder; None where that is no entry of a model."""
    if path.is_dir():
        return (name,)
    kind = _recognised(path)
    if kind is None:
        return None
    names = _names(path, kind)
    above = name[: -len(path.name)]
    return tuple(f"{above}{each}" for each in names) if names[0] == path.name else None


def _only_entry(folder: Path, entries: list[str]) -> str:
    for choice in (entries, [name for name in entries if "/" not in name]):
        if len(choice) == 1:
            return choice[0]
    if not entries:
        raise UntrustedInput(f"{folder} is a folder without a model: no file in it is of {TITLES}")
    raise UntrustedInput(
        f"{folder} holds several models, {_listed(entries)}; say which one is opened: --variant entry={entries[0]}"
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(sorted(names)[:5]) + more


def _is_package(folder: Path) -> bool:
    """Whether a folder is one model by itself, as a Core ML package is."""
    marks = [name for row in FORMATS for name in row.folder]
    if not any((folder / name).is_file() for name in marks):
        return False
    try:
        recognise(folder)
    except UntrustedInput:
        return False
    return True


def _walk(top: Path, *, most: int, whole: bool = False) -> Iterator[tuple[str, Path]]:
    """Files and packages below a folder by their relative paths; links are followed. `whole`: hidden files and the
    inside of packages, too.
    """
    waiting = [("", top, frozenset({os.path.realpath(top)}))]
    count = 0
    while waiting:
        above, folder, inside = waiting.pop()
        for entry in sorted(os.scandir(folder), key=lambda each: each.name):
            path, name = Path(entry.path), f"{above}{entry.name}"
            if entry.name.startswith(".") and not whole:
                continue
            if entry.is_dir() and (whole or not _is_package(path)):
                real = os.path.realpath(path)
                if real in inside:
                    raise UntrustedInput(f"{path} is a link to a folder that it lies in; take it out")
                if name.count("/") >= DEPTH:
                    raise UntrustedInput(f"{top} is more than {DEPTH} folders deep; make it flatter")
                waiting.append((f"{name}/", path, inside | {real}))
                continue
            if not entry.is_dir() and not entry.is_file():
                what = "a link to what is not there" if entry.is_symlink() else "neither a file nor a folder"
                raise UntrustedInput(f"{path} is {what}; take it out, or put the file in its place")
            count += 1
            if count > most:
                raise UntrustedInput(f"{top} holds more than {most} files; give the files that the model needs")
            yield name, path


def check_links(model: GivenModel, parts: tuple[Part, ...], *, given: Sequence[Path]) -> None:
    """Raise `UntrustedInput` for a file that a link brings in from outside. `given`: what the person named."""
    root = Path(os.path.abspath(model.folder or parts[0].path.parent))
    inside = [Path(os.path.realpath(root)), *(Path(os.path.realpath(path)).parent for path in given if path.is_file())]
    blobs = root.parent.parent / "blobs"
    if root.parent.name == "snapshots" and not blobs.is_symlink():
        inside.append(Path(os.path.realpath(blobs)))
    for part in parts:
        for path in _files_of(part):
            real = Path(os.path.realpath(path))
            if path not in given and not any(real.is_relative_to(each) for each in inside):
                raise UntrustedInput(
                    f"{path} leads to {real}, outside of {root}, and whoever has the model could read that file; put "
                    "the file in its place, or say that it is meant with --follow-links"
                )


def _files_of(part: Part) -> list[Path]:
    if part.path.is_dir():
        return [path for _, path in _walk(part.path, most=limits.PACKAGE_FILES, whole=True)]
    return [part.path]


# --- as it will lie on a device ---


class LaidOut(msgspec.Struct, frozen=True):
    """A variant's files as they will lie on a device. `entry`: what a runtime opens. `links_to`: folders elsewhere that
    content came from.
    """

    entry: Path
    places: dict[str, Path]  # of each part, by its name
    links_to: tuple[str, ...] = ()


def lay_out(parts: tuple[Part, ...], scratch: Path) -> LaidOut:
    """Have the parts beside each other under their names, without links: where they are, or below `scratch`.

    Nothing is copied where the file system can link. Raises `OSError`.
    """
    root = parts[0].path.parents[parts[0].name.count("/")]
    links = tuple(sorted({os.path.dirname(real) for part in parts for real in _linked(part, root)}))
    alone = len(parts) == 1 and parts[0].path.is_file()
    if alone or (not links and all(part.path == root / part.name for part in parts)):
        return LaidOut(parts[0].path, {part.name: part.path for part in parts}, links)
    for part in parts:
        if part.path.is_dir():
            for name, path in _walk(part.path, most=limits.PACKAGE_FILES, whole=True):
                _place(path, scratch / part.name / name)
        else:
            _place(part.path, scratch / part.name)
    return LaidOut(scratch / parts[0].name, {part.name: scratch / part.name for part in parts}, links)


def _linked(part: Part, root: Path) -> Iterator[str]:
    """Where the content of this part really is, of all its files that links lead to."""
    for path in _files_of(part):
        real = os.path.realpath(path)
        below = path.relative_to(root) if path.is_relative_to(root) else path.name
        if path.is_relative_to(root) and real != os.path.join(os.path.realpath(root), below):
            yield real


def _place(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(path), target)
    except OSError:  # another file system, or none that links
        shutil.copyfile(path, target)
