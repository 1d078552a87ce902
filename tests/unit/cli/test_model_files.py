"""What is given to `publish` becomes models with their files: folders, files that belong together, links."""

import os
from pathlib import Path

import pytest

from support import model_files
from whimbrel import limits
from whimbrel.cli.model_files import GivenModel, check_links, group, lay_out, parts_of
from whimbrel.errors import UntrustedInput


def names(model: GivenModel, **choice: str) -> list[str]:
    return [part.name for part in parts_of(model, **choice)]


def only(*paths: Path, **choice: str) -> list[str]:
    (model,) = group(list(paths))
    return names(model, **choice)


def refusal(*paths: Path, **choice: str) -> str:
    try:
        for model in group(list(paths)):
            parts_of(model, **choice)
    except UntrustedInput as error:
        return str(error)
    raise AssertionError("nothing was refused")


def hugging_face(top: Path) -> Path:
    """A snapshot as the cache of the Hugging Face Hub has it: links into a folder of blobs."""
    blobs, snapshot = top / "blobs", top / "snapshots" / "abc123"
    blobs.mkdir(parents=True)
    (snapshot / "1_Pooling").mkdir(parents=True)
    made = top / "made"
    made.mkdir()
    model_files.onnx_external(made)
    (made / "config.json").write_text("{}")
    for number, name in enumerate(("model.onnx", "model.onnx.data", "config.json", "1_Pooling/config.json")):
        os.replace(made / name, blobs / str(number)) if (made / name).exists() else (blobs / str(number)).touch()
        (snapshot / name).symlink_to(os.path.relpath(blobs / str(number), (snapshot / name).parent))
    (snapshot / ".gitattributes").write_text("*.onnx filter=lfs\n")
    return snapshot


# --- files ---


def test_model_brings_the_files_that_it_names(tmp_path: Path) -> None:
    path = model_files.onnx_external(tmp_path)
    assert only(path) == ["model.onnx", "model.onnx.data"]
    assert only(path, tmp_path / "model.onnx.data") == ["model.onnx", "model.onnx.data"]
    assert only(tmp_path / "model.onnx.data", path) == ["model.onnx", "model.onnx.data"]


def test_any_shard_or_all_of_them_are_one_model(tmp_path: Path) -> None:
    for first in (model_files.gguf_split(tmp_path), model_files.safetensors_sharded(tmp_path)):
        kept = sorted(path for path in tmp_path.iterdir() if path.name[:2] == first.name[:2])
        expected = only(first)
        assert expected[0] == first.name
        assert only(*kept) == only(*reversed(kept)) == expected == [first.name, *sorted(expected[1:])]
        assert only(first.with_name(first.name.replace("00001-of", "00002-of"))) == expected


def test_file_that_is_no_model_belongs_to_the_model_before_it(tmp_path: Path) -> None:
    one, other = model_files.onnx(tmp_path / "a.onnx"), model_files.tflite(tmp_path / "b.tflite")
    labels, words = tmp_path / "labels.txt", tmp_path / "words.json"
    labels.write_text("left\nright\n")
    words.write_text("{}")
    assert [names(model) for model in group([one, labels, other, words])] == [
        ["a.onnx", "labels.txt"],
        ["b.tflite", "words.json"],
    ]
    assert only(labels, one) == ["a.onnx", "labels.txt"]


def test_same_file_twice_is_two_variants(tmp_path: Path) -> None:
    path = model_files.onnx_external(tmp_path)
    assert [names(model) for model in group([path, path])] == [["model.onnx", "model.onnx.data"]] * 2


def test_weights_that_are_given_from_another_folder_are_laid_beside_the_model(tmp_path: Path) -> None:
    path = model_files.onnx_external(tmp_path)
    elsewhere = tmp_path / "elsewhere" / "model.onnx.data"
    elsewhere.parent.mkdir()
    (tmp_path / "model.onnx.data").rename(elsewhere)
    assert "needs 'model.onnx.data' beside it" in refusal(path)
    (model,) = group([path, elsewhere])
    laid_out = lay_out(parts_of(model), tmp_path / "scratch")
    assert laid_out.entry == tmp_path / "scratch" / "model.onnx"
    assert (tmp_path / "scratch" / "model.onnx.data").read_bytes() == elsewhere.read_bytes()


def test_files_that_lie_as_they_should_are_not_laid_out(tmp_path: Path) -> None:
    path = model_files.onnx_external(tmp_path)
    (model,) = group([path])
    assert lay_out(parts_of(model), tmp_path / "scratch").entry == path
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.onnx", b"no model", "damaged, or none of"),
        ("x.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        ("m-00001-of-00999.gguf", b"GGUF\x03\0\0\0", "at most 256"),
    ],
)
def test_file_beside_a_model_that_cannot_be_meant_is_refused(
    name: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    path = model_files.tflite(tmp_path / "a.tflite")
    (tmp_path / name).write_bytes(content)
    assert reason in refusal(path, tmp_path / name)


def test_single_file_of_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("left")
    assert "none of GGUF" in refusal(tmp_path / "labels.txt")
    assert "there is no file" in refusal(tmp_path / "nothing.onnx")


# --- folders ---


def test_folder_is_one_model_with_its_files_under_their_names(tmp_path: Path) -> None:
    model_files.onnx_external(tmp_path, location="weights/w.bin")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.txt").write_text("a")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("")
    assert only(tmp_path) == ["model.onnx", "tokenizer/vocab.txt", "weights/w.bin"]


def test_links_are_followed_to_their_content_and_names_are_kept(tmp_path: Path) -> None:
    snapshot = hugging_face(tmp_path)
    (model,) = group([snapshot])
    parts = parts_of(model)
    assert [part.name for part in parts] == ["model.onnx", "1_Pooling/config.json", "config.json", "model.onnx.data"]
    laid_out = lay_out(parts, tmp_path / "scratch")
    assert laid_out.links_to == (str(tmp_path / "blobs"),)
    for part in parts:
        place = laid_out.places[part.name]
        assert place == tmp_path / "scratch" / part.name
        assert not place.is_symlink()
        assert place.read_bytes() == part.path.read_bytes()


def test_link_to_one_file_keeps_the_links_name(tmp_path: Path) -> None:
    model_files.tflite(tmp_path / "blob")
    (tmp_path / "m.tflite").symlink_to(tmp_path / "blob")
    assert only(tmp_path / "m.tflite") == ["m.tflite"]


def test_package_is_one_file_also_within_a_folder_and_through_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, package = model_files.coreml(tmp_path)
    assert only(package) == ["tiny.mlpackage"]
    monkeypatch.chdir(package)
    (model,) = group([Path()])
    assert lay_out(parts_of(model), tmp_path / "scratch").entry == package
    linked = tmp_path / "model" / "linked.mlpackage"
    for path in (each for each in package.rglob("*") if each.is_file()):
        place = linked / path.relative_to(package)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)
    (tmp_path / "model" / "labels.txt").write_text("left")
    assert only(tmp_path / "model") == ["linked.mlpackage", "labels.txt"]
    (model,) = group([tmp_path / "model"])
    laid_out = lay_out(parts_of(model), tmp_path / "scratch")
    inside = [path for path in laid_out.entry.rglob("*") if path.is_file()]
    assert len(inside) >= 2
    assert not any(path.is_symlink() for path in inside)


def test_folder_with_several_models_asks_which_one_is_opened(tmp_path: Path) -> None:
    for name in ("encoder.onnx", "decoder.onnx"):
        model_files.onnx(tmp_path / name)
    assert "--variant entry=decoder.onnx" in refusal(tmp_path)
    assert only(tmp_path, entry="encoder.onnx") == ["encoder.onnx", "decoder.onnx"]
    assert "is no model in" in refusal(tmp_path, entry="x.onnx")


def test_model_at_the_top_is_opened_rather_than_those_below(tmp_path: Path) -> None:
    model_files.safetensors(tmp_path / "model.safetensors")
    (tmp_path / "onnx").mkdir()
    for name in ("model.onnx", "model_int8.onnx"):
        model_files.onnx(tmp_path / "onnx" / name)
    assert only(tmp_path)[0] == "model.safetensors"
    assert only(tmp_path, entry="onnx/model_int8.onnx")[0] == "onnx/model_int8.onnx"


def test_folder_that_cannot_travel_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    assert "a folder without a model" in refusal(tmp_path)
    path = model_files.onnx_external(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert "a link to what is not there" in refusal(tmp_path)
    (tmp_path / "gone").unlink()
    (tmp_path / "round").symlink_to(tmp_path)
    assert "a folder that it lies in" in refusal(tmp_path)
    (tmp_path / "round").unlink()
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in refusal(tmp_path)
    (tmp_path / "pipe").unlink()
    (tmp_path / "weights").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "Git LFS pointer" in refusal(tmp_path)
    (tmp_path / "weights").unlink()
    path.with_name("model.onnx.data").rename(tmp_path / ".hidden.data")
    assert "needs 'model.onnx.data'" in refusal(tmp_path)


def test_folder_of_too_many_files_is_refused(tmp_path: Path) -> None:
    model_files.tflite(tmp_path / "m.tflite")
    for number in range(limits.FILES):
        (tmp_path / f"{number}.txt").touch()
    assert f"more than {limits.FILES} files" in refusal(tmp_path)


# --- links that lead out ---


def checked(folder: Path, *more: Path) -> None:
    given = [folder, *more]
    for model in group(given):
        check_links(model, parts_of(model), given=given)


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """An archive with labels.txt -> ~/.ssh/id_ed25519, unpacked and published: anybody could read the key."""
    secret = tmp_path / "secret"
    secret.write_text("the key")
    (tmp_path / "m").mkdir()
    model_files.tflite(tmp_path / "m" / "m.tflite")
    for place in ("labels.txt", "folder/labels.txt"):
        link = tmp_path / "m" / place
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(secret)
        with pytest.raises(UntrustedInput, match=r"labels.txt leads to .*secret, outside of .*m, and whoever"):
            checked(tmp_path / "m")
        link.unlink()
    (tmp_path / "m" / "others").symlink_to(tmp_path)
    with pytest.raises(UntrustedInput, match=r"leads to|is a link to a folder that it lies in"):
        checked(tmp_path / "m")


def test_weights_that_a_model_names_are_no_link_to_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    model_files.onnx_external(tmp_path / "m")
    checked(tmp_path / "m" / "model.onnx")
    os.replace(tmp_path / "m" / "model.onnx.data", tmp_path / "secret")
    (tmp_path / "m" / "model.onnx.data").symlink_to(tmp_path / "secret")
    with pytest.raises(UntrustedInput, match=r"model.onnx.data leads to .*secret"):
        checked(tmp_path / "m" / "model.onnx")
    checked(tmp_path / "m" / "model.onnx", tmp_path / "m" / "model.onnx.data")  # named by the person


def test_a_snapshot_of_the_hugging_face_hub_has_its_blobs_and_nothing_else(tmp_path: Path) -> None:
    checked(hugging_face(tmp_path / "hub"))
    forged = hugging_face(tmp_path / "forged")
    elsewhere = tmp_path / "elsewhere"
    os.replace(tmp_path / "forged" / "blobs", elsewhere)
    (tmp_path / "forged" / "blobs").symlink_to(elsewhere)
    with pytest.raises(UntrustedInput, match="outside of"):
        checked(forged)
