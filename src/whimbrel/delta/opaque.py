"""Send the bytes that are no tensor we understand: headers, new tensors, other formats.

1. A piece is coded in one of a few ways and says which in its first byte. The writer tries those that can make sense
   and keeps the smallest.
2. `DICTIONARY` and `PATCH` see a window of the base around the same place, so they find their like also after an
   insertion of a few hundred kilobytes.
3. The reader knows how many bytes must come out, gives no decoder more room than that, and checks the frame's own claim
   before it lets zstd see it.

Called by the codec with at most `DELTA_COPY_BYTES` (or the glue) at a time. Formats: RFC 8878; HDiffPatch's HDIFF13 is
used for whole small files only.
"""

from enum import IntEnum

import numpy as np
import zstandard

from whimbrel import limits
from whimbrel.errors import Unavailable, UntrustedInput

_FAST_LEVEL = 9
_LONGEST_WINDOW_LOG = 23  # glue and its dictionary, 4 MiB each


class Coding(IntEnum):
    """The first byte of a piece."""

    STORED = 0
    ZSTD = 1
    PLANES = 2  # bytes of equal weight together, then zstd; the second byte is the width
    DICTIONARY = 3  # zstd with the base's window as its dictionary


def write(content: bytes, *, window: bytes = b"", width: int = 1, thorough: bool = True) -> bytes:
    """The smallest form of `content`. `thorough` spends ten times the time for a few percent."""
    forms = [bytes([Coding.STORED]) + content, bytes([Coding.ZSTD]) + _compress(content, b"", thorough)]
    if width > 1 and len(content) % width == 0:
        planes = np.frombuffer(content, np.uint8).reshape(-1, width).T.tobytes()
        forms.append(bytes([Coding.PLANES, width]) + _compress(planes, b"", thorough))
    if len(window) >= 8:
        forms.append(bytes([Coding.DICTIONARY]) + _compress(content, window, thorough))
    return min(forms, key=len)


def read(content: bytes, size_bytes: int, *, window: bytes = b"") -> bytes:
    """Exactly `size_bytes` bytes. Raises `UntrustedInput`."""
    coding, rest = content[:1], content[1:]
    if coding == bytes([Coding.STORED]) and len(rest) == size_bytes:
        return rest
    if coding == bytes([Coding.ZSTD]):
        return expand(rest, size_bytes)
    if coding == bytes([Coding.PLANES]) and rest and rest[0] and size_bytes % rest[0] == 0:
        planes = np.frombuffer(expand(rest[1:], size_bytes), np.uint8)
        return planes.reshape(rest[0], -1).T.tobytes()
    if coding == bytes([Coding.DICTIONARY]):
        return expand(rest, size_bytes, window)
    raise UntrustedInput("a piece of opaque bytes has no known form")


_WHOLE_MAGIC = b"HDIFF13&\0"


def write_whole(before: bytes, after: bytes) -> bytes:
    """A byte-wise patch of a small file: HDiffPatch's own bytes, uncompressed, in a frame with a size before it."""
    import hdiffpatch  # here: two megabytes that patches of large files do without

    content = hdiffpatch.diff(before, after, compression=hdiffpatch.COMPRESSION_NONE)
    return len(content).to_bytes(4, "little") + _compress(content, b"", True)


def read_whole(content: bytes, size_bytes: int, *, window: bytes) -> bytes:
    """Exactly `size_bytes` bytes from the base `window`. Raises `UntrustedInput`, and `Unavailable` without hdiffpatch.

    HDiffPatch takes what its header claims as true, so the claims are compared with what is known before it runs: no
    plug-in, the sizes of old and new.
    """
    size = int.from_bytes(content[:4], "little")
    if size > 2 * limits.DELTA_WHOLE_BYTES:
        raise UntrustedInput(f"a byte-wise patch claims {size} bytes; at most {2 * limits.DELTA_WHOLE_BYTES} are taken")
    try:
        import hdiffpatch  # as above
    except ImportError as error:
        raise Unavailable("a byte-wise patch needs hdiffpatch, which is not installed: take the whole file") from error
    patch = expand(content[4:], size)
    place = len(_WHOLE_MAGIC)
    sizes = []
    for _ in range(2):
        value = 0
        while True:
            byte = patch[place] if place < len(patch) else 0
            place += 1
            value = value << 7 | byte & 127
            if byte < 128 or value > limits.ARTIFACT_BYTES:
                break
        sizes.append(value)
    if not patch.startswith(_WHOLE_MAGIC) or sizes != [size_bytes, len(window)]:
        raise UntrustedInput("a byte-wise patch is damaged, or for another base")
    try:
        made: bytes = hdiffpatch.apply(window, patch)
    except (hdiffpatch.HDiffPatchError, MemoryError, ValueError) as error:
        raise UntrustedInput("a byte-wise patch is damaged") from error
    if len(made) != size_bytes:
        raise UntrustedInput(f"a byte-wise patch made {len(made)} bytes; {size_bytes} are due")
    return made


def shrink(content: bytes) -> bytes:
    """One zstd frame without a dictionary, with tables of 1 MB: the head of a large patch is mostly checksums."""
    return _compress(content, b"", True, table_log=17)


def expand(frame: bytes, size_bytes: int, window: bytes = b"") -> bytes:
    """One zstd frame of exactly `size_bytes`. Raises `UntrustedInput`."""
    try:
        found = zstandard.get_frame_parameters(frame)
        if found.content_size != size_bytes:
            raise UntrustedInput(f"a compressed piece claims {found.content_size} bytes; {size_bytes} are due")
        dictionary = zstandard.ZstdCompressionDict(window, zstandard.DICT_TYPE_RAWCONTENT) if window else None
        decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << _LONGEST_WINDOW_LOG)
        content: bytes = decompressor.decompress(frame, max_output_size=size_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise UntrustedInput(f"a compressed piece is damaged: {error}") from error
    if len(content) != size_bytes:
        raise UntrustedInput(f"a compressed piece has {len(content)} bytes; {size_bytes} are due")
    return content


def _compress(content: bytes, window: bytes, thorough: bool, *, table_log: int = 20) -> bytes:
    """Tables of at most 2**20 and 2**19 entries, 6 MB: with fewer a window of 1.5 MB is forgotten before its end."""
    total = max(len(content) + len(window), 64)
    log = min(_LONGEST_WINDOW_LOG, max(10, (total - 1).bit_length()))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19 if thorough else _FAST_LEVEL,
        window_log=log,
        hash_log=min(table_log, log + 1),
        chain_log=min(table_log - 1, log + 1),
        write_content_size=True,
        write_checksum=False,
        write_dict_id=False,
    )
    dictionary = zstandard.ZstdCompressionDict(window, zstandard.DICT_TYPE_RAWCONTENT) if window else None
    return zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(content)
