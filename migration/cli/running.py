"""How a script runs and ends: errors as messages, signals, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Callable, Sequence, Type

from migration.cli import configuration, packages
from migration.cli.log import logging_to, print_error
from migration.errors import ExitCode, MigrationError, ResourceError, lacking
from migration.printing import LINES, say


def begin(required: Sequence[str] = packages.FOR_ALL) -> None:
    """Call this before imports that may fail: from here on, every failure has an exit code.

    ``required``: the packages that the script imports.
    """
    _open_standard_streams()
    sys.excepthook = _end_of_script
    packages.require(tuple(required))


def _end_of_script(kind: Type[BaseException], error: BaseException, trace: object) -> None:
    sys.exit(_failed(error) if isinstance(error, Exception) else _interrupted())


def run(body: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a script's body with logging and signal handling. Returns its exit code; errors become messages."""
    _open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # characters that the terminal lacks must not stop a run
    from migration.postgres import waits  # slow, and --help does not need it

    try:
        with waits.listening(_end), contextlib.ExitStack() as stack:
            with contextlib.suppress(ValueError):  # not the main thread: whoever embeds us handles signals
                previous = signal.signal(signal.SIGTERM, _interrupt)
                if previous is not None:
                    stack.callback(signal.signal, signal.SIGTERM, previous)
            stack.callback(setattr, sys, "unraisablehook", sys.unraisablehook)
            sys.unraisablehook = _repeat_interrupt
            try:
                configuration.find(arguments)
                level, file = configuration.log_settings(arguments)
                stack.enter_context(logging_to(level, file))
                return int(body(arguments))
            except Exception as error:  # noqa: BLE001  the edge: every error gets an exit code
                return _failed(error)
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:  # noqa: BLE001  what surrounds the body, such as a thread that cannot be started
        return _failed(error)


def _open_standard_streams() -> None:
    """Replace standard streams that our caller has closed. Standard output is opened unwritable: printing to it is an error."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _failed(error: Exception) -> int:
    """Print why the run ends and return the exit code. Unexpected errors are bugs and show their traceback."""
    # Python turns an interrupt during a thread's start, or before 3.12 during a class's creation, into a RuntimeError.
    if isinstance(error, RuntimeError) and any(
        isinstance(e, KeyboardInterrupt) for e in (error.__cause__, error.__context__)
    ):
        return _interrupted()
    expected = lacking(error) or packages.lacking(error) or error
    if not isinstance(expected, MigrationError):
        say("".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip(), LINES)
        place = traceback.extract_tb(error.__traceback__)[-1]
        expected = ResourceError(
            "this is a bug in the program: %s in %s, line %d"
            % (type(error).__name__, Path(place.filename).name, place.lineno or 0),
            "report it with what is printed above; look through that for personal data first",
        )
    print_error(expected)
    return int(expected.exit_code)


INTERRUPTED = "error: interrupted; nothing is half done, run again when ready"


def _interrupted() -> int:
    if sys.excepthook is _end_of_script:  # a script, which ends now
        sys.unraisablehook = lambda remains: None  # of objects that were being made: their clean-up may fail
    say(INTERRUPTED)
    return int(ExitCode.INTERRUPTED)


def _end() -> None:
    """End the process from another thread when the main one does not react to interrupts. As after a kill, files are whole."""
    with contextlib.suppress(OSError):
        os.write(2, (INTERRUPTED + "\n").encode("ascii"))
    os._exit(int(ExitCode.INTERRUPTED))


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _repeat_interrupt(lost: "sys.UnraisableHookArgs") -> None:
    """Python drops what is raised while an object is taken away, an interrupt too: send it once more, when that is over."""
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    number = signal.SIGTERM if signal.getsignal(signal.SIGTERM) is _interrupt else signal.SIGINT
    threading.Timer(0.01, os.kill, (os.getpid(), number)).start()
