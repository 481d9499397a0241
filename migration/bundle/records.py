"""The records of a table's file, as JSON text."""

from __future__ import annotations

import re
from typing import Any, BinaryIO, Callable, Iterable, Iterator, List, Optional, Sequence, Tuple

import msgspec

from migration.conversion import deep, value_at
from migration.files import block_size

LINES = 1 << 18  # bytes of records that are processed together


def in_blocks(texts: Iterable[bytes]) -> Iterator[List[bytes]]:
    """Group records into blocks of about LINES bytes, to process them together."""
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
            yield found  # the records before the damage are sound
        raise
    if found:
        yield found


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


def in_lines(file: BinaryIO, digest: Any) -> Iterator[List[bytes]]:
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
        if (parts[0][-1:] + parts[1][-2:])[-2:] != b",\n":
            parts.append(file.read(len(_END)))
        block = b"".join(parts)
        del parts
        digest.update(block)
        is_last = block.endswith(_END)
        if is_first and block == _END[1:]:
            is_last, block = True, b""
        if file.read(1) if is_last else not block.endswith(b",\n"):
            raise OtherLayout
        if not block:
            return
        lines = block.count(b"\n")
        found = [block[: -len(_END) if is_last else -2].split(b",\n")]
        del block
        if lines != len(found[0]) + is_last:
            raise OtherLayout
        yield found.pop()  # and keep no reference: a record may be large
        if is_last:
            return
        is_first = False


_END = b"\n]\n"


def in_array(text: str) -> Iterator[bytes]:
    """The records of a JSON array in any layout. Raises ValueError at the place where it is damaged.

    ``text``: decoded with ``surrogateescape``, so that only a record that is not UTF-8 is refused, by its decoder.
    """

    def sign_at(position: int) -> Tuple[str, int]:
        """The next sign that is not blank, and where it is."""
        found = _BLANK.match(text, position)
        assert found is not None
        return text[found.end() : found.end() + 1], found.end()

    end_of = deep(value_at)
    sign, position = sign_at(0)
    if sign != "[":
        raise ValueError("not a JSON array")
    sign, position = sign_at(position + 1)
    while sign != "]":
        if sign != "{":
            raise ValueError("not a JSON object" if sign else "the file ends too early")
        _, end = end_of(text, position)
        yield text[position:end].encode("utf-8", "surrogateescape")
        sign, position = sign_at(end)
        if sign == ",":
            sign, position = sign_at(position + 1)
            if sign == "]":
                raise ValueError("a comma before the end of the array")
        elif sign != "]":
            raise ValueError("a comma is missing" if sign else "the file ends too early")
    if sign_at(position + 1)[0]:
        raise ValueError("text after the end of the array")


_BLANK = re.compile(r"[ \t\n\r]*")
