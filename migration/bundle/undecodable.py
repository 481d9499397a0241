"""Find the row and the column of text that is not in the encoding that it should be in."""

from __future__ import annotations

import json
import re
from typing import Optional, Sequence


def column_of(record: bytes, codec: str) -> Optional[str]:
    """The first column of a JSON record whose text Python's ``codec`` cannot decode; None if it decodes all of it."""
    try:
        record.decode(codec)
    except UnicodeDecodeError:
        for column, value in json.loads(record.decode(codec, "surrogateescape")).items():
            if re.search("[\udc80-\udcff]", json.dumps(value, ensure_ascii=False)):
                return str(column)
    return None


def place(record: bytes, table: str, column: str, key: Sequence[str]) -> str:
    """Table, row and column, for a message. ``key``: the columns of the row's key; unknown ones are left out."""
    values = json.loads(record.decode("ascii", "replace"))
    row = ", ".join(str(values[name]) for name in key if name in values)
    return "table %s, %scolumn %s" % (table, "row %s, " % row if row else "", column)
