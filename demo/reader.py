"""Show how another application is discovered and migrated: ``python -m demo.reader``.

Starts a throwaway PostgreSQL server with the feed reader of ``reader.sql``, and runs discover.py and migrate.py on it.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg2

from demo.__main__ import ROOT, forget_configuration
from demo.postgres import temp_postgres

OUTPUT = Path("demo") / "output" / "reader"  # relative to ROOT, in which the scripts run
PEOPLE = ("vera", "oskar", "iris")
LOOK = "SELECT state, count(*), sum(minutes) FROM posts GROUP BY state"


def main() -> int:
    """Run the demo; returns the exit code of the script that failed, or 0."""
    forget_configuration()
    shutil.rmtree(str(ROOT / OUTPUT), ignore_errors=True)  # discover.py overwrites no config.py
    with temp_postgres() as url:
        with contextlib.closing(
            psycopg2.connect(url)
        ) as connection, connection, connection.cursor() as cursor:
            cursor.execute((ROOT / "demo" / "reader.sql").read_text(encoding="utf-8"))
        print("PostgreSQL runs with a feed reader of %s." % ", ".join(PEOPLE), flush=True)
        config = str(OUTPUT / "config.py")
        for script, *options in (
            ("discover.py", "--root", "readers", "--user", PEOPLE[0], "--output", str(OUTPUT)),
            ("migrate.py", "--config", config, "--user", PEOPLE[0]),
        ):
            print("\n$ python %s %s" % (script, " ".join(options)), flush=True)
            command = [sys.executable, script, *options, "--postgres-url", url]
            code = subprocess.run(command, cwd=str(ROOT), check=False).returncode
            if code:
                return code
    print("\nWhat was found and why: %s. The result:" % config)
    print('  sqlite3 %s/app.db "%s"' % (OUTPUT.as_posix(), LOOK))
    return 0


if __name__ == "__main__":
    sys.exit(main())
