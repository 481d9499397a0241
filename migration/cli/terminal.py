"""What a script shows besides its log: progress on a terminal, tables and results on standard output."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Callable, Iterator, Optional, Sequence

from migration.cli.log import quiet
from migration.errors import ExitCode, MigrationError
from migration.printing import printable, silence, size


def no_advance(rows: int) -> None:
    """Stands in for a progress bar's function when none is shown."""


@contextlib.contextmanager
def progress(
    what: str, total: Optional[int] = None, unit: str = "rows", remaining: bool = False
) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing elsewhere; yields a function to call with the number of units done since its last call.

    ``remaining``: show the estimated remaining time.
    """
    if not wants_progress():
        yield no_advance
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        *([TextColumn("left:"), TimeRemainingColumn()] if remaining else []),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda rows: bar.advance(task, rows)


def wants_progress() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and not quiet()


_BREAK = re.compile("\n")


def summary(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    even_if_quiet: bool = False,
    is_result: bool = False,
) -> None:
    """Print a table to stdout, unless --quiet: text left-aligned, numbers right-aligned with a total below.

    ``is_result``: this table is what the run is for, so failing to print it is an error (exit 2).

    A column headed ``bytes`` is shown in units, one with ``seconds`` in its head with two decimals.
    """
    if quiet() and not even_if_quiet:
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    totals = [_total(name, [row[i] for row in rows]) for i, name in enumerate(columns)]
    shown = Table(show_footer=any(totals))
    for i, (name, total) in enumerate(zip(columns, totals)):
        text = all(isinstance(row[i], str) for row in rows)
        shown.add_column(
            name, justify="left" if text else "right", footer=total or ("" if i else "total"), overflow="fold"
        )
    for row in rows:
        cells = (printable(_cell(name, value), breaks=_BREAK) for name, value in zip(columns, row))
        shown.add_row(*map(Text, cells))
    with _read_along(ExitCode.USAGE if is_result else None):
        print(printable(title))
        Console(width=None if sys.stdout.isatty() else 100, highlight=False).print(shown)


def output(text: str, verdict: ExitCode = ExitCode.DONE) -> None:
    """Print a result for another program. If that fails, raises MigrationError with the verdict's exit code, else 2."""
    with _read_along(verdict or ExitCode.USAGE):
        sys.stdout.write(text)


@contextlib.contextmanager
def _read_along(needed: Optional[ExitCode]) -> Iterator[None]:
    """Print to stdout. If it is closed or its disk full, raises MigrationError with exit code ``needed``; None: go on."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        silence("stdout")
        if needed is not None:
            unread = MigrationError(
                "the result cannot be printed to standard output: %s" % (error.strerror or "it is closed"),
                "send it to a file that can be written",
            )
            unread.exit_code = needed
            raise unread from error


def _total(column: str, values: Sequence[object]) -> str:
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return _cell(column, sum(numbers)) if numbers else ""


def _cell(column: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if column == "bytes" and isinstance(value, int):
        return size(value)
    return "%.2f" % value if isinstance(value, float) else str(value)
