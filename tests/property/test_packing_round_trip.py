"""Laws of packing."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel.packing import pack, unpack

parts = st.text("abcdefghij0123456789_-ñ漢", min_size=1, max_size=12)
trees = st.dictionaries(st.lists(parts, min_size=1, max_size=3).map(tuple), st.binary(max_size=2000), max_size=8)


@settings(max_examples=40, deadline=None)
@given(tree=trees)
def test_unpacking_undoes_packing_and_packs_to_the_same_bytes(tree: dict[tuple[str, ...], bytes]) -> None:
    folders = {path[:depth] for path in tree for depth in range(1, len(path))}
    tree = {path: content for path, content in tree.items() if path not in folders}
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "tree").mkdir()
        for path, content in tree.items():
            file = top.joinpath("tree", *path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        pack(top / "tree", top / "one.tar")
        unpack(top / "one.tar", top / "again")
        found = {p.relative_to(top / "again").parts: p.read_bytes() for p in (top / "again").rglob("*") if p.is_file()}
        assert found == tree
        pack(top / "again", top / "two.tar")
        assert (top / "one.tar").read_bytes() == (top / "two.tar").read_bytes()
