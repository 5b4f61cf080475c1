"""Opens inputs as lines of UTF-8: compressed files, byte order marks, UTF-16, other line ends."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STDIN: Final = "-"
_CHUNK = 1 << 16
_HEAD = 4096  # bytes in which the kind of a file is recognised
_MARK = codecs.BOM_UTF8
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class UnreadableInput(OSError):
    """An input is of a kind that can't be read as lines. The message says what to do."""


_COMPRESSED: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": lambda file: cast("IO[bytes]", gzip.GzipFile(fileobj=file)),
    b"BZh": lambda file: bz2.BZ2File(file),
    b"\xfd7zXZ\x00": lambda file: lzma.LZMAFile(file),  # noqa: SIM115 -- closed by the reader
}
_REFUSED = {
    b"\x28\xb5\x2f\xfd": "is compressed with zstd: zstd -dc {path} | director run ... -",
    b"PK\x03\x04": "is a zip archive: unzip -p {path} | director run ... -",
    b"PAR1": "is a Parquet file: write its rows as JSON Lines first",
}
_MAGIC = (*_COMPRESSED, *_REFUSED, _MARK, *_UTF_16)


def open_plain(path: str, end: bytes) -> io.BufferedReader[Any]:
    """The file as UTF-8, decompressed and without a byte order mark.

    It does not share a buffer, also for the standard input: `sys.stdin` would be closed at exit while the feed's thread
    may still read it, which aborts the interpreter.

    Args:
        path: ``-`` is the standard input.
        end: The end of a line, for the advice in errors.

    Raises:
        UnreadableInput: It is compressed or encoded in a way that is not recognised.
    """
    file = _open(path)
    try:
        return _recognised(file, path, end)
    except BaseException:
        file.close()
        raise


def _open(path: str) -> IO[bytes]:
    return open(0, "rb", closefd=False) if path == STDIN else Path(path).open("rb")


def lines_of(path: str, end: bytes) -> Iterator[bytes]:
    r"""The lines of a file without their ends; ``\r\n`` ends a line too, and ``\r`` where there is no ``\n``.

    Raises:
        OSError: It can't be read, or is damaged.
    """
    try:
        with open_plain(path, end) as file:
            end = _end_of_lines(file, end)
            for line in file if end == b"\n" else _split(file, end):
                line = line.removesuffix(end)
                yield line.removesuffix(b"\r") if end == b"\n" else line
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise OSError(f"{path} is damaged: {error}") from None


def count_lines(path: str, end: bytes) -> tuple[int, int]:
    """Lines of a regular file, by their ends, blank ones too; and their bytes."""
    total, size, last = 0, 0, b""
    with open_plain(path, end) as file:
        end = _end_of_lines(file, end)
        while chunk := file.read(1 << 20):
            total += chunk.count(end)
            size += len(chunk)
            last = chunk
    return total + (bool(last) and not last.endswith(end)), size


def _recognised(file: IO[bytes], path: str, end: bytes) -> io.BufferedReader[Any]:
    head, chunks = _head_of(file)
    for magic, why in _REFUSED.items():
        if head.startswith(magic):
            raise UnreadableInput(f"{path} {why.format(path=path)}")
    whole: io.BufferedReader[Any] = io.BufferedReader(_Chunks(chunks, file), _CHUNK)
    for magic, decompressed in _COMPRESSED.items():
        if head.startswith(magic):
            return _recognised(decompressed(whole), path, end)
    if head.startswith(_UTF_16):
        return io.BufferedReader(_Chunks(_utf_8(whole), whole), _CHUNK)
    if head.startswith(_MARK):
        whole.read(len(_MARK))
    elif end != b"\0":
        _refuse_zeros(head, path)
    return whole


def _refuse_zeros(head: bytes, path: str) -> None:
    zeros = head.count(0)
    if zeros * 4 > len(head):
        raise UnreadableInput(
            f"{path} holds zero bytes, as UTF-16 without a byte order mark does: "
            f"iconv -f UTF-16LE -t UTF-8 {path} | director run ... -"
        )
    if zeros and b"\n" not in head:
        raise UnreadableInput(f"{path} holds zero bytes and no line break: if its lines end in zero bytes, add -0")


def _head_of(file: IO[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The beginning of a file, long enough to recognise it, and all chunks of it."""
    read: Callable[[int], bytes] = getattr(file, "read1", file.read)
    head = read(_HEAD)
    while head and any(len(head) < len(magic) and magic.startswith(head) for magic in _MAGIC):
        more = read(_HEAD)
        if not more:
            break
        head += more

    def chunks() -> Iterator[bytes]:
        yield head
        while chunk := read(_CHUNK):
            yield chunk

    return head, chunks()


def _utf_8(file: IO[bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    while chunk := file.read(_CHUNK):
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")


def _end_of_lines(file: io.BufferedReader[Any], end: bytes) -> bytes:
    r"""``\r`` for a file of an old Macintosh, else `end`."""
    if end != b"\n":
        return end
    head = file.peek(_HEAD)
    return b"\r" if b"\r" in head[:-1] and b"\n" not in head else end


def _split(file: io.BufferedReader[Any], end: bytes) -> Iterator[bytes]:
    rest = b""
    while chunk := file.read1(_CHUNK):
        *whole, rest = (rest + chunk).split(end)
        yield from whole
    if rest:
        yield rest


class _Chunks(io.RawIOBase):
    """Chunks as a file; closing it closes `file`."""

    def __init__(self, chunks: Iterator[bytes], file: IO[bytes]) -> None:
        self._chunks = chunks
        self._file = file
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
