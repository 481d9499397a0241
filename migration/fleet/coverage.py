"""No row stays behind unnoticed: every table's rows in PostgreSQL, against those in the validated files of all users.

PostgreSQL counts each user's rows at the run's instant, for all users at once and by other queries than the export's. The ledger has
how many rows the validation found in each user's files. Both are read user by user in the same order, so memory stays flat. Rows that may be
several users' are in a file meanwhile.
"""

from __future__ import annotations

import heapq
import itertools
import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from migration.cli import terminal
from migration.fleet import row_by_row
from migration.fleet.ledger import Ledger
from migration.fleet.row_by_row import ENOUGH, EVERYBODYS, InBundle, RowByRow
from migration.postgres.coverage import FIRST, SHARED, Counted, Counting, Whose

_OfRoot = Tuple[str, Mapping[int, int]]  # a root's key, and its rows by the table's number

LISTED = 20  # problems that are told
# Reasons; {root} is what a root is called
SKIPPED = "skipped: a reference leaves the export"
FAILED = "{root} failed"
NOT_CHOSEN = "{root} not chosen"
CHANGED = "changed since an earlier run migrated the {root}"
CHANGED_OR_SKIPPED = "skipped, or " + CHANGED
DIFFERENT = "not as in the {root}'s file"

# Of several users whose a row is, whose file does not hold it: what counts first
ORDER = (DIFFERENT, SKIPPED, CHANGED_OR_SKIPPED, CHANGED, FAILED, NOT_CHOSEN)
UNREADABLE = "the role may not read all of it, or of what its rows belong to: not counted"


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

    def __init__(self, counted: Counted, rows: int) -> None:
        self.counted = counted
        self.rows = rows
        self.everybodys = rows if counted.whose is Whose.ALL else 0
        self.nobodys: List[Dict[str, Any]] = []
        self.in_files = 0  # without those that each file should have
        self.files = 0  # that have all that they should
        self.appearances = 0
        self.is_uncertain = False  # which rows some files have
        self.changed = 0  # users of an earlier run, where there are rows that each file should have
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


def count(counting: Counting, book: Ledger, run: int, output: Path, folder: Path) -> Dict[str, Any]:
    """Count every table. Of what is returned, ``problems`` says where the sums do not add up.

    ``output``: where the users' folders are. ``folder``: for a file that is not needed afterwards.
    """
    with row_by_row.opened(folder / "coverage.db") as rows:
        return _Count(counting, rows, output).count(book, run)


class _Count:
    """The tallies of all tables, by number, and what each user adds to them."""

    def __init__(self, counting: Counting, rows: RowByRow, output: Path) -> None:
        self.counting = counting
        self.by_row = rows
        self.output = output
        self.called = counting.settings.root.called
        self.problems: List[str] = []
        self.others: Dict[int, Dict[str, Any]] = {}
        self.tallies: Dict[int, _Tally] = {}
        sizes = [counting.rows(counted) for counted in counting.tables]
        migrated = {
            number: counted
            for number, counted in enumerate(counting.tables)
            if counted.whose in (Whose.ONE, Whose.ALL, Whose.SEVERAL)
        }
        all_readable = all(sizes[number] is not None for number in migrated)
        for number, (counted, size) in enumerate(zip(counting.tables, sizes)):
            if size is None or number not in migrated:
                self.others[number] = _left(counting, counted, size)
            elif counted.whose is Whose.SEVERAL and not all_readable:  # whose its rows are, others say
                self.others[number] = _left(counting, counted, None)
            else:
                self.tallies[number] = _Tally(counted, size)
        if any(tally.counted.whose is Whose.SEVERAL for tally in self.tallies.values()):
            rows.enter_pairs(
                counting.pairs({tally.counted.table: tally.rows for tally in self.tallies.values()})
            )
        for number, tally in self.tallies.items():
            if tally.counted.whose is Whose.SEVERAL:
                rows.enter_rows(number, counting.each_row(tally.counted))
        rows.index()
        for number, tally in self.tallies.items():
            if tally.counted.whose is Whose.SEVERAL:
                tally.everybodys = rows.everybodys(number)
            elif tally.counted.whose is Whose.ONE:
                nobodys = counting.nobodys(tally.counted)
                tally.everybodys = sum(found.rows for found in nobodys if found.reason == SHARED)
                tally.nobodys = [
                    {"reason": found.reason, "rows": found.rows, "first_keys": list(found.first)}
                    for found in nobodys
                    if found.reason != SHARED
                ]

    def count(self, book: Ledger, run: int) -> Dict[str, Any]:
        for user, of_user in _users(_merged(self.counting.of_roots(), self.by_row.of_roots()), book, run):
            self._add(user, of_user)
        tables = [
            self.others[number] if number in self.others else self._told(number)
            for number in range(len(self.counting.tables))
        ]
        return {"complete": not self.problems, "problems": self.problems, "tables": tables}

    def _problem(self, text: str) -> None:
        self.problems.append(text)
        del self.problems[LISTED:]

    def _add(self, user: _User, of_user: Mapping[int, int]) -> None:
        reason = None
        if user.state != "done":
            reason = FAILED if user.state == "failed" else NOT_CHOSEN
        elif user.rows is None:  # by a version that did not note them
            reason = CHANGED
        if reason is not None:
            self.by_row.has_no_files(user.id, reason)
            for number, rows in of_user.items():
                if number in self.tallies:
                    self.tallies[number].miss(reason, rows, user.id)
            return
        look = [
            number
            for number, tally in self.tallies.items()
            if self._is_to_look_at(number, tally, user, of_user.get(number, 0))
        ]
        if look:
            self._look(user, look)

    def _is_to_look_at(self, number: int, tally: _Tally, user: _User, own: int) -> bool:
        """Add a user's rows of a table. Returns whether the number of those in the file does not say which ones they are."""
        name = tally.counted.table
        held, skipped = (user.rows or {}).get(name, 0), user.skipped.get(name, 0)
        expected = own + tally.everybodys
        is_several = tally.counted.whose is Whose.SEVERAL
        reason = None
        tally.appearances += held
        if not user.is_of_this_run and (is_several or held + skipped != expected):
            # of SEVERAL if any, as the number may be the same by chance
            reason = CHANGED_OR_SKIPPED if skipped else CHANGED
        elif held + skipped != expected:
            reason = DIFFERENT
            self._problem(
                "%s %s, table %s: %d rows in PostgreSQL, %d in the file%s"
                % (self.called, user.id, name, expected, held, ", %d skipped" % skipped if skipped else "")
            )
        elif skipped:
            reason = SKIPPED
        if reason is None:
            tally.files += 1
            tally.in_files += own
            return False
        tally.is_uncertain = True
        self.by_row.is_uncertain(user.id, number, reason)
        if is_several or reason in (DIFFERENT, SKIPPED) or not tally.everybodys:
            return True
        tally.changed += 1
        return tally.changed <= ENOUGH

    def _look(self, user: _User, numbers: Sequence[int]) -> None:
        """Read from a user's bundle which rows of tables it holds."""
        wanted = {}
        for number in numbers:
            counted = self.tallies[number].counted
            wanted[number] = InBundle(
                self.counting.references.tables[counted.table],
                self.counting.named_by(counted),
                not self.counting.shows_keys(counted),
            )
        settings = self.counting.settings
        for number, sha256, rows in row_by_row.rows_in_bundle(self.output, user.id, settings, wanted):
            has_key = self.counting.has_key(self.tallies[number].counted)
            self.by_row.held(user.id, number, sha256, rows, not has_key)

    def _told(self, number: int) -> Dict[str, Any]:
        """A table in the summary. A sum that does not add up is added to the problems."""
        tally = self.tallies[number]
        name, shared = tally.counted.table, tally.everybodys
        told: Dict[str, Any] = {"table": name, "rows": tally.rows, "appearances": tally.appearances}
        is_several = tally.counted.whose is Whose.SEVERAL
        in_files, in_several, reasons = tally.in_files, 0, tally.nobodys
        if not is_several:
            reasons += [self._missed(tally, *item) for item in tally.reasons.items()]
        if is_several or tally.is_uncertain:
            found = self._found(number, tally)
            in_files = found.in_files + (0 if is_several else in_files)
            in_several = found.in_several
            reasons += [_as_told(reason) for reason in found.reasons]
        elif tally.files:
            in_files += shared
            in_several = shared if tally.files > 1 else 0
        elif shared:
            reasons.append({"reason": EVERYBODYS, "rows": shared})
        for reason in reasons:
            reason["reason"] = reason["reason"].replace("{root}", self.called)
        in_none = sum(reason["rows"] for reason in reasons)
        if in_files + in_none != tally.rows:
            self._problem(
                "table %s: %d rows in PostgreSQL, but %d in files and %d in none"
                % (name, tally.rows, in_files, in_none)
            )
        told.update(in_files=in_files, in_several=in_several, in_none=in_none, reasons=reasons)
        return told

    def _found(self, number: int, tally: _Tally) -> row_by_row.Found:
        """Where rows are of which that is told one by one: all, or those that are shared or of users who are uncertain."""
        if tally.counted.whose is not Whose.SEVERAL:
            self.by_row.enter_rows(number, self.counting.everybodys(tally.counted))
            for users in self.by_row.uncertain(number):
                self.by_row.enter_rows(number, self.counting.each_row(tally.counted, users))
        return self.by_row.found(number, tally.files, ORDER, self.counting.shows_keys(tally.counted))

    def _missed(self, tally: _Tally, reason: str, missed: _Reason) -> Dict[str, Any]:
        return {
            "reason": reason,
            "rows": missed.rows,
            "first_users": missed.users,
            "first_keys": list(self.counting.first_of(tally.counted, missed.users)),
        }


def _as_told(reason: row_by_row.Reason) -> Dict[str, Any]:
    told: Dict[str, Any] = {"reason": reason.reason, "rows": reason.rows, "first_keys": list(reason.keys)}
    if reason.users:
        told["first_users"] = list(reason.users)
    return told


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


def _merged(*sources: Iterator[_OfRoot]) -> Iterator[_OfRoot]:
    """What several sources have of each root, all in the order of the keys' bytes."""
    in_order = heapq.merge(*sources, key=lambda found: found[0].encode("utf-8"))
    for root, found in itertools.groupby(in_order, lambda found: found[0]):
        yield root, {number: rows for _, of_root in found for number, rows in of_root.items()}


def _users(of_roots: Iterator[_OfRoot], book: Ledger, run: int) -> Iterator[Tuple[_User, Mapping[int, int]]]:
    """Every user of PostgreSQL or the ledger, and their rows in PostgreSQL by the table's number."""
    sources: Iterator[Tuple[Optional[str], Mapping[int, int]]] = itertools.chain(of_roots, [(None, {})])
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
        title += ", except where it says that they are not counted"
    columns = ("table", "rows", "in files", "in several", "in none", "why")
    terminal.summary(title, columns, rows)
    if coverage["problems"]:
        problems = [(problem,) for problem in coverage["problems"]]
        terminal.summary("Rows that do not add up", ("problem",), problems, even_if_quiet=True)


def _reason(reason: Mapping[str, Any]) -> str:
    first = ", ".join(reason.get("first_keys") or reason.get("first_users") or ())
    return "%s: %s%s" % (reason["reason"], reason["rows"], " (%s)" % first if first else "")
