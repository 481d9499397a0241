"""The records of a table's file, as JSON text."""

from __future__ import annotations

from typing import Any, BinaryIO, Callable, Iterable, Iterator, List, Optional, Sequence, Tuple

import msgspec

from migration.files import block_size
from migration.json_text import objects

LINES = 1 << 18  # bytes of records that are processed together
MANY_BYTES = 16 << 20  # of a block with a large record: it is not copied to be processed as a whole
BETWEEN = b",\n"  # two records


class Block:
    """Records that are processed together, as JSON text: at least one.

    ``lines``: one record a line, with a comma and a line end between two; None where a record has several lines.
    """

    def __init__(self, lines: Optional[bytes], texts: Sequence[bytes] = ()) -> None:
        self.lines = lines
        self._texts = texts

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Block:
        lines = BETWEEN.join(texts)
        return cls(lines if lines.count(b"\n") < len(texts) else None, texts)

    @property
    def texts(self) -> Sequence[bytes]:
        """Each record's text. One that is not JSON may have been taken apart at a line end within it."""
        return self._texts or (self.lines or b"").split(BETWEEN)

    @property
    def last(self) -> bytes:
        if self._texts or self.lines is None:
            return self._texts[-1]
        start = self.lines.rfind(BETWEEN)
        return self.lines if start < 0 else self.lines[start + len(BETWEEN) :]

    def count(self) -> int:
        """How many records these are; it takes as long as to hash them."""
        return len(self._texts) or (self.lines or b"").count(BETWEEN) + 1


def in_blocks(texts: Iterable[bytes]) -> Iterator[Block]:
    """Group records into blocks of about LINES bytes, to process them together."""
    found: List[bytes] = []
    size = 0
    try:
        for text in texts:
            found.append(text)
            size += len(text)
            if size > LINES:
                yield Block.of(found)
                found, size = [], 0
    except (ValueError, RecursionError):
        if found:
            yield Block.of(found)  # the records before the damage are sound
        raise
    if found:
        yield Block.of(found)


DAMAGES = (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError)


def first_damage(
    texts: Sequence[bytes], decode: Callable[[bytes], Any]
) -> Tuple[int, Optional[BaseException]]:
    """The number of sound records before the first damaged one, and what is wrong with that (None: with none)."""
    for number, text in enumerate(texts):
        try:
            decode(text)
        except DAMAGES as error:
            return number, error
    return len(texts), None


class OtherLayout(Exception):
    """A file, or what follows its last block, does not hold one record a line as our own do."""


def in_lines(file: BinaryIO, digest: Any) -> Iterator[Block]:
    """The records of a file in our own layout, block by block, at flat memory; ``digest`` is given all bytes.

    Raises OtherLayout, perhaps after some blocks. Whether each text is one record, only decoding it tells.
    """
    head = file.readline(16)
    digest.update(head)
    if head.strip() != b"[":
        raise OtherLayout
    size = min(LINES, block_size(file.fileno()))
    is_first = True
    while True:
        # Read the last record's line to its end, and the end of the array behind it.
        parts = [file.read(size), file.readline()]
        if (parts[0][-1:] + parts[1][-2:])[-2:] != BETWEEN:
            parts.append(file.read(len(_END)))
        block = b"".join(parts)
        del parts
        digest.update(block)
        is_last = block.endswith(_END)
        if is_first and block == _END[1:]:
            is_last, block = True, b""
        if file.read(1) if is_last else not block.endswith(BETWEEN):
            raise OtherLayout
        if not block:
            return
        found = [Block(block[: -len(_END if is_last else BETWEEN)])]
        del block
        yield found.pop()  # and keep no reference: a record may be large
        if is_last:
            return
        is_first = False


_END = b"\n]\n"


def in_array(text: str) -> Iterator[bytes]:
    """The records of a JSON array in any layout. Raises ValueError at the place where it is damaged.

    ``text``: decoded with ``surrogateescape``, so that only a record that is not UTF-8 is refused, by its decoder.
    """
    for record in objects(text):
        yield record.encode("utf-8", "surrogateescape")
