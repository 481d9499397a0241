"""Runs scripts in forks of itself: the time of a run is then its work, without the start of Python.

Reads a request a line from standard input: the arguments of ``run`` and the file for its ``output``, as JSON. Answers
with the process id and, once that process has ended, its exit code (negative: the signal that killed it).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

# Each file system call that changes what is on the disk, and those around it.
STEPS = ("replace", "rename", "link", "unlink", "rmdir", "mkdir", "chmod", "fchmod", "fsync", "open")


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        output = os.open(request.pop("output"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        process = os.fork()
        if process == 0:
            for standard in (1, 2):
                os.dup2(output, standard)
            sys.exit(run(**request))
        os.close(output)
        print(process, flush=True)
        status = os.waitpid(process, 0)[1]
        print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)


def run(script: str, options: list, folder: str, step: int | None, number: int) -> int:
    """Run a script's ``main``; at file system call ``step`` (from 1; 0: only count them) it gets signal ``number``."""
    os.chdir(folder)
    main = importlib.import_module(script).main
    if step is None:
        return main(options)
    count = 0

    def counted(function):
        def call(*arguments, **keywords):
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), number)
            return function(*arguments, **keywords)

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    try:
        return main(options)
    finally:
        print("steps: %d" % count)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    for module in ("migrate", "rich.console", "rich.table"):  # what the runs would import, each for itself
        importlib.import_module(module)
    serve()
