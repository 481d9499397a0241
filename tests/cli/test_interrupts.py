"""An interrupt ends a run wherever it arrives."""

from __future__ import annotations

import subprocess
import sys

from support.places import SUITE

LOST = """
import argparse, os, signal, sys, time
sys.path.insert(0, %r)
from migration.cli import running

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it

class Held:
    def __del__(self):
        os.kill(os.getpid(), signal.%s)
        for _ in range(1000):
            pass

def body(arguments):
    held = Held()
    del held
    time.sleep(20)
    return 0

sys.exit(running.run(body, argparse.Namespace(config=None, log_file=None, log_level=None, quiet=False, verbose=False)))
"""


def test_interrupt_that_python_drops_while_an_object_is_taken_away_still_ends_the_run() -> None:
    for name in ("SIGTERM", "SIGINT"):
        code = LOST % (str(SUITE), name)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15)
        assert (done.returncode, done.stderr) == (
            130,
            "error: interrupted; nothing is half done, run again when ready\n",
        )
