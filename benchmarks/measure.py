"""Wall time, CPU time and peak memory of one command.

    python -m benchmarks.measure COMMAND…     prints them as JSON; the command's own output goes to standard error

A process starts with the peak memory of the one that it was forked from, so the commands are started by this
file alone, in a small interpreter of its own, and not by the benchmarks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import List, Mapping, NamedTuple, Sequence

LAST_WORDS = 300  # characters


class Usage(NamedTuple):
    """What a command took. CPU time is that of the command and the processes that it started and waited for, not
    of the PostgreSQL server; the memory is the resident set of the largest of these processes at its largest.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float


class Failed(Exception):
    """The command did not end well; the message is the end of what it said."""


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> Usage:
    """Run ``command`` in ``folder``, its output in ``log``, and measure it. Raises `Failed`."""
    os.sync()  # what was written before is not to be paid for now
    with open(str(log), "wb") as output:
        # A session of its own, so that all of it can be ended, whatever ends us.
        runner = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=str(folder),
            env=dict(environment),
            start_new_session=True,
        )
        try:
            result, _ = runner.communicate()
        except BaseException:
            os.killpg(runner.pid, signal.SIGKILL)
            runner.wait()
            raise
    if runner.returncode != 0:
        said = log.read_text(encoding="utf-8", errors="replace").split()
        raise Failed(" ".join(said)[-LAST_WORDS:] or f"ended with {runner.returncode}")
    return Usage(*json.loads(result))


def main(command: List[str]) -> int:
    started = time.perf_counter()
    pid = os.posix_spawnp(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, sys.stderr.fileno(), 1)]
    )
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e6]))
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
