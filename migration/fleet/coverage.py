"""No row stays behind unnoticed: every table's rows in PostgreSQL, against those in the validated files of all users.

PostgreSQL counts each user's rows at the run's instant, for all users at once and by another query than the export's. The ledger has
how many rows the validation found in each user's files. Both are read user by user in the same order, so memory stays flat.
"""

from __future__ import annotations

import itertools
import json
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from migration.cli import terminal
from migration.fleet.ledger import Ledger
from migration.postgres.coverage import FIRST, SHARED, Counted, Counting, Whose

LISTED = 20  # problems that are told
SKIPPED = "skipped: a reference leaves the export"
FAILED = "user failed"
NOT_CHOSEN = "user not chosen"
CHANGED = "changed since an earlier run migrated the user"
DIFFERENT = "not as in the user's file"

UNTOLD = "rows may be in several files in other ways than by being shared: not told apart"
UNREADABLE = "the role may not read all of it: not counted"


class _Reason:
    """Rows of a table in no file for one reason, and the first users whose they are."""

    def __init__(self) -> None:
        self.rows = 0
        self.users: List[str] = []

    def add(self, rows: int, user: str) -> None:
        self.rows += rows
        if rows and len(self.users) < FIRST:
            self.users.append(user)


class _Tally:
    """What is known of a table while users are read. ``everybodys``: rows that each user's file should have."""

    def __init__(self, counted: Counted, rows: int, everybodys: int, nobodys: List[Dict[str, Any]]) -> None:
        self.counted = counted
        self.rows = rows
        self.everybodys = everybodys
        self.nobodys = nobodys
        self.in_files = 0  # without those that each file should have
        self.files = 0  # that have those
        self.appearances = 0
        self.is_told = counted.whose is not Whose.SEVERAL
        self.reasons: Dict[str, _Reason] = {}

    def miss(self, reason: str, rows: int, user: str) -> None:
        if rows:
            self.reasons.setdefault(reason, _Reason()).add(rows, user)


class _User(NamedTuple):
    """What the ledger has of a user: ``rows``, and rows that were skipped, by table; None if there are no files."""

    id: str
    state: str
    is_of_this_run: bool
    rows: Optional[Mapping[str, int]]
    skipped: Mapping[str, int]


def count(counting: Counting, book: Ledger, run: int) -> Dict[str, Any]:
    """Count every table. Of what is returned, ``problems`` says where the sums do not add up."""
    problems: List[str] = []
    tallies, others = {}, {}
    for number, counted in enumerate(counting.tables):
        rows = counting.rows(counted)
        if rows is None or counted.whose not in (Whose.ONE, Whose.ALL, Whose.SEVERAL):
            others[number] = _left(counting, counted, rows)
            continue
        nobodys = counting.nobodys(counted) if counted.whose is Whose.ONE else []
        shared = sum(found.rows for found in nobodys if found.reason == SHARED)
        tallies[number] = _Tally(
            counted,
            rows,
            rows if counted.whose is Whose.ALL else shared,
            [
                {"reason": found.reason, "rows": found.rows, "first_keys": list(found.first)}
                for found in nobodys
                if found.reason != SHARED
            ],
        )
    for user, of_user in _users(counting, book, run):
        for number, tally in tallies.items():
            problem = _add(tally, user, of_user.get(number, 0))
            if problem is not None:
                problems.append(problem)
                del problems[LISTED:]
    tables = [
        others[number] if number in others else _told(counting, tallies[number], problems)
        for number in range(len(counting.tables))
    ]
    return {"complete": not problems, "problems": problems, "tables": tables}


def _left(counting: Counting, counted: Counted, rows: Optional[int]) -> Dict[str, Any]:
    """A table that is not migrated, or not to be read."""
    found: Dict[str, Any] = {
        "table": counted.table,
        "rows": rows,
        "in_files": 0,
        "in_several": 0,
        "in_none": rows,
    }
    reason: Dict[str, Any] = {"reason": counted.whose.value, "rows": rows}
    if rows is None:
        found["note"] = UNREADABLE
    elif rows:
        reason["first_keys"] = list(counting.first_of_others(counted))
    found["reasons"] = [reason] if rows is None or rows else []
    return found


def _users(counting: Counting, book: Ledger, run: int) -> Iterator[Tuple[_User, Mapping[int, int]]]:
    """Every user of PostgreSQL or the ledger, and their rows in PostgreSQL by the table's number."""
    sources = itertools.chain(counting.of_roots(), [(None, {})])
    entries: Iterator[Optional[Dict[str, Any]]] = itertools.chain(book.users(), [None])
    (root, rows), entry = next(sources), next(entries)
    while root is not None or entry is not None:
        here = None if root is None else root.encode("utf-8")
        there = None if entry is None else entry["user_id"].encode("utf-8")
        is_first = here is not None and (there is None or here <= there)
        is_entry = there is not None and (here is None or there <= here)
        user = _user(entry, run) if is_entry and entry is not None else _User(root or "", "", True, None, {})
        yield user, rows if is_first else {}
        if is_first:
            root, rows = next(sources)
        if is_entry:
            entry = next(entries)


def _user(entry: Mapping[str, Any], run: int) -> _User:
    rows, skipped = json.loads(entry["table_rows"]) if entry["table_rows"] else (None, {})
    return _User(entry["user_id"], entry["state"], entry["run"] == run, rows, skipped)


def _add(tally: _Tally, user: _User, own: int) -> Optional[str]:
    """Add a user's rows of a table. Returns what does not add up."""
    name = tally.counted.table
    if user.state != "done":
        tally.miss(FAILED if user.state == "failed" else NOT_CHOSEN, own, user.id)
        return None
    if user.rows is None:  # by a version that did not note them
        tally.miss(CHANGED, own, user.id)
        return None
    held, skipped = user.rows.get(name, 0), user.skipped.get(name, 0)
    tally.appearances += held
    if tally.counted.whose is Whose.SEVERAL:
        return None
    expected = own + tally.everybodys
    if held + skipped != expected:
        tally.miss(DIFFERENT if user.is_of_this_run else CHANGED, own, user.id)
        if not user.is_of_this_run:
            return None
        return "user %s, table %s: %d rows in PostgreSQL, %d in the file%s" % (
            user.id,
            name,
            expected,
            held,
            ", %d skipped" % skipped if skipped else "",
        )
    if skipped and tally.everybodys:
        tally.is_told = False  # whether a shared row or one's own was skipped
        return None
    tally.files += 1
    tally.in_files += own - skipped
    tally.miss(SKIPPED, skipped, user.id)
    return None


def _told(counting: Counting, tally: _Tally, problems: List[str]) -> Dict[str, Any]:
    """A table in the summary. A sum that does not add up is added to ``problems``."""
    name, shared = tally.counted.table, tally.everybodys
    found: Dict[str, Any] = {"table": name, "rows": tally.rows, "appearances": tally.appearances}
    if not tally.is_told:
        found.update(in_files=None, in_several=None, in_none=None, note=UNTOLD, reasons=[])
        return found
    in_files = tally.in_files + (shared if tally.files else 0)
    reasons = [
        *tally.nobodys,
        *(
            {
                "reason": reason,
                "rows": missed.rows,
                "first_users": missed.users,
                **(
                    {}
                    if reason == SKIPPED
                    else {"first_keys": list(counting.first_of(tally.counted, missed.users))}
                ),
            }
            for reason, missed in tally.reasons.items()
        ),
    ]
    if shared and not tally.files:
        reasons.append({"reason": "shared, and no user's file has all of them", "rows": shared})
    in_none = sum(reason["rows"] for reason in reasons)
    if in_files + in_none != tally.rows:
        problems.append(
            "table %s: %d rows in PostgreSQL, but %d in files and %d in none"
            % (name, tally.rows, in_files, in_none)
        )
    found.update(
        in_files=in_files, in_several=shared if tally.files > 1 else 0, in_none=in_none, reasons=reasons
    )
    return found


def show(coverage: Mapping[str, Any]) -> None:
    """Print a line for each table with rows."""
    rows = [
        (
            table["table"],
            table["rows"],
            table["in_files"],
            table["in_several"],
            table["in_none"],
            table.get("note") or "; ".join(map(_reason, table["reasons"])),
        )
        for table in coverage["tables"]
        if table["rows"] != 0
    ]
    title = "Coverage: " + ("every row is accounted for" if coverage["complete"] else "rows do not add up")
    if any(table.get("note") for table in coverage["tables"]):
        title += ", except where it says that they are not counted or told apart"
    columns = ("table", "rows", "in files", "in several", "in none", "why")
    terminal.summary(title, columns, rows)
    if coverage["problems"]:
        problems = [(problem,) for problem in coverage["problems"]]
        terminal.summary("Rows that do not add up", ("problem",), problems, even_if_quiet=True)


def _reason(reason: Mapping[str, Any]) -> str:
    first = ", ".join(reason.get("first_keys") or reason.get("first_users") or ())
    return "%s: %s%s" % (reason["reason"], reason["rows"], " (%s)" % first if first else "")
