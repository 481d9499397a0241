"""The command line's common part: options, settings, logging, progress, and errors as exit codes."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import re
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Type

from migration.cli import packages
from migration.errors import ExitCode, MigrationError, ResourceError, UsageError, lacking
from migration.model import require_distinct, require_tuple
from migration.printing import LINES, LISTS, printable, say, silence
from migration.settings import Settings

log = logging.getLogger("migration")

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

EXIT_CODES = """\
exit codes:
  0    done
  1    the validation found differences, or some of many users failed
  2    usage or configuration
  3    PostgreSQL: unreachable, refused, user not found, data it cannot represent
  4    export bundle missing, damaged or of another user
  5    SQLite: locked, not writable, disk full, constraint; the old database is untouched
  70   a bug in the program, or the machine lacks memory, threads, open files or a package
  130  interrupted
"""


# Options


def parser(description: str, data_dir: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that every script has; ``data_dir``: also that for the bundle's folder."""
    made = _Parser(
        description=description,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if data_dir:
        made.add_argument(
            "--data-dir", metavar="DIR", help="export bundle (MIGRATION_DATA_DIR; default: migration_data)"
        )
    made.add_argument("--log-file", metavar="FILE", help="also write the log here (LOG_FILE)")
    loudness = made.add_mutually_exclusive_group()
    loudness.add_argument("--verbose", "-v", action="store_true", help="log details (LOG_LEVEL=DEBUG)")
    loudness.add_argument(
        "--quiet", "-q", action="store_true", help="print warnings and errors only (LOG_LEVEL=WARNING)"
    )
    return made


class _Parser(argparse.ArgumentParser):
    """Prints as ``run`` does."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not sys.stdout:
            say(message.rstrip("\n"), LINES)
            return
        try:
            output(message)
        except MigrationError as error:
            _print_error(error)
            sys.exit(int(error.exit_code))


def add_user(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--user-email",
        metavar="EMAIL",
        help="who is migrated (MIGRATION_USER_EMAIL; default: the bundle's user where the export is skipped, else config.DEFAULT_USER_EMAIL)",
    )


def add_source(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--postgres-url",
        metavar="URL",
        help="postgresql://user:password@host:port/database or conninfo (POSTGRES_URL, or POSTGRES_HOST, _PORT, _DB, _USER, _PASSWORD)",
    )


def add_schema(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--schema-path",
        metavar="FILE",
        help="SQLite schema (SCHEMA_PATH; default: the application's, else the suite's own)",
    )


def add_target(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--sqlite-path", metavar="FILE", help="SQLite database (SQLITE_PATH; default: ../app.db)"
    )


def add_backup(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--backup-dir", metavar="DIR", help="backups of the database (BACKUP_DIR; default: backups)"
    )
    made.add_argument("--no-backup", action="store_true", help="replace the database without a backup of it")
    made.add_argument(
        "--keep-backups",
        metavar="N",
        type=positive,
        help="after a backup remove all but the N newest (default: keep all)",
    )


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError("%r is not a number from 1 up" % text)
    return int(text)


def add_orphans(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--orphans",
        choices=("stop", "skip"),
        default="stop",
        help="rows that point at rows which are not the user's: stop and name them, or leave them out and say so (default: stop)",
    )


def add_validation(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--offline", action="store_true", help="validate against the bundle alone, without PostgreSQL"
    )
    made.add_argument(
        "--against",
        choices=("bundle", "source"),
        help="what every cell of SQLite is compared with (default: the bundle, where there is one)",
    )
    add_strict(made)
    made.add_argument(
        "--max-differences",
        metavar="N",
        type=positive,
        help="list the first N of each kind and table; all are counted (default: 20)",
    )
    made.add_argument(
        "--show-values",
        action="store_true",
        help="quote the values that differ: personal data in log and reports",
    )
    made.add_argument("--json", action="store_true", help="print the validation report to stdout as JSON")


def add_strict(made: argparse.ArgumentParser) -> None:
    made.add_argument("--strict", action="store_true", help="count warnings as errors")


def check_validation(made: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if arguments.offline and arguments.against == "source":
        made.error("--against source asks PostgreSQL, --offline does not: leave one of them away")


def validation_options(arguments: argparse.Namespace) -> List[str]:
    """The options given that only a validation has an effect of, --offline aside."""
    names = ("against", "strict", "max_differences", "show_values", "json")
    return ["--" + name.replace("_", "-") for name in names if getattr(arguments, name)]


# Settings


@dataclass(frozen=True)
class _Lookup:
    """Option, then environment, then ``.env``, then config.py."""

    arguments: argparse.Namespace
    environment: Mapping[str, str]
    config: Any

    def text(self, option: str, variable: str, default: str) -> str:
        return self.given(option, variable) or str(getattr(self.config, default) or "")

    def given(self, option: str, variable: str) -> Optional[str]:
        """The option or the variable; an option that is empty is a slip, not a wish for the default."""
        value = getattr(self.arguments, option, None)
        if value == "":
            raise usage("--%s is empty" % option.replace("_", "-"))
        return value or self.environment.get(variable) or None

    def utf8(self, option: str, variable: str) -> Optional[str]:
        """As ``given``, for what PostgreSQL is told; a path may be of any bytes."""
        value = self.given(option, variable)
        try:
            (value or "").encode("utf-8")
        except UnicodeEncodeError:
            raise usage("--%s or %s is not UTF-8" % (option.replace("_", "-"), variable)) from None
        return value

    def path(self, option: str, variable: str, default: str) -> Path:
        """What has no option here is not used: its variable may hold anything."""
        if option not in self.arguments:
            return Path(str(getattr(self.config, default)))
        return expanded(self.text(option, variable, default))


def expanded(path: str) -> Path:
    """A path as a person writes it, ``~`` and all. Raises MigrationError (exit 2)."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise usage("%s: %s" % (path, error)) from error


def usage(message: str, hint: Optional[str] = None) -> MigrationError:
    return UsageError(message, hint)


def environment(base_dir: Path) -> Dict[str, str]:
    """The environment over the ``.env`` file beside config.py; values are taken as they stand."""
    given = {name: value for name, value in os.environ.items() if not _is_of_kubernetes(name, value)}
    file = base_dir / ".env"
    if not file.is_file():
        return given
    try:
        from dotenv.parser import parse_stream
    except ImportError:
        raise usage(
            "%s is there but python-dotenv is not" % file, "pip install -r requirements.txt"
        ) from None
    try:
        lines = list(parse_stream(io.StringIO(file.read_bytes().decode("utf-8-sig"))))
    except (OSError, UnicodeDecodeError) as error:
        raise usage("cannot read %s: %s" % (file, getattr(error, "strerror", None) or "not UTF-8")) from error
    wrong = [line.original.line for line in lines if line.error]
    if wrong:
        raise usage(
            "%s, line %d is no NAME=value" % (file, wrong[0]),
            "correct the line; a quote that is opened needs its end",
        )
    found = {line.key: line.value for line in lines if line.key and line.value is not None}
    return {**found, **given}


def _is_of_kubernetes(name: str, value: str) -> bool:
    """Whether it is what Kubernetes says to every container of a service called postgres, as tcp://10.96.0.10:5432.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    return name == "POSTGRES_PORT" and re.match("(tcp|udp|sctp)://", value) is not None


def settings(arguments: argparse.Namespace, config: Any, asks_postgres: bool = True) -> Settings:
    """Resolve everything that one run needs to know, in the body of ``run``. Raises MigrationError (exit 2).

    ``asks_postgres``: False where the run needs no PostgreSQL: what is said of it is not looked at then.
    """
    found = _Lookup(arguments, arguments.environment, config)
    postgres, fallback = _postgres(found) if asks_postgres else ({}, None)
    require_tuple("EXCLUDED_TABLES", config.EXCLUDED_TABLES)
    require_tuple("UNRELATED_TABLES", config.UNRELATED_TABLES)
    require_distinct(table.name for table in (config.USER, config.PREFERENCES, *config.TABLES))
    return Settings(
        postgres=postgres,
        fallback_password=fallback,
        postgres_schema=config.POSTGRES_SCHEMA,
        user_email=found.utf8("user_email", "MIGRATION_USER_EMAIL"),
        default_email=config.DEFAULT_USER_EMAIL or None,
        sqlite_path=found.path("sqlite_path", "SQLITE_PATH", "SQLITE_PATH"),
        schema_path=found.path("schema_path", "SCHEMA_PATH", "SCHEMA_PATH"),
        data_dir=found.path("data_dir", "MIGRATION_DATA_DIR", "DATA_DIR"),
        backup_dir=found.path("backup_dir", "BACKUP_DIR", "BACKUP_DIR"),
        user=config.USER,
        preferences=config.PREFERENCES,
        tables=tuple(config.TABLES),
        excluded_tables=tuple(config.EXCLUDED_TABLES),
        unrelated_tables=tuple(config.UNRELATED_TABLES),
        backup=not getattr(arguments, "no_backup", False),
        keep_backups=getattr(arguments, "keep_backups", None),
        skip_orphans=getattr(arguments, "orphans", "stop") == "skip",
        offline=getattr(arguments, "offline", False),
        against=getattr(arguments, "against", None),
        strict=getattr(arguments, "strict", False),
        max_differences=getattr(arguments, "max_differences", None) or Settings.max_differences,
        show_values=getattr(arguments, "show_values", False),
        json=getattr(arguments, "json", False),
    )


# our name, libpq's parameter, libpq's variable
_POSTGRES = (
    ("POSTGRES_HOST", "host", "PGHOST"),
    ("POSTGRES_PORT", "port", "PGPORT"),
    ("POSTGRES_DB", "dbname", "PGDATABASE"),
    ("POSTGRES_USER", "user", "PGUSER"),
    ("POSTGRES_PASSWORD", "password", "PGPASSWORD"),
)


def _postgres(found: _Lookup) -> Tuple[Dict[str, str], Optional[str]]:
    """libpq's parameters, and config.py's password for where libpq finds none of its own."""
    url = found.utf8("postgres_url", "POSTGRES_URL")
    named = {
        name: found.environment[variable]
        for variable, name, _ in _POSTGRES
        if found.environment.get(variable)
    }
    if url:
        return _over(named, url, found), None
    for variable, name, _ in _POSTGRES:
        _refuse_url(variable, named.get(name))
    if _is_of_kubernetes("POSTGRES_PORT", os.environ.get("POSTGRES_PORT", "")):
        log.warning("POSTGRES_PORT is what Kubernetes makes it for a service called postgres: it is not used")
    if "PGSERVICE" in os.environ:
        return named, None
    for variable, name, libpq in _POSTGRES:
        if name not in named and name != "password":
            if libpq in os.environ:
                named[name] = os.environ[libpq]
            else:
                named[name] = str(getattr(found.config, variable))
    fallback = (
        None if "password" in named or "PGPASSWORD" in os.environ else str(found.config.POSTGRES_PASSWORD)
    )
    return named, fallback


def _over(named: Mapping[str, str], url: str, found: _Lookup) -> Dict[str, str]:
    """The URL's parameters. Parts that are set in the environment win over a URL in ``.env``, one by one."""
    from migration.cli import argv
    from migration.postgres import source

    argv.hide(url)
    given = source.parameters(url)
    from_file = not getattr(found.arguments, "postgres_url", None) and not os.environ.get("POSTGRES_URL")
    for variable, name, _ in _POSTGRES if from_file else ():
        part = os.environ.get(variable)
        if part and part != given.get(name) and not _is_of_kubernetes(variable, part):
            _refuse_url(variable, part)
            given[name] = part
            if name == "host":
                given.pop("hostaddr", None)
            log.warning(
                "%s in the environment takes the place of that part of POSTGRES_URL in .env", variable
            )
    if "password" in named and "password" not in given:
        given["password"] = named["password"]
    return given


def _refuse_url(variable: str, value: Optional[str]) -> None:
    if variable != "POSTGRES_PASSWORD" and "://" in (value or ""):
        raise usage("%s holds a URL" % variable, "put it in POSTGRES_URL")


# Running


def begin(required: Sequence[str] = packages.FOR_ALL) -> None:
    """For a script, before it imports what may fail: whatever ends it from here on has an exit code.

    ``required``: the packages that it imports.
    """
    _open_standard_streams()
    sys.excepthook = _end_of_script
    packages.require(tuple(required))


def _end_of_script(kind: Type[BaseException], error: BaseException, trace: object) -> None:
    sys.exit(_failed(error) if isinstance(error, Exception) else _interrupted())


def run(body: Callable[[argparse.Namespace], int], arguments: argparse.Namespace, config: Any) -> int:
    """Run a script's body: logging before, errors as messages and exit codes after."""
    _open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a sign is no reason to stop
    from migration.postgres import waits  # no need of it for --help

    try:
        with waits.listening(_end), contextlib.ExitStack() as stack:
            with contextlib.suppress(ValueError):  # not the main thread: whoever embeds us handles signals
                previous = signal.signal(signal.SIGTERM, _interrupt)
                if previous is not None:
                    stack.callback(signal.signal, signal.SIGTERM, previous)
            try:
                arguments.environment = environment(config.BASE_DIR)
                stack.enter_context(_logging(_Lookup(arguments, arguments.environment, config)))
                return int(body(arguments))
            except Exception as error:  # noqa: BLE001  the edge: whatever it is has an exit code
                return _failed(error)
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:  # noqa: BLE001  what surrounds the body, such as a thread that cannot be started
        return _failed(error)


def _open_standard_streams() -> None:
    """Those that were closed by who started us. Nothing is printed to a closed standard output: that is an error."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _failed(error: Exception) -> int:
    """Say why a run ends, and with which exit code. An error that nobody expected is a bug and shows its traceback."""
    # Python makes a RuntimeError of an interrupt that falls into a thread's start, or into a class's before 3.12.
    if isinstance(error, RuntimeError) and any(
        isinstance(e, KeyboardInterrupt) for e in (error.__cause__, error.__context__)
    ):
        return _interrupted()
    expected = lacking(error) or packages.lacking(error) or error
    if not isinstance(expected, MigrationError):
        expected = _fault_of_config(error) or error
    if not isinstance(expected, MigrationError):
        say("".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip(), LINES)
        place = traceback.extract_tb(error.__traceback__)[-1]
        expected = ResourceError(
            "this is a bug in the program: %s in %s, line %d"
            % (type(error).__name__, Path(place.filename).name, place.lineno or 0),
            "report it with what is printed above; look through that for personal data first",
        )
    _print_error(expected)
    return int(expected.exit_code)


def _fault_of_config(error: Exception) -> Optional[MigrationError]:
    """The error to report where config.py, which is the operator's, cannot be loaded or lacks a name; None for another."""
    lacks = _NO_ATTRIBUTE.fullmatch(str(error)) if isinstance(error, AttributeError) else None
    if lacks:
        return usage(
            "config.py has no %s" % lacks[1], "take it over from the config.py that this version came with"
        )
    if isinstance(error, SyntaxError):
        file, line = error.filename or "", error.lineno
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
        file, line = (frames[-1].filename, frames[-1].lineno) if frames else ("", 0)
    if Path(file).name != "config.py":
        return None
    return usage("config.py, line %d: %s: %s" % (line or 0, type(error).__name__, error), "correct it")


_NO_ATTRIBUTE = re.compile(r"module 'config' has no attribute '(\w+)'")

INTERRUPTED = "error: interrupted; nothing is half done, run again when ready"


def _interrupted() -> int:
    say(INTERRUPTED)
    return int(ExitCode.INTERRUPTED)


def _end() -> None:
    """End the process, from a thread: the main one does not hear of interrupts. Files are as if it were killed: whole."""
    with contextlib.suppress(OSError):
        os.write(2, (INTERRUPTED + "\n").encode("ascii"))
    os._exit(int(ExitCode.INTERRUPTED))


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _print_error(error: MigrationError) -> None:
    log.debug("exit code %d", error.exit_code)
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(log.makeRecord(log.name, logging.ERROR, "", 0, "%s", (error.logged,), None))
    say("error: " + error.message)
    if error.hint:
        say("try: " + error.hint)
    if error.private_hint:
        say(error.private_hint)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), LISTS)


class _Terminal(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what sys.stderr is at the time, so that a progress bar can hold its line."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        pass

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], (OSError, ValueError)):
            silence("stderr")
        else:
            super().handleError(record)


class _LogFile(logging.FileHandler):
    """A log file that cannot be written any more is said once and stops no migration."""

    broken = False

    def _open(self) -> Any:
        """A new file is its owner's alone; a named pipe that nobody reads is an error, not waited for."""
        patient = getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | patient, 0o600)
        if patient:
            os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "a", encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.broken:
            self.broken = True
            say("warning: the log file %s cannot be written: %s" % (self.baseFilename, error.strerror))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written is tried once more
            super().close()


@contextlib.contextmanager
def _logging(found: _Lookup) -> Iterator[None]:
    level = (
        "DEBUG"
        if found.arguments.verbose
        else "WARNING"
        if found.arguments.quiet
        else found.text("", "LOG_LEVEL", "LOG_LEVEL").upper()
    )
    if level not in LEVELS:
        raise usage("LOG_LEVEL is %r" % level, "one of " + ", ".join(LEVELS))
    terminal = _Terminal()
    terminal.setLevel(level)
    terminal.setFormatter(_Printable("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    handlers: List[logging.Handler] = [terminal]
    file = found.text("log_file", "LOG_FILE", "LOG_FILE")
    if file:
        handlers.append(_log_file(expanded(file), min(logging.INFO, logging.getLevelName(level))))
    was = log.level, log.propagate, log.handlers
    log.setLevel(min(handler.level for handler in handlers))
    log.propagate = False
    log.handlers = handlers
    try:
        yield
    finally:
        log.setLevel(was[0])
        log.propagate, log.handlers = was[1:]
        for handler in handlers:
            handler.close()


def _log_file(path: Path, level: int) -> logging.Handler:
    try:
        handler = _LogFile(str(path))
    except OSError as error:
        raise usage(
            "cannot write the log file %s: %s" % (path, error.strerror),
            "set --log-file to a file in a folder that exists",
        ) from error
    handler.setLevel(level)
    handler.setFormatter(_Printable("%(asctime)s %(levelname)-7s %(message)s"))
    return handler


# Showing


def no_advance(rows: int) -> None:
    """For who shows no progress."""


@contextlib.contextmanager
def progress(
    what: str, total: Optional[int] = None, unit: str = "rows", remaining: bool = False
) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing elsewhere; yields a function that takes the units done since.

    ``remaining``: with an estimate of the time that is left.
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


def quiet() -> bool:
    """Whether the person wants warnings and errors only."""
    return any(isinstance(handler, _Terminal) and handler.level > logging.INFO for handler in log.handlers)


def summary(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    even_if_quiet: bool = False,
    is_result: bool = False,
) -> None:
    """Print a table to stdout, unless --quiet: names left, whole numbers as they are with a total below.

    ``is_result``: the run is for this table: where it cannot be printed, that is an error (exit 2).

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
        shown.add_row(*(Text(printable(_cell(name, value))) for name, value in zip(columns, row)))
    with _read_along(ExitCode.USAGE if is_result else None):
        print(printable(title))
        Console(width=None if sys.stdout.isatty() else 100, highlight=False).print(shown)


def output(text: str, verdict: ExitCode = ExitCode.DONE) -> None:
    """Print a result that another program reads. Where it cannot be, that is an error: with the verdict's exit code, else 2."""
    with _read_along(verdict or ExitCode.USAGE):
        sys.stdout.write(text)


@contextlib.contextmanager
def _read_along(needed: Optional[ExitCode]) -> Iterator[None]:
    """Print to stdout. Whoever read along may have gone, or their disk be full: a migration goes on."""
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


def size(number: float) -> str:
    """Bytes for people: 999 B, 1.2 kB, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return "%d B" % number if unit == "B" else "%.1f %s" % (number, unit)
        number /= 1000
    return "%.1f TB" % number
