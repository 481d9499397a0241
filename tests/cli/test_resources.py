"""A machine that lacks memory, threads, processes or open files, and a program with a bug: exit code 70, in words."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from typing import Any, Callable

import pytest

from migration.cli import options, running
from migration.errors import BundleError, ExitCode
from support.places import ANNA, SUITE, Place, copy_suite
from support.servers import Database
from support.sqlite_files import make_old_database


def _run(body: Callable[[Any], int]) -> int:
    return running.run(body, options.parser("").parse_args([]))


def test_a_bug_has_an_exit_code_of_its_own_and_shows_its_traceback(capsys: pytest.CaptureFixture) -> None:
    def body(arguments: object) -> int:
        raise RuntimeError("a bug")

    assert _run(body) == ExitCode.INTERNAL
    printed = capsys.readouterr().err
    assert "Traceback (most recent call last)" in printed
    assert "RuntimeError: a bug" in printed
    assert "error: this is a bug in the program: RuntimeError in test_resources.py, line " in printed


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "no memory"),
        (ImportError("libssl.so: failed to map segment from shared object"), "no memory"),
        (RuntimeError("can't start new thread"), "no further thread"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "no further open file"),
        (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), "no further open file"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "no memory"),
        (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "no further process"),
    ],
)
def test_what_the_machine_lacks_is_said_without_a_traceback(
    error: Exception, message: str, capsys: pytest.CaptureFixture
) -> None:
    def body(arguments: object) -> int:
        raise error

    assert _run(body) == ExitCode.INTERNAL
    printed = capsys.readouterr().err
    assert printed.startswith("error: the machine has too few resources: %s\ntry: " % message)
    assert "Traceback" not in printed


def test_a_phase_that_took_it_for_a_file_s_fault_does_not_hide_it(capsys: pytest.CaptureFixture) -> None:
    def body(arguments: object) -> int:
        try:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        except OSError:
            raise BundleError("cannot read x") from None

    assert _run(body) == ExitCode.INTERNAL
    assert "no further open file" in capsys.readouterr().err


def _with(limit: int, number: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(limit, (number, number))


def test_an_import_without_file_descriptors_says_so(bundle: object, place: Place) -> None:
    code = (
        "import sys, resource, import_to_sqlite; resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5));"
        " sys.exit(import_to_sqlite.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--data-dir", str(place.data), "--sqlite-path", str(place.app)]
        + ["--backup-dir", str(place.backups)],
        cwd=str(SUITE),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == ExitCode.INTERNAL, done.stderr
    assert b"too few resources: no further open file" in done.stderr
    assert b"Traceback" not in done.stderr
    assert not place.app.exists()


@pytest.mark.parametrize("script", ["export_from_postgres", "import_to_sqlite", "validate_migration"])
def test_a_run_that_cannot_start_a_thread_says_so(
    script: str, bundle: object, sample_database: Database, place: Place
) -> None:
    before = {path.name: path.read_bytes() for path in place.data.iterdir()}
    code = (
        "import sys, threading, {0}; threading.stack_size(1 << 46);"  # which no address space has room for
        " sys.exit({0}.main(sys.argv[1:]))".format(script)
    )
    options = ["--data-dir", str(place.data)]
    options += ["--sqlite-path", str(place.app)] if script != "export_from_postgres" else []
    options += ["--postgres-url", sample_database.url] if script != "import_to_sqlite" else ["--no-backup"]
    options += ["--user-email", ANNA]
    if script == "validate_migration":
        make_old_database(place.app)
    done = subprocess.run(
        [sys.executable, "-c", code, *options], cwd=str(SUITE), capture_output=True, timeout=60
    )
    assert done.returncode == ExitCode.INTERNAL, done.stderr
    assert b"too few resources: no further thread" in done.stderr
    assert b"Traceback" not in done.stderr
    for name, content in before.items():
        assert name.startswith("validation_report") or (place.data / name).read_bytes() == content


def test_what_fails_while_a_script_is_imported_has_an_exit_code(place: Place) -> None:
    suite = copy_suite(place.folder / "suite")
    config_file = suite / "config.py"
    original = config_file.read_text(encoding="utf-8")
    for wrong, code, message in (
        ("raise MemoryError", ExitCode.INTERNAL, "error: the machine has too few resources: no memory"),
        ('raise RuntimeError("can\'t start new thread")', ExitCode.INTERNAL, "no further thread"),
        ("TABLES = (", ExitCode.USAGE, "error: config.py, line "),
        ("NAME = unknown", ExitCode.USAGE, "NameError: name 'unknown' is not defined"),
        ("Table('x', owned_by('y'), dropped='z')", ExitCode.USAGE, "error: config.py: dropped of x is text"),
        ("del EXCLUDED_TABLES", ExitCode.USAGE, "error: config.py has no EXCLUDED_TABLES"),
        ("from migration.tables import Singleton", ExitCode.USAGE, "write ROOT = root(…)"),
        ("del ROOT", ExitCode.USAGE, "write ROOT = root(…)"),
        ('ROOT = "users"', ExitCode.USAGE, "config.ROOT is no root(…)"),
        ('ROOT = root("users", key=("id", "email"))', ExitCode.USAGE, "config.ROOT is no root(…)"),
        ("TABLES = TABLES[0]", ExitCode.USAGE, "config.TABLES is not a tuple of Table(…)"),
        ('TABLES += ("clients",)', ExitCode.USAGE, "config.TABLES is not a tuple of Table(…)"),
        ('TABLES += (Table("x", the_root),)', ExitCode.USAGE, "config.TABLES, x: its ownership"),
        ('TABLES += (Table("x", shared(), becomes="y"),)', ExitCode.USAGE, "config.TABLES, x: its ownership"),
        (
            "TABLES = TABLES[1:]",
            ExitCode.USAGE,
            "config.TABLES has no table with the_root(), and ROOT is users",
        ),
        (
            "TABLES += (TABLES[0],)",
            ExitCode.USAGE,
            "config.TABLES has the_root() in users, users, and ROOT is users",
        ),
        (
            'ROOT = root("people")',
            ExitCode.USAGE,
            "config.TABLES has the_root() in users, and ROOT is people",
        ),
        (
            'TABLES += (Table("more", owned_by("user_id"), becomes=row_one("more", member="user")),)',
            ExitCode.USAGE,
            'config.TABLES has row_one(…, member="user") twice',
        ),
    ):
        config_file.write_text(original + wrong + "\n", encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(suite / "import_to_sqlite.py"), "--no-backup"],
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        assert message in done.stderr.decode("utf-8"), wrong
        assert b"Traceback" not in done.stderr
