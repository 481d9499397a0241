"""Measure the suite beside other tools: ``python -m benchmarks``, or ``make bench``."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence

import psycopg2

from benchmarks import data, measure, results
from benchmarks.peers import PEERS, ROOT, SMALL, SQLITE_FILE, Peer, Place
from benchmarks.results import Result, Scale
from demo import sample
from demo.__main__ import CONFIGURATION, CONFIGURATION_PREFIXES
from demo.postgres import temp_postgres

SCALES = (0.1, 1.0)
REPEAT = 3
SHORT_S = 30  # a peer is repeated until it has taken so long, where nobody says how often
KEPT = ("export", "import")  # others read what these leave

# Nothing shall run beside what is measured.
SETTINGS = ("autovacuum=off", "max_wal_size=8GB", "checkpoint_timeout=1d")


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    if options.repeat is not None and options.repeat < 1:
        parser.error("--repeat is at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that folders are removed
    try:
        with tempfile.TemporaryDirectory(prefix="migration-bench-") as folder:
            scales = list(_measured(options, Path(folder)))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    output = options.output
    if output is None and options.only is None:  # a part does not replace the whole
        output = results.FOLDER
    if output is not None:
        results.write(scales, output)
        print(f"results written to {os.path.relpath(str(output))}")
    failed = [result for scale in scales for result in scale.results if result.failed]
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    names = [peer.name for peer in (*SMALL, *PEERS)]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the suite beside other tools, on generated data."
    )
    parser.add_argument(
        "--scales",
        nargs="+",
        type=_scale,
        default=SCALES,
        metavar="N",
        help="sizes of the data; 1 is about 720,000 rows and 0.5 GB (default: 0.1 1)",
    )
    parser.add_argument(
        "--repeat",
        type=int,
        metavar="N",
        help=f"how often each is run; the best counts (default: {REPEAT}, less where {SHORT_S} s are over)",
    )
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="NAME", help="what to measure: " + ", ".join(names)
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where the results go (default: benchmarks/results; with --only they are only shown)",
    )
    return parser


def _scale(word: str) -> float:
    scale = float(word)
    if scale < data.LOWEST_SCALE:
        raise argparse.ArgumentTypeError(f"the lowest scale is {data.LOWEST_SCALE}")
    return scale


def _measured(options: argparse.Namespace, folder: Path) -> Iterator[Scale]:
    """Measure group after group, each with a server and a folder of its own."""
    wanted = [peer for peer in SMALL if _is_wanted(peer, options)]
    if wanted:
        with _server() as url, _folder(folder / "small") as own:
            place = Place(url, url, own)
            with contextlib.closing(psycopg2.connect(url)) as connection:
                sample.create_schema(connection)
                sample.fill(connection)
            yield Scale(
                None, _version(url), {}, [_result(peer, place, options.repeat, {}) for peer in wanted]
            )
    wanted = [peer for peer in PEERS if _is_wanted(peer, options)]
    for scale in sorted(set(options.scales)) if wanted else []:
        print(f"scale {scale:g}", flush=True)
        with _server() as url, _folder(folder / f"{scale:g}") as own:
            place = Place(url, _fill(url, scale), own)
            rows = _rows(place.user_url)
            yield Scale(
                scale, _version(url), rows, [_result(peer, place, options.repeat, rows) for peer in wanted]
            )


def _is_wanted(peer: Peer, options: argparse.Namespace) -> bool:
    return options.only is None or peer.name in options.only


@contextlib.contextmanager
def _server() -> Iterator[str]:
    with temp_postgres(*SETTINGS) as url:
        yield url


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[Path]:
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(str(path))


def _fill(url: str, scale: float) -> str:
    """Fill the database at ``url``, and return the URL of a copy from which the other users are gone."""
    data.fill(url, scale)
    copy = url.replace("/postgres?", "/one_user?")
    for database, statements in (
        (url.replace("/postgres?", "/template1?"), ["CREATE DATABASE one_user TEMPLATE postgres"]),
        (copy, [f"DELETE FROM users WHERE email <> '{data.USER_EMAIL}'", "VACUUM FULL", "VACUUM ANALYZE"]),
    ):
        with contextlib.closing(psycopg2.connect(database)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in (*statements, "CHECKPOINT"):
                    cursor.execute(statement)
    return copy


def _version(url: str) -> str:
    with contextlib.closing(psycopg2.connect(url)) as connection:
        return "PostgreSQL " + str(connection.get_parameter_status("server_version"))


def _rows(user_url: str) -> Dict[str, int]:
    with contextlib.closing(psycopg2.connect(user_url)) as connection, connection.cursor() as cursor:
        rows = {}
        for table in data.ROWS:
            cursor.execute(f"SELECT count(*) FROM {table}")
            rows[table] = cursor.fetchall()[0][0]
    return rows


def _result(peer: Peer, place: Place, repeat: Optional[int], rows: Dict[str, int]) -> Result:
    version = peer.version()
    if version is None:
        result = Result(peer, None, [], "not installed")
    else:
        try:
            for need in PEERS:
                if need.name in peer.needs and not (place.folder / need.name).exists():
                    _run(need, place, rows)
            result = Result(peer, version, _runs(peer, place, repeat, rows), None)
        except measure.Failed as error:
            result = Result(peer, version, [], f"failed: {error}")
    if peer.name not in KEPT:
        shutil.rmtree(str(place.folder / peer.name), ignore_errors=True)
    print(f"  {peer.name:13}{result.summary}", flush=True)
    return result


def _runs(peer: Peer, place: Place, repeat: Optional[int], rows: Dict[str, int]) -> List[measure.Usage]:
    runs = [_run(peer, place, rows)]
    while len(runs) < (repeat or REPEAT) and (repeat or sum(run.wall_s for run in runs) < SHORT_S):
        runs.append(_run(peer, place, rows))
    return runs


def _run(peer: Peer, place: Place, rows: Dict[str, int]) -> measure.Usage:
    """Run a peer once, in an empty folder, and count what it brought. Raises `measure.Failed`."""
    folder = place.folder / peer.name
    shutil.rmtree(str(folder), ignore_errors=True)
    folder.mkdir()
    usage = measure.run(peer.command(place, folder), ROOT, _environment(), folder / "log")
    if peer.fills:
        with contextlib.closing(sqlite3.connect(str(folder / SQLITE_FILE))) as database:
            for table, expected in rows.items():
                (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
                if count != expected:
                    raise measure.Failed(f"{table} has {count} rows instead of {expected}")
    return usage


def _environment() -> Dict[str, str]:
    """This process's environment less what would configure libpq or the suite, and with Python's bytecode kept."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in (*CONFIGURATION, "PYTHONDONTWRITEBYTECODE")
        and not name.startswith(CONFIGURATION_PREFIXES)
    }
    return {**kept, "LOG_LEVEL": "INFO"}  # set, because .env would fill what is missing


if __name__ == "__main__":
    sys.exit(main())
