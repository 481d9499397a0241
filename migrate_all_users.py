"""Every user's data from PostgreSQL to a validated SQLite database of their own, many at once, on Dask.

    python migrate_all_users.py --output-dir migrated

    python migrate_all_users.py --output-dir migrated --resume               what is not yet done and validated
    python migrate_all_users.py --output-dir migrated --users-from FILE      these users alone
    python migrate_all_users.py --output-dir migrated --scheduler tcp://…    on the workers of a cluster
    python migrate_all_users.py --verify migrated                            every file, years later, without PostgreSQL

All users are read at one instant. One user's failure does not stop the others; the run then lists it and exits with 1.
"""

from __future__ import annotations

if __name__ == "__main__":  # before what may fail is imported
    from migration.cli import running

    running.begin()

import argparse
import contextlib
import sys
from typing import Optional, Sequence

from migration import files, lock
from migration.cli import configuration, options, running
from migration.errors import TargetError
from migration.fleet import cluster, ledger, local_workers, results, summary, user_files, verification
from migration.fleet.coordinator import RunOptions, migrate_all
from migration.settings import Settings


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = options.parser(__doc__ or "", data_dir=False)
    options.add_source(parser)
    options.add_schema(parser)
    options.add_orphans(parser)
    options.add_strict(parser)
    parser.groups[options.TARGET].add_argument(
        "--output-dir", metavar="DIR", help="a folder for each user, the ledger and the summary (required)"
    )
    parser.groups[options.VALIDATION].add_argument(
        "--verify",
        metavar="DIR",
        help="migrate nothing: compare the files of a finished output with its ledger, without PostgreSQL",
    )
    who = parser.groups[options.WHO]
    chosen = who.add_mutually_exclusive_group()
    chosen.add_argument(
        "--users-from", metavar="FILE", help="who: an e-mail address or user id a line; # begins a comment"
    )
    chosen.add_argument(
        "--where-active", action="store_true", help="only users that are active (their column is_active)"
    )
    workers = parser.add_argument_group("workers")
    where = workers.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        metavar="N",
        type=options.positive,
        help="worker processes on this machine (default: one a core)",
    )
    where.add_argument("--scheduler", metavar="URL", help="the scheduler of a cluster, as tcp://host:8786")
    workers.add_argument(
        "--worker-memory",
        metavar="SIZE",
        type=_memory,
        default=10**9,
        help="limit of each local worker (default: 1GB)",
    )
    workers.add_argument(
        "--user-timeout",
        metavar="SECONDS",
        type=options.positive,
        default=3600,
        help="give up a user who takes longer (default: 3600)",
    )
    workers.add_argument(
        "--max-connections",
        metavar="N",
        type=options.positive,
        default=20,
        help="connections to PostgreSQL at once, the coordinator's among them (default: 20)",
    )
    workers.add_argument(
        "--no-shared-snapshot",
        action="store_true",
        help="a snapshot for each user, where a connection pooler cannot share one: not all users at one instant",
    )
    who.add_argument(
        "--resume", action="store_true", help="migrate only who is not yet done and validated in this folder"
    )
    arguments = parser.parse_args(argv)
    if arguments.verify is not None:
        for name, value in vars(arguments).items():
            if name not in ("verify", "log_file", "verbose", "quiet") and value != parser.get_default(name):
                parser.error("--verify starts no run: leave --%s away" % name.replace("_", "-"))
        return running.run(_verify, arguments)
    if arguments.output_dir is None:
        parser.error("the following arguments are required: --output-dir")
    if arguments.max_connections < 2:
        parser.error("--max-connections is at least 2: the coordinator's, and a worker's")
    return running.run(lambda args: _main(args, configuration.settings(args)), arguments)


def _memory(text: str) -> int:
    try:
        return local_workers.bytes_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _verify(arguments: argparse.Namespace) -> int:
    return verification.verify(configuration.expanded(arguments.verify).absolute())


def _main(arguments: argparse.Namespace, settings: Settings) -> int:
    cluster.require()
    chosen = RunOptions(
        output=configuration.expanded(arguments.output_dir).absolute(),
        users_from=arguments.users_from,
        where_active=arguments.where_active,
        resume=arguments.resume,
        shared_snapshot=not arguments.no_shared_snapshot,
        scheduler=arguments.scheduler,
        workers=min(arguments.workers or cluster.cores(), arguments.max_connections - 1),
        worker_memory=arguments.worker_memory,
        user_timeout=arguments.user_timeout,
        max_connections=arguments.max_connections,
        config=configuration.foreign(arguments.config.path),
        schema_path=arguments.schema_path,
        postgres_url=arguments.postgres_url,
    )
    if chosen.scheduler is None:
        local_workers.require_resources(chosen.workers)
    output = chosen.output
    with contextlib.ExitStack() as stack:
        with results.errors(output):
            files.make_folder(output)
            held = lock.held(output / user_files.LOCK, "the output folder %s" % output, TargetError)
            stack.enter_context(held)
            files.move_in(output, last=(summary.SUMMARY,))
        book = stack.enter_context(ledger.opened(output / ledger.NAME))
        return migrate_all(chosen, settings, book)


if __name__ == "__main__":
    sys.exit(main())
