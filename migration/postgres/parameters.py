"""libpq's parameters from a URL or conninfo, and how they are shown: never with the password."""

from __future__ import annotations

import re
from typing import Dict, Mapping, Optional

import psycopg2
import psycopg2.extensions

from migration.errors import UsageError


def parameters(url: str) -> Dict[str, str]:
    """libpq's parameters of a URL or conninfo string. SQLAlchemy's ``postgresql+driver://`` is taken too."""
    plain = re.sub(r"\A(postgres(?:ql)?)\+\w+://", r"\1://", url.strip())
    unreadable = UsageError(
        "the PostgreSQL URL cannot be read",
        "postgresql://user:password@host:5432/database (percent-encode special characters), or a conninfo string",
    )
    try:
        parsed = psycopg2.extensions.parse_dsn(plain)
    except psycopg2.ProgrammingError:  # its text quotes the URL, and so the password
        unknown = _unknown_parameter(plain)
        if unknown is None:
            raise unreadable from None
        raise UsageError(
            "the PostgreSQL URL has a parameter that PostgreSQL's library does not know: " + unknown,
            _OTHERS_PARAMETERS.get(unknown, _ELSEWHERE),
        ) from None
    # libpq takes what follows a bare @ or / in a password for the host, the port or the database, which are shown
    url_part = re.match(r"postgres(?:ql)?://([^/?]*)([^?]*)", plain)
    if url_part and (url_part[1].count("@") > 1 or "@" in url_part[2]):
        raise unreadable
    if not re.fullmatch(r"[\d,]*", parsed.get("port", "")):
        raise unreadable
    return {name: str(value) for name, value in parsed.items()}


_ELSEWHERE = "leave it out; what there is: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS"


# What other clients' URLs hold, and what to write instead.
_OTHERS_PARAMETERS = {
    **dict.fromkeys(
        ("schema", "currentSchema", "search_path"),
        "leave it out: config.POSTGRES_SCHEMA names the schema",
    ),
    **dict.fromkeys(
        ("ssl", "tls", "sslaccept", "sslidentity", "ssl_mode", "use_ssl"), "write sslmode=require instead"
    ),
    **dict.fromkeys(
        ("timeout", "connectTimeout", "connection_timeout", "pool_timeout", "socket_timeout"),
        "leave it out, or write connect_timeout with seconds instead",
    ),
    **dict.fromkeys(("charset", "encoding", "client_charset"), "leave it out: text is always read as UTF-8"),
    **dict.fromkeys(("username",), "write user instead"),
    **dict.fromkeys(("database", "db", "name"), "write dbname instead"),
    **dict.fromkeys(
        (
            "pgbouncer",
            "connection_limit",
            "pool",
            "pool_size",
            "pool_max_conns",
            "max_overflow",
            "prepareThreshold",
            "prepared_statements",
            "prepared_statement_cache_size",
            "statement_cache_size",
            "sslcompression_level",
            "uselibpqcompat",
            "ApplicationName",
        ),
        "leave it out: it is for another client",
    ),
}


def _unknown_parameter(plain: str) -> Optional[str]:
    """The first parameter that libpq does not know, where that is what is wrong and no part of a password can be shown."""
    if re.match(r"postgres(?:ql)?://", plain):
        url, _, query = plain.rpartition("?")
        if "@" in query or not _is_readable(url):
            return None
        pairs = [part.partition("=") for part in query.split("&")]
        names = [name for name, sign, _ in pairs if sign]
        shown = re.compile(r"[A-Za-z_.]+")
    else:
        names = re.findall(r"([A-Za-z_]+)\s*=", plain)
        shown = re.compile("|".join(_OTHERS_PARAMETERS))
    unknown = [name for name in names if not _is_readable("postgresql://?%s=x" % name)]
    return next((name for name in unknown if shown.fullmatch(name)), None)


def _is_readable(url: str) -> bool:
    try:
        psycopg2.extensions.parse_dsn(url)
    except psycopg2.ProgrammingError:
        return False
    return True


def masked(postgres: Mapping[str, str]) -> str:
    """Where the connection leads, without the password: ``user@host:port/database``."""
    if "service" in postgres:
        return "service " + postgres["service"]
    shown = postgres["user"] + "@" if postgres.get("user") else ""
    shown += postgres.get("host") or postgres.get("hostaddr") or "the default host"
    shown += ":" + postgres["port"] if postgres.get("port") else ""
    return shown + ("/" + postgres["dbname"] if postgres.get("dbname") else "")
