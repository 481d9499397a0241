"""How long discover.py takes for a catalog of many tables.

    python -m benchmarks.discovery [--tables 500] [--rows 20]

Generated tables with references, defaults, checks and indexes: a third names its owner, the others hang on one or two
tables before them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Iterator

import psycopg2

from benchmarks import measure
from demo.postgres import temp_postgres

SUITE = Path(__file__).resolve().parent.parent


def schema(tables: int, rows: int) -> Iterator[str]:
    yield "CREATE TABLE people (id int PRIMARY KEY, email text NOT NULL UNIQUE)"
    yield "INSERT INTO people SELECT g, 'p' || g || '@example.com' FROM generate_series(1, 10) g"
    for number in range(tables - 1):
        parents = [number // 3, number // 5] if number % 3 and number > 5 else []
        columns = [
            "id int PRIMARY KEY",
            "title varchar(80) NOT NULL DEFAULT ''",
            "at timestamptz DEFAULT now()",
        ]
        columns += [
            "state text CHECK (state IN ('a', 'b'))",
            "price numeric(10, 2) CHECK (price >= 0)",
            "data jsonb",
        ]
        columns += ["flag boolean NOT NULL DEFAULT false", "weight double precision", "note text", "day date"]
        columns += ["parent%d int NOT NULL REFERENCES t%d" % pair for pair in enumerate(parents)]
        columns += [] if parents else ["person_id int NOT NULL REFERENCES people"]
        yield "CREATE TABLE t%d (%s)" % (number, ", ".join(columns))
        yield "CREATE INDEX ON t%d (title) WHERE flag; CREATE INDEX ON t%d (lower(note), at DESC)" % (
            number,
            number,
        )
        yield (
            "INSERT INTO t%d SELECT g, 'x', now(), 'a', 1, '{}', true, 1, 'n', '2026-01-01', %s FROM generate_series(1, %d) g"
            % (
                number,
                "g, g" if parents else "1 + g % 10",
                rows,
            )
        )
    yield "ANALYZE"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", type=int, default=500)
    parser.add_argument("--rows", type=int, default=20, help="of each table (default: 20)")
    arguments = parser.parse_args()
    with temp_postgres() as url, tempfile.TemporaryDirectory() as folder:
        connection = psycopg2.connect(url)
        connection.autocommit = True
        for statement in schema(arguments.tables, arguments.rows):
            connection.cursor().execute(statement)
        connection.close()
        for number in range(3):
            command = [sys.executable, str(SUITE / "discover.py"), "--postgres-url", url, "--root", "people"]
            command += ["--output", str(Path(folder) / str(number)), "--quiet"]
            usage = measure.run(command, Path(folder), {}, Path(folder) / "log")
            print(
                "%d tables of %d rows: %.2f s, %.2f s of them processor time of discover.py, %.0f MB"
                % (arguments.tables, arguments.rows, usage.wall_s, usage.cpu_s, usage.peak_mb)
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
