"""A machine that lacks memory, threads, processes or open files, and a program with a bug: exit code 70, in words."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from typing import Any, Callable

import pytest
from conftest import SUITE, Place

import config
from migration import console
from migration.errors import ExitCode, MigrationError


def _run(body: Callable[[Any], int]) -> int:
    return console.run(body, console.parser("").parse_args([]), config)


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
            raise MigrationError("cannot read x", exit_code=ExitCode.BUNDLE) from None

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
