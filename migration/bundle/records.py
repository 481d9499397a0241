"""The records of a table's file, as JSON text."""

from __future__ import annotations

import hashlib
import re
from typing import Any, BinaryIO, Callable, Iterable, Iterator, List, Optional, Sequence, Tuple

import msgspec

from migration.conversion import deep, value_at
from migration.files import BLOCK, block_size

LINES = 1 << 18  # bytes of records that are looked at together


def in_blocks(texts: Iterable[bytes]) -> Iterator[List[bytes]]:
    """Records some at a time, so that they can be looked at together."""
    found: List[bytes] = []
    size = 0
    try:
        for text in texts:
            found.append(text)
            size += len(text)
            if size > LINES:
                yield found
                found, size = [], 0
    except (ValueError, RecursionError):
        if found:
            yield found  # the records before the damage count
        raise
    if found:
        yield found


DAMAGES = (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError)


def first_damage(
    texts: Sequence[bytes], decode: Callable[[bytes], Any]
) -> Tuple[int, Optional[BaseException]]:
    """How many records are sound before the first that is not, and what is wrong with that one."""
    for number, text in enumerate(texts):
        try:
            decode(text)
        except DAMAGES as error:
            return number, error
    return len(texts), None


class Lines:
    """The records of a file in our own layout, block by block; stops before the first block in another layout.

    ``offset``: how far the file was accepted; ``last``: the sign before it: "[", "," or the "}" of a record;
    ``digest``: of what was accepted.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.offset, self.last, self.ended = 0, "", False
        self.digest = hashlib.sha256()
        self._read = 0, self.digest

    def accept(self) -> None:
        """The block that was handed out last is one of records."""
        size, self.digest = self._read
        self.offset += size
        self.last = ","

    def __iter__(self) -> Iterator[List[bytes]]:
        file = self._file
        head = file.readline(16)
        if head.strip() != b"[":
            return
        self.offset, self.last = len(head), "["
        self.digest.update(head)
        size = min(LINES, block_size(file.fileno()))
        while True:
            # The last record's line has to be read whole, and what ends the array behind it.
            parts = [file.read(size), file.readline()]
            if (parts[0][-1:] + parts[1][-2:])[-2:] != b",\n":
                parts.append(file.read(len(_END)))
            block = b"".join(parts)
            del parts
            digest = self.digest.copy()
            digest.update(block)
            self._read = len(block), digest
            closed = block.endswith(_END)
            if closed or block == _END[1:]:
                if file.read(1):
                    return
                if not closed:
                    self.ended = self.last == "["
                    if self.ended:
                        self.digest = digest
                    return
            elif not block.endswith(b",\n"):
                return
            lines = block.count(b"\n")
            found = [block[: -len(_END) if closed else -2].split(b",\n")]
            del block
            if lines != len(found[0]) + closed:
                return
            yield found.pop()  # and keep nothing of it: a record may be large
            if closed:
                self.ended = True
                return


_END = b"\n]\n"


_BLANK = re.compile(r"[ \t\n\r]*")


def scanned(file: BinaryIO, layout: Lines) -> Iterator[bytes]:
    """The records behind those that ``layout`` accepted."""
    import codecs

    file.seek(layout.offset)
    last = layout.last
    decoder = codecs.getincrementaldecoder("utf-8")()
    end_of = deep(value_at)
    buffer, position, block, ended = "", 0, BLOCK, False

    def more() -> bool:
        nonlocal buffer, position, ended, block
        data = file.read(block)
        layout.digest.update(data)
        ended = not data
        buffer = buffer[position:] + decoder.decode(data, final=ended)
        position = 0
        block *= 2  # so that a record of any size is scanned a bounded number of times
        return not ended

    def skip_blank() -> str:
        nonlocal position
        while True:
            found = _BLANK.match(buffer, position)
            assert found is not None
            position = found.end()
            if position < len(buffer) or not more():
                return buffer[position : position + 1]

    if not last:
        if skip_blank() != "[":
            raise ValueError("not a JSON array")
        position, last = position + 1, "["
    while True:
        character = skip_blank()
        if character == "]" and last != ",":
            position += 1
            if skip_blank():
                raise ValueError("text after the end of the array")
            return
        if not character:
            raise ValueError("the file ends too early")
        if last == "}":
            if character != ",":
                raise ValueError("a comma is missing")
            position, last = position + 1, ","
            continue
        if character != "{":
            raise ValueError(
                "a comma before the end of the array" if character == "]" else "not a JSON object"
            )
        while True:
            try:
                _, end = end_of(buffer, position)
                break
            except ValueError:
                if not more():
                    raise
        block = BLOCK
        yield buffer[position:end].encode("utf-8")
        position, last = end, "}"
