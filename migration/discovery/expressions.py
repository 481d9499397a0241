"""PostgreSQL's expressions as SQLite's, for the few node types and functions that mean the same on the values of both.

sqlglot reads the text. Each node carries what sort of value it is (``sqlite_types.Sort``), because the same operator means
something else on text that holds digits, on padded text, or on numbers that are not finite. What is not known to be equal
raises ``Untranslatable``: the caller leaves the expression out and says so.
"""

from __future__ import annotations

import functools
import re
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Type

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from migration.discovery.casts import cast
from migration.discovery.comparisons import compared, one_of
from migration.discovery.functions import called, require_known, same_sort
from migration.discovery.sqlite_types import Sort
from migration.discovery.values import NUMBERS, Names, Untranslatable, Value, number, text

# What sqlglot raises for SQL that it does not understand; some of it in its older versions alone
_NOT_UNDERSTOOD = (
    SqlglotError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def parse_query(sql: str) -> exp.Expression:
    """PostgreSQL's SELECT as sqlglot reads it. Raises Untranslatable."""
    try:
        found = sqlglot.parse_one(sql, read="postgres")
    except _NOT_UNDERSTOOD:
        raise Untranslatable("it is not understood") from None
    assert isinstance(found, exp.Expression)
    return found


@functools.lru_cache(maxsize=4096)  # many columns and rules are alike
def parse(sql: str) -> exp.Expression:
    """PostgreSQL's expression as sqlglot reads it. Raises Untranslatable.

    As the one column of a SELECT: by itself, a column called ``comment`` or ``lock`` would begin a statement.
    """
    found = parse_query("SELECT " + sql)
    given = [part for part, value in found.args.items() if value not in (None, False, [])]
    if not isinstance(found, exp.Select) or given != ["expressions"] or len(found.expressions) != 1:
        raise Untranslatable("it is not understood")
    return bare(found.expressions[0])


def translate(sql: str, names: Names) -> Value:
    """The same in SQLite, for every value of the columns. Raises Untranslatable."""
    try:
        return translated(parse(sql), names)
    except RecursionError:
        raise Untranslatable("it is nested too deep") from None


def condition(sql: str, names: Names) -> str:
    """SQL of a condition: true, false or NULL where PostgreSQL's is. Raises Untranslatable."""
    value = translate(sql, names)
    if value.sort is not Sort.BOOLEAN:
        raise Untranslatable("it is no condition")
    return value.sql


def bare(node: exp.Expression) -> exp.Expression:
    """Without the brackets around all of it."""
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def translated(node: exp.Expression, names: Names) -> Value:
    """As ``translate``, of what sqlglot has read."""
    rule = _RULES.get(type(node))
    found = None if rule is not None or names.further is None else names.further(node, names)
    if found is not None:
        return found
    if rule is None:
        raise Untranslatable(_unknown(node))
    allowed, convert = rule
    for name, value in node.args.items():
        if value not in (None, False, []) and name not in allowed:
            raise Untranslatable("%s has a part (%s) that is not understood" % (node.key.upper(), name))
    return convert(node, names)


_WHY = {
    "regexplike": "SQLite has no regular expressions",
    "regexpilike": "SQLite has no regular expressions",
    "similarto": "SQLite has no regular expressions",
    "ilike": "SQLite's LIKE ignores the case of ASCII letters alone",
    "interval": "SQLite has no intervals",
    "bracket": "SQLite has no arrays",
    "extract": "SQLite has no EXTRACT",
    "currenttimestamp": "it depends on the time",
    "currentdate": "it depends on the time",
    "currenttime": "it depends on the time",
}


def _unknown(node: exp.Expression) -> str:
    if node.key in _WHY:
        return _WHY[node.key]
    if isinstance(node, exp.Func) and not isinstance(node, exp.Connector):
        return "%s() is not known to mean the same in SQLite" % node.sql_name().lower()
    if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Func):
        return "%s.%s() is not known to mean the same in SQLite" % (node.this.name, node.expression.name)
    if isinstance(node, exp.ByteString):
        return "it has a text with a backslash"
    return "%s is not known to mean the same in SQLite" % node.key.upper()


# Names and constants


def _column(node: exp.Expression, names: Names) -> Value:
    parts = tuple(part.name for part in node.parts)  # type: ignore[attr-defined]
    if parts not in names.columns or not names.columns[parts].sql:
        raise Untranslatable("it names %s, which is not there" % ".".join(parts))
    return names.columns[parts]


def _literal(node: exp.Expression, names: Names) -> Value:
    if node.args["is_string"]:
        return Value(text(node.name), Sort.TEXT, node.name)
    if re.fullmatch(r"\d+", node.name):
        if int(node.name) >= 2**63:
            raise Untranslatable("its number has more digits than SQLite keeps")
        return Value(node.name, Sort.INTEGER, node.name)
    return number(node.name, Sort.DECIMAL)


def _true_or_false(node: exp.Expression, names: Names) -> Value:
    return Value("1" if node.args["this"] else "0", Sort.BOOLEAN, "1" if node.args["this"] else "0")


def _null(node: exp.Expression, names: Names) -> Value:
    raise Untranslatable("it has a NULL of no known type")


_OPEN = (exp.Binary, exp.Not, exp.Neg)  # what needs brackets inside another operator


def _paren(node: exp.Expression, names: Names) -> Value:
    inner = translated(node.this, names)
    is_open = isinstance(node.this, _OPEN) and inner.constant is None
    return inner._replace(sql="(%s)" % inner.sql) if is_open else inner


def _operand(node: exp.Expression, names: Names) -> Value:
    """A side of an operator; PostgreSQL writes the brackets itself."""
    return _paren(exp.Paren(this=node), names)


def _cast(node: exp.Expression, names: Names) -> Value:
    return cast(_typed(node.this, names), node.args["to"], names)


def _typed(node: exp.Expression, names: Names) -> Optional[Value]:
    """As ``translated``; None for a NULL, whose type a cast around it tells."""
    node = bare(node)
    return None if isinstance(node, exp.Null) else translated(node, names)


# Comparisons

_ORDERS: Dict[Type[exp.Expression], str] = {exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">="}
_EQUALS: Dict[Type[exp.Expression], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.NullSafeEQ: "IS",
    exp.NullSafeNEQ: "IS NOT",
}


def _comparison(node: exp.Expression, names: Names) -> Value:
    operator = {**_ORDERS, **_EQUALS}[type(node)]
    if type(node) in (exp.EQ, exp.NEQ) and _list_of(node.expression) is not None:
        return _one_of(node, names)
    left, right = _operand(node.this, names), _operand(node.expression, names)
    return Value(compared(left, operator, right, names.lax), Sort.BOOLEAN)


def _list_of(node: exp.Expression) -> Optional[exp.Expression]:
    """What ANY or ALL is asked of."""
    node = bare(node)
    found: Optional[exp.Expression] = None
    if isinstance(node, (exp.Any, exp.All)):
        found = node.this
    elif (
        isinstance(node, exp.Anonymous) and node.name.upper() in ("ALL", "ANY") and len(node.expressions) == 1
    ):
        found = node.expressions[0]
    return found


def _one_of(node: exp.Expression, names: Names) -> Value:
    """``= ANY (ARRAY[…])`` and ``<> ALL (ARRAY[…])``."""
    side = bare(node.expression)
    is_any = isinstance(side, exp.Any) or (isinstance(side, exp.Anonymous) and side.name.upper() == "ANY")
    if is_any is not isinstance(node, exp.EQ):
        raise Untranslatable("its %s is not known to mean the same in SQLite" % ("ANY" if is_any else "ALL"))
    found = _list_of(node.expression)
    assert found is not None
    items = [translated(item, names) for item in _items(found)]
    return one_of(_operand(node.this, names), "IN" if is_any else "NOT IN", items)


def _items(node: exp.Expression) -> Sequence[exp.Expression]:
    """The elements of an array, each cast to what the array is."""
    node = bare(node)
    if isinstance(node, exp.Cast):
        to = node.args["to"]
        inner = to.expressions
        if len(inner) != 1:
            raise Untranslatable("its array is not understood")
        value = bare(node.this)
        if (
            isinstance(value, exp.Literal)
            and re.fullmatch(r"\{[\w -]+(,[\w -]+)*\}", value.name)
            and "NULL" not in value.name.upper()
        ):
            return [
                exp.Cast(this=exp.Literal.string(item), to=inner[0].copy())
                for item in value.name[1:-1].split(",")
            ]
        return [exp.Cast(this=item.copy(), to=inner[0].copy()) for item in _items(value)]
    if isinstance(node, exp.Array) and node.expressions:
        return node.expressions
    raise Untranslatable("SQLite has no arrays")


def _is(node: exp.Expression, names: Names) -> Value:
    negated = " NOT" if node.args.get("negate") else ""
    value = _operand(node.this, names)
    if isinstance(node.expression, exp.Null):
        if value.sort is Sort.RECORD:
            raise Untranslatable("IS NULL of a row is not known to mean the same in SQLite")
        return Value("%s IS%s NULL" % (value.sql, negated), Sort.BOOLEAN)
    if isinstance(node.expression, exp.Boolean) and value.sort is Sort.BOOLEAN:
        return Value(
            "%s IS%s %s" % (value.sql, negated, "TRUE" if node.expression.this else "FALSE"), Sort.BOOLEAN
        )
    raise Untranslatable(_unknown(node))


_SPECIAL = "*?["


def _like(node: exp.Expression, names: Names) -> Value:
    """LIKE as GLOB, which heeds the case of letters as PostgreSQL's LIKE does."""
    value, pattern = _operand(node.this, names), translated(node.expression, names)
    if value.sort is not Sort.TEXT or pattern.constant is None or pattern.sort is not Sort.TEXT:
        raise Untranslatable("its LIKE is not known to mean the same in SQLite")
    if "\\" in pattern.constant:
        raise Untranslatable("its pattern has a backslash")
    signs = {"%": "*", "_": "?", **{sign: "[%s]" % sign for sign in _SPECIAL}}
    glob = "".join(signs.get(sign, sign) for sign in pattern.constant)
    return Value(
        "%s %sGLOB %s" % (value.sql, "NOT " if node.args.get("negate") else "", text(glob)), Sort.BOOLEAN
    )


# Logic and arithmetic


def truth(node: exp.Expression, names: Names) -> str:
    """SQL of a condition. Raises Untranslatable."""
    value = translated(node, names)
    if value.sort is not Sort.BOOLEAN:
        raise Untranslatable("it is no condition")
    return value.sql


def _logic(node: exp.Expression, names: Names) -> Value:
    word = "AND" if isinstance(node, exp.And) else "OR"
    parts: List[str] = []
    for side in (node.this, node.expression):
        part = truth(side, names)
        other = isinstance(side, (exp.And, exp.Or)) and not isinstance(side, type(node))
        parts.append("(%s)" % part if other else part)
    return Value("%s %s %s" % (parts[0], word, parts[1]), Sort.BOOLEAN)


def _not(node: exp.Expression, names: Names) -> Value:
    part = truth(node.this, names)
    return Value("NOT %s" % ("(%s)" % part if isinstance(node.this, _OPEN) else part), Sort.BOOLEAN)


_ARITHMETIC: Dict[Type[exp.Expression], str] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.Mod: "%",
}


def _arithmetic(node: exp.Expression, names: Names) -> Value:
    """Of integers alone: the sum of two decimals is none of a double's."""
    left, right = _operand(node.this, names), _operand(node.expression, names)
    if left.sort is not Sort.INTEGER or right.sort is not Sort.INTEGER:
        raise Untranslatable("SQLite reckons with doubles")
    return Value("%s %s %s" % (left.sql, _ARITHMETIC[type(node)], right.sql), Sort.INTEGER)


def _negative(node: exp.Expression, names: Names) -> Value:
    value = _operand(node.this, names)
    if value.constant is not None and value.sort in NUMBERS and not value.constant.startswith("-"):
        return value._replace(sql="-" + value.sql, constant="-" + value.constant)
    if value.sort is not Sort.INTEGER:
        raise Untranslatable("SQLite reckons with doubles")
    return Value("- %s" % value.sql, Sort.INTEGER)


# Functions and CASE


def _joined(node: exp.Expression, names: Names) -> Value:
    left, right = _operand(node.this, names), _operand(node.expression, names)
    if left.sort is not Sort.TEXT or right.sort is not Sort.TEXT:
        raise Untranslatable("|| is not known to mean the same in SQLite on other values than text")
    return Value("%s || %s" % (left.sql, right.sql), Sort.TEXT)


def _case(node: exp.Expression, names: Names) -> Value:
    parts, results = [], []
    for branch in node.args["ifs"]:
        if node.this is None:
            asked = truth(branch.this, names)
        else:
            asked = compared(translated(node.this, names), "=", translated(branch.this, names), names.lax)
        result = translated(branch.args["true"], names)
        results.append(result)
        parts.append("WHEN %s THEN %s" % (asked, result.sql))
    default = node.args.get("default")
    inner = None if default is None else _typed(default, names)
    if inner is not None:
        results.append(inner)
        parts.append("ELSE %s" % inner.sql)
    return same_sort(results)._replace(sql="CASE %s END" % " ".join(parts))


def _called(node: exp.Expression, names: Names) -> Value:
    """A function that sqlglot knows by name."""
    name, parts = _KNOWN[type(node)]
    arguments = [node.args[part] for part in parts if node.args.get(part) is not None]
    if isinstance(node, exp.Trim):
        name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position") or ""), name)
    return called(name, [translated(one, names) for one in (*arguments, *node.expressions)], names)


def _function(node: exp.Expression, names: Names) -> Value:
    require_known(node.name.lower())
    return called(node.name.lower(), [translated(one, names) for one in node.expressions], names)


_KNOWN: Dict[Type[exp.Expression], Tuple[str, Tuple[str, ...]]] = {
    exp.Coalesce: ("coalesce", ("this",)),
    exp.Nullif: ("nullif", ("this", "expression")),
    exp.Length: ("length", ("this",)),
    exp.Trim: ("btrim", ("this", "expression")),
    exp.Lower: ("lower", ("this",)),
    exp.Upper: ("upper", ("this",)),
    exp.Left: ("left", ("this", "expression")),
    exp.Right: ("right", ("this", "expression")),
    exp.Substring: ("substring", ("this", "start", "length")),
    exp.Abs: ("abs", ("this",)),
}
Translator = Callable[[exp.Expression, Names], Value]
_BOTH = ("this", "expression")
_RULES: Dict[Type[exp.Expression], Tuple[Tuple[str, ...], Translator]] = {
    exp.Column: (("this", "table", "db", "catalog"), _column),
    exp.Literal: (("this", "is_string"), _literal),
    exp.Boolean: (("this",), _true_or_false),
    exp.Null: ((), _null),
    exp.Paren: (("this",), _paren),
    exp.Cast: (("this", "to"), _cast),
    **dict.fromkeys((*_ORDERS, *_EQUALS), (_BOTH, _comparison)),
    exp.Is: ((*_BOTH, "negate"), _is),
    exp.Like: ((*_BOTH, "negate"), _like),
    **dict.fromkeys((exp.And, exp.Or), (_BOTH, _logic)),
    exp.Not: (("this",), _not),
    **dict.fromkeys(_ARITHMETIC, ((*_BOTH, "typed"), _arithmetic)),
    exp.Neg: (("this",), _negative),
    exp.DPipe: ((*_BOTH, "safe"), _joined),
    exp.Case: (("this", "ifs", "default"), _case),
    **{node: ((*parts, "expressions", "position", "binary"), _called) for node, (_, parts) in _KNOWN.items()},
    exp.Anonymous: (("this", "expressions"), _function),
}
