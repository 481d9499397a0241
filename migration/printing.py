"""Text from elsewhere as a terminal, a log or a report can show it; standard error, whoever reads it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import Any, Optional

LINES = re.compile("\n")
LISTS = re.compile("\n(?=  )")  # the lines of our own lists begin with two blanks


def printable(text: str, breaks: "Optional[re.Pattern[str]]" = None) -> str:
    """What cannot be seen, or could move the cursor or reorder the text around it, as an escape such as ``\\x1b``.

    ``breaks``: the line breaks that stay.
    """
    if text.isprintable():
        return text
    return "\n".join(map(_escaped, [text] if breaks is None else breaks.split(text)))


def _escaped(text: str) -> str:
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def printable_json(text: str) -> str:
    """The same of JSON text: its strings say the same as before."""
    return text if text.isprintable() else _NOT_ASCII.sub(_in_json, text)


_NOT_ASCII = re.compile("[^\n -~]")


def _in_json(found: "re.Match[str]") -> str:
    sign = found[0]
    if sign.isprintable():
        return sign
    units = sign.encode("utf-16-be", "surrogatepass").hex()
    return "".join("\\u" + units[i : i + 4] for i in range(0, len(units), 4))


def say(text: str, breaks: "re.Pattern[str]" = LISTS) -> None:
    """Print to standard error. That nobody can read it changes no exit code."""
    try:
        print(printable(text, breaks), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        silence("stderr")


def silence(name: str) -> None:
    """Send a standard stream that cannot be written nowhere, also what Python holds back of it until the end."""
    stream: Any = getattr(sys, name)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    except (OSError, ValueError, AttributeError):  # none of the system's
        setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    finally:
        with contextlib.suppress(OSError):
            os.close(nowhere)


SHOWN = 100  # characters of a value


def brief(text: str) -> str:
    """Text as a part of a line can hold it."""
    shown = printable(text[:SHOWN])
    return shown if len(text) <= SHOWN else "%s… (%d characters)" % (shown, len(text))


def counted(number: int, noun: str) -> str:
    """A number of things: 1 row, 2 rows, 3 companies, 4 people."""
    return "%d %s" % (number, noun if number == 1 else plural(noun))


def with_article(noun: str) -> str:
    """A workspace, an account; a user."""
    return "%s %s" % ("an" if noun[:1] in "aeio" else "a", noun)


def of_all(noun: str) -> str:
    """In the genitive: users', people's."""
    several = plural(noun)
    return several + ("'" if several.endswith("s") else "'s")


def conjugated(number: int, verb: str) -> str:
    """The verb of a number of things: one refers, two refer; one is, two are."""
    if number != 1:
        return verb
    return {"are": "is", "have": "has"}.get(verb, verb + "s")


def plural(noun: str) -> str:
    if noun in _PLURALS:
        return _PLURALS[noun]
    if re.search("[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


_PLURALS = {"person": "people", "child": "children", "man": "men", "woman": "women"}


def size(number: float) -> str:
    """Bytes for people: 999 B, 1.2 kB, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return "%d B" % number if unit == "B" else "%.1f %s" % (number, unit)
        number /= 1000
    return "%.1f TB" % number
