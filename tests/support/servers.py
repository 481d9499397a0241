"""A real PostgreSQL for the whole run, and a fresh copy of the sample database for each test that wants one."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from typing import Any, Iterator, NamedTuple
from urllib.parse import quote

import psycopg2
import pytest

from demo import sample
from demo.postgres import temp_postgres

_numbers = itertools.count(1)


class Server(NamedTuple):
    """A running PostgreSQL with a template database that holds the sample."""

    url: str
    copying: str = ""  # how to copy a template; before PostgreSQL 15 there was one way

    def execute(self, sql: str) -> None:
        connection = psycopg2.connect(self.url)
        try:
            connection.autocommit = True
            connection.cursor().execute(sql)
        finally:
            connection.close()

    def database_url(self, name: str) -> str:
        return self.url.replace("/postgres?", "/%s?" % quote(name))

    @contextlib.contextmanager
    def new_database(self, of: str = "TEMPLATE sample_template") -> Iterator[Database]:
        """A database for the block, under a name that no other one has: a fixture can be asked for again."""
        name = "test_%d_%d" % (os.getpid(), next(_numbers))
        self.execute("CREATE DATABASE %s %s %s" % (name, of, self.copying))
        try:
            yield Database(self.database_url(name))
        finally:
            self.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = '%s' AND pid <> pg_backend_pid()" % name
            )
            self.execute("DROP DATABASE %s" % name)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with temp_postgres() as url:
        Server(url).execute("CREATE DATABASE sample_template")
        connection = psycopg2.connect(Server(url).database_url("sample_template"))
        started = Server(url, "STRATEGY file_copy" if connection.server_version >= 150000 else "")
        sample.create_schema(connection)
        sample.fill(connection)
        connection.commit()
        connection.close()
        yield started


# What needs care in URLs, .env files, .pgpass and shells.
PASSWORD = "gR$HOME${PATH}3 %q\"'\\:@/#ü"


class Guarded(NamedTuple):
    """A PostgreSQL that lets nobody in over TCP without a password; holds the sample."""

    port: str
    database: str = "theprogram_db"  # as in config.py
    user: str = "reader"

    def url(self, password: str | None = None, user: str = "reader") -> str:
        secret = "" if password is None else ":" + quote(password, safe="")
        return "postgresql://%s%s@127.0.0.1:%s/%s" % (user, secret, self.port, self.database)


@pytest.fixture(scope="session")
def guarded() -> Iterator[Guarded]:
    hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    with temp_postgres("password_encryption=scram-sha-256", listen=True, hba=hba) as url:
        started = Server(url)
        made = Guarded(url.rpartition("port=")[2])
        started.execute("CREATE DATABASE " + made.database)
        connection = psycopg2.connect(started.database_url(made.database))
        sample.create_schema(connection)
        sample.fill(connection)
        cursor = connection.cursor()
        # theprogram has the password that config.py falls back to, dollar one that .env takes without quotes
        roles = {"reader": PASSWORD, "theprogram": "theprogram", "dollar": "gR$HOME${PATH}3"}
        for role, password in roles.items():
            cursor.execute("CREATE ROLE %s LOGIN PASSWORD %%s" % role, (password,))
            cursor.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO " + role)
        connection.commit()
        connection.close()
        started.execute("CREATE DATABASE other_db TEMPLATE " + made.database)
        yield made


class Database(NamedTuple):
    """A database of its own for one test; ``url`` is what --postgres-url takes."""

    url: str

    def execute(self, sql: str, *parameters: object) -> None:
        connection = psycopg2.connect(self.url)
        try:
            connection.cursor().execute(sql, parameters or None)
            connection.commit()
        finally:
            connection.close()

    def rows(self, sql: str, *parameters: object) -> list:
        connection = psycopg2.connect(self.url)
        try:
            cursor = connection.cursor()
            cursor.execute(sql, parameters or None)
            return cursor.fetchall()
        finally:
            connection.close()


@pytest.fixture(scope="session")
def sample_database(server: Server) -> Iterator[Database]:
    """The sample, shared by all tests that only read it."""
    with server.new_database() as made:
        yield made


@pytest.fixture()
def database(server: Server) -> Iterator[Database]:
    """The sample in a database that the test may change."""
    with server.new_database() as made:
        yield made


@pytest.fixture()
def empty(server: Server) -> Iterator[Database]:
    """A database without a table, for another application."""
    with server.new_database("TEMPLATE template0") as made:
        yield made


@contextlib.contextmanager
def holding(database: Database, *statements: str, name: str = "the application") -> Iterator[Any]:
    """A transaction of somebody else's that has done something and goes on."""
    connection = psycopg2.connect(database.url, application_name=name)
    try:
        for sql in statements:
            connection.cursor().execute(sql)
        yield connection
    finally:
        connection.close()


def connections(database: Database) -> int:
    return int(
        database.rows(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )[0][0]
    )


def connections_become(number: int, database: Database) -> bool:
    """PostgreSQL notices a closed connection a moment later."""
    for _ in range(300):
        if connections(database) == number:
            return True
        time.sleep(0.01)
    return False


NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"  # nothing listens on port 1


def until(database: Database, sql: str) -> None:
    for _ in range(500):
        if database.rows(sql):
            return
        threading.Event().wait(0.01)
    raise AssertionError("never: " + sql)
