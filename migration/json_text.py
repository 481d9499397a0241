"""JSON text taken apart without changing it: where each element of an array or member of an object begins and ends.

For what the usual decoder does not read, or not exactly: other layouts, members that stand there twice, halves of surrogate
pairs, and nesting deeper than Python's recursion limit. PostgreSQL takes some thousand levels.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Callable, Dict, Iterator, Tuple

DEEPEST = 10000  # levels, half of it where each takes two calls; PostgreSQL's max_stack_depth ends earlier


def refuse_constant(name: str) -> None:
    """For ``parse_constant``: NaN and Infinity, which Python would read."""
    raise ValueError("%s is not JSON" % name)


# Only the end of the value matters, so integers are parsed as floats: int() refuses more than 4300 digits.
_READER = json.JSONDecoder(parse_constant=refuse_constant, parse_int=float)
# From 3.12 on, sys.setrecursionlimit counts for Python's own code only, so the reader has to be in Python.
_DEEP_READER = json.JSONDecoder(parse_constant=refuse_constant, parse_int=float)
if sys.version_info >= (3, 12):
    _DEEP_READER.scan_once = json.scanner.py_make_scanner(_DEEP_READER)  # type: ignore[attr-defined]


def value_at(text: str, position: int) -> Tuple[Any, int]:
    """The JSON value at a position, and where it ends. Raises ValueError, RecursionError."""
    try:
        return _READER.raw_decode(text, position)
    except RecursionError:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(limit + DEEPEST)
        try:
            return _DEEP_READER.raw_decode(text, position)
        finally:
            sys.setrecursionlimit(limit)


_BLANKS = re.compile(r"[ \t\n\r]*")


def _sign_at(text: str, position: int) -> Tuple[str, int]:
    """The next sign that is not blank, "" at the end, and where it is."""
    found = _BLANKS.match(text, position)
    assert found is not None
    return text[found.end() : found.end() + 1], found.end()


def _parts(
    text: str, brackets: str, what: str, end_of: Callable[[str, int], int]
) -> Iterator[Tuple[int, int]]:
    """Where each part of an array or object begins and ends; ``end_of`` says where one at a position ends."""
    sign, position = _sign_at(text, 0)
    if sign != brackets[0]:
        raise ValueError("not a JSON " + what)
    sign, position = _sign_at(text, position + 1)
    while sign != brackets[1]:
        end = end_of(text, position)
        yield position, end
        sign, position = _sign_at(text, end)
        if sign == ",":
            sign, position = _sign_at(text, position + 1)
            if sign == brackets[1]:
                raise ValueError("a comma before the end of the " + what)
        elif sign != brackets[1]:
            raise ValueError("a comma is missing" if sign else "the file ends too early")
    if _sign_at(text, position + 1)[0]:
        raise ValueError("text after the end of the " + what)


def objects(text: str) -> Iterator[str]:
    """The text of each object of a JSON array in any layout. Raises ValueError at the place where it is damaged."""

    def end_of(text: str, position: int) -> int:
        if text[position : position + 1] != "{":
            raise ValueError("not a JSON object" if position < len(text) else "the file ends too early")
        return value_at(text, position)[1]

    for start, end in _parts(text, "[]", "array", end_of):
        yield text[start:end]


def members(content: bytes) -> Dict[str, bytes]:
    """The members of a JSON object, as JSON text. Raises ValueError, also where one stands there twice."""
    found: Dict[str, bytes] = {}

    def end_of(text: str, position: int) -> int:
        name, position = value_at(text, position)
        colon, position = _sign_at(text, position)
        if not isinstance(name, str) or colon != ":":
            raise ValueError("a name or a colon is missing")
        if name in found:
            raise ValueError("it has %s twice" % name)
        _, start = _sign_at(text, position + 1)
        _, end = value_at(text, start)
        found[name] = text[start:end].encode("utf-8")
        return end

    for _ in _parts(content.decode("utf-8"), "{}", "object", end_of):
        pass
    return found
