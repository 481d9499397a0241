"""Runs the scripts in forks of a process that has imported them: the time of a run is its work, not Python's start.

The server reads a request a line from standard input, the arguments of ``_run`` as JSON, and answers with the process
id and, once that process has ended, with its exit code (negative: the signal that killed it).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

SUITE = Path(__file__).resolve().parent.parent.parent
LAZY = (
    "ctypes",
    "jinja2",
    "resource",
    "rich.console",
    "rich.table",
    "sysconfig",
)  # imported when it is needed

# The file system calls that change what is on the disk, and those around them.
CALLS = ("replace", "rename", "link", "unlink", "rmdir", "mkdir", "chmod", "fchmod", "fsync", "open")


@functools.lru_cache(maxsize=None)
def server(number: int) -> subprocess.Popen:
    """A server, for one ``Process`` at a time. It ends with this process."""
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )


class Process:
    """A run of a script's ``main``; ``output`` and ``errors`` are files, which may be the same.

    At file system call ``at_call`` (from 1) the run gets the signal ``number``. At 0 it prints as its last line the
    first and the last call of each place in the code, as the loops between them only repeat it. ``values``: of names in
    modules, for this run.
    """

    def __init__(
        self,
        server: subprocess.Popen,
        script: str,
        options: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        output: Path,
        errors: Path,
        at_call: int | None = None,
        number: int = signal.SIGKILL,
        values: Mapping[str, object] = {},
    ) -> None:
        assert server.stdin is not None and server.stdout is not None
        self._answers = server.stdout
        request = {
            "script": script,
            "options": options,
            "folder": str(folder),
            "environment": dict(environment),
            "files": [str(output), str(errors)],
            "at_call": at_call,
            "number": number,
            "values": dict(values),
        }
        output.write_bytes(b"")
        errors.write_bytes(b"")
        server.stdin.write(json.dumps(request).encode("utf-8") + b"\n")
        self.id = int(self._answers.readline())
        self._code: int | None = None

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code, None where it has not ended by then."""
        if self._code is None and select.select([self._answers], [], [], seconds)[0]:
            self._code = int(self._answers.readline())
        return self._code

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(self.id, number)


def _serve() -> None:
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            try:
                code = _run(**json.loads(line))
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else sys.exit(end.code)
            _end(code)
        print(process, flush=True)
        status = os.waitpid(process, 0)[1]
        print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)


def _run(
    script: str,
    options: list,
    folder: str,
    environment: dict,
    files: list,
    at_call: int | None,
    number: int,
    values: dict,
) -> int:
    for standard, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), standard)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [script, *options]
    for name, value in values.items():
        module, _, name = name.rpartition(".")
        setattr(sys.modules[module], name, value)
    main: Callable[[], int] = importlib.import_module(script[: -len(".py")].replace("/", ".")).main
    if at_call is None:
        return main()
    calls = 0
    places: dict[tuple, list[int]] = {}

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if at_call == 0:
                stack = traceback.walk_stack(None)
                place = tuple((frame.f_code, line) for frame, line in stack)
                places.setdefault(place, []).append(calls)
            if calls == at_call:
                os.kill(os.getpid(), number)
            return function(*arguments, **keywords)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    try:
        return main()
    finally:
        print("calls: %s" % json.dumps(sorted({n for at in places.values() for n in (at[0], at[-1])})))


def _end(code: int) -> None:
    """End without taking apart what the server has made, which takes longer than most runs."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _begin() -> None:
    """Do what each run would do first: import everything, compile the templates."""
    sys.path[1:1] = [str(SUITE), str(SUITE / "tests")]
    for script in SUITE.glob("*.py"):
        importlib.import_module(script.stem)
    rooms = pkgutil.walk_packages([str(SUITE / "migration")], "migration.")
    for module in (*LAZY, *(found.name for found in rooms)):
        importlib.import_module(module)
    templates = importlib.import_module("migration.templates")
    for path in SUITE.glob("migration/**/*.j2"):
        templates.template(path)
    gc.freeze()


if __name__ == "__main__":
    _begin()
    _serve()
