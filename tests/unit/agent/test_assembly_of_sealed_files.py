"""A sealed file is assembled: what its publisher sealed wrongly costs its bytes once, and no more."""

from pathlib import Path

import pytest

from whimbrel import agefile
from whimbrel.agent.assembly import Assembly
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.progress import ProgressMeter
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import digest_of
from whimbrel.model.release import File, Sealed


class FromFolder:
    """Downloads that copy a file, and count."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.moved = self.fetches = 0
        self.meter = ProgressMeter(lambda _progress: None)
        folder.mkdir()

    def path(self, file: File) -> Path:
        return self.folder / f"{file.sha256}.part"

    def fetch(self, file: File) -> None:
        if self.path(file).exists():
            return
        self.path(file).write_bytes(self.source.read_bytes())
        self.fetches, self.moved = self.fetches + 1, self.moved + file.size_bytes

    def discard(self, file: File) -> None:
        self.path(file).unlink(missing_ok=True)

    def refuse(self, file: File) -> None:
        self.discard(file)


@pytest.mark.parametrize("opens", [True, False])
def test_file_that_was_sealed_wrongly_is_fetched_once_however_often_it_is_tried(tmp_path: Path, *, opens: bool) -> None:
    """It is the file that the signed release names, so fetching it again brought the same: whole, in each cycle."""
    identity = agefile.new_identity()
    (tmp_path / "other").write_bytes(b"another file")
    recipient = agefile.recipient_of(identity)
    digest, size_bytes = agefile.seal_file(tmp_path / "other", tmp_path / "age", recipient=recipient)
    sealed = Sealed(sha256=digest, size_bytes=size_bytes)
    named = File(name="m.onnx", size_bytes=12, sha256=digest_of(b"the one said"), format="onnx", sealed=sealed)
    download = FromFolder(tmp_path / "age", tmp_path / "incoming")
    for _ in range(3):
        assembly = Assembly(download, disk=RealDisk(), release_key=lambda: identity, opens=opens)
        with pytest.raises(UntrustedInput, match="its publisher sealed another file"):
            assembly.bring(named, (), {})
    assert download.fetches == 1
    assert not list((tmp_path / "incoming").glob("*.opened"))
