"""The columns of one table in SQLite: types, defaults, generated columns, the CHECKs of enums, domains and truth."""

from __future__ import annotations

import re
from typing import Collection, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from migration.discovery import table_rules
from migration.discovery.defaults import Default, Wanted, defaults_of
from migration.discovery.definitions import ColumnDefinition, Definitions
from migration.discovery.expressions import condition, translate
from migration.discovery.sqlite_names import name
from migration.discovery.sqlite_script import Part
from migration.discovery.sqlite_types import Form, Sort
from migration.discovery.table_rules import Side
from migration.discovery.values import Names, Untranslatable, Value, text
from migration.model import Column
from migration.postgres.catalog import Catalog
from migration.postgres.snapshot import Snapshot


class Field(NamedTuple):
    """A column on both sides. ``declared``: None where it is left behind. ``says``: what becomes of its values."""

    name: str
    type: str
    not_null: bool
    declared: Optional[str]
    says: str


class Columns:
    """The columns of a table: their SQL, what is said of them, and the names that its expressions may use."""

    def __init__(
        self,
        db: Snapshot,
        side: Side,
        definitions: Definitions,
        columns: Sequence[Column],
        without: Collection[str],
    ) -> None:
        self.parts: List[Part] = []
        self.fields: List[Field] = []
        self.notes: List[str] = []
        self._side = side
        self._without = without
        self.names = _names(db.catalog, side, definitions)
        wanted = [
            Wanted(column, side.forms[column.name], made.base, made.default)
            for column in columns
            for made in [side.definition.columns[column.name]]
            if made.default is not None and not made.generated and column.name in side.forms
        ]
        self._defaults = defaults_of(db, side.table, wanted)
        key = table_rules.primary_key(side)
        for column in columns:
            collation = db.catalog.collation(side.table, column.name)
            if collation is not None and not collation.deterministic:
                what = "column `%s` compares by its bytes: PostgreSQL's collation %s takes different texts for equal"
                self.notes.append(what % (column.name, collation.name))
            self._add(column, side.definition.columns[column.name], key)

    def _add(self, column: Column, made: ColumnDefinition, key: Tuple[str, ...]) -> None:
        found = self._side.forms.get(column.name)
        if found is None:
            self.fields.append(Field(column.name, column.type, column.not_null, None, "left behind"))
            why = "no value of its type %s can be kept" % column.type
            self.notes.append(
                "column `%s` is left behind: %s"
                % (column.name, "--exclude names it" if column.name in self._without else why)
            )
            return
        words, says = [name(column.name), found.declared], found.says
        if key == (column.name,) and found.sort is Sort.INTEGER:
            counted = made.is_identity or (made.default or "").startswith("nextval(")
            words.append("PRIMARY KEY AUTOINCREMENT" if counted else "PRIMARY KEY")
        else:
            words += ["NOT NULL"] if column.not_null else []
            words += ["PRIMARY KEY"] if key == (column.name,) else []
            if made.is_identity:
                self.notes.append(
                    "column `%s` has no default: SQLite counts a single integer key alone" % column.name
                )
        declared = " ".join(words[1:])
        words += self._default(column.name, key == (column.name,) and found.sort is Sort.INTEGER)
        if made.generated:
            generated = self._generated(column.name, made, found)
            words += generated
            says += "; computed, as in PostgreSQL" if generated else ""
        words += self._checks(column.name, made, found)
        if found.limit is not None:
            says += "; SQLite does not check %s" % found.limit
        self.parts.append(Part(" ".join(words), made.comment))
        self.fields.append(Field(column.name, column.type, column.not_null, declared, says))

    def _default(self, column: str, is_counted: bool) -> Iterable[str]:
        default = self._defaults.get(column, Default(None))
        if is_counted:
            return []
        original = "default `%s` of `%s`" % (self._side.definition.columns[column].default, column)
        if default.note is not None and default.sql is None:
            self.notes.append("%s is left out: %s" % (original, default.note))
        elif default.note is not None:
            self.notes.append("%s: %s" % (original, default.note))
        return [] if default.sql is None else ["DEFAULT " + default.sql]

    def _generated(self, column: str, made: ColumnDefinition, found: Form) -> List[str]:
        """Generated columns of text, integers and truth are so in SQLite; others are copied, as the validation proves."""
        rules = self._side.definition.rules
        try:
            value = translate(made.default or "", self.names)
            if value.sort is not found.sort or found.sort not in (Sort.TEXT, Sort.INTEGER, Sort.BOOLEAN):
                raise Untranslatable("SQLite may compute another value")
            if any(column in rule.columns for rule in rules if rule.kind in "pf"):
                raise Untranslatable("it is part of a key")
        except Untranslatable as why:
            self.notes.append(
                "column `%s` is generated in PostgreSQL, as `%s`, and a plain column here, with the values copied: %s"
                % (column, made.default, why)
            )
            return []
        return ["GENERATED ALWAYS AS (%s) %s" % (value.sql, "STORED" if made.generated == "s" else "VIRTUAL")]

    def _checks(self, column: str, made: ColumnDefinition, found: Form) -> Iterator[str]:
        if found.sort is Sort.BOOLEAN:
            yield "CHECK (%s IN (0, 1))" % name(column)
        if found.sort is Sort.ENUM:
            yield "CHECK (%s IN (%s))" % (name(column), ", ".join(map(text, made.labels)))
        value = self.names.columns[(column,)]
        names = self.names._replace(columns={("VALUE",): value, ("value",): value})
        for domain in made.domains:
            if domain.not_null:
                self.notes.append(
                    "column `%s` may be NULL here: its domain %s may not, but for a few ways"
                    % (column, domain.name)
                )
            for check in domain.checks:
                try:
                    yield "CHECK (%s)" % condition(_in_check(check), names)
                except Untranslatable as why:
                    self.notes.append(
                        "`%s` of domain %s is left out for column `%s`: %s"
                        % (check, domain.name, column, why)
                    )


def _names(catalog: Catalog, side: Side, definitions: Definitions) -> Names:
    columns: Dict[Tuple[str, ...], Value] = {}
    for column, found in side.forms.items():
        made = side.definition.columns[column]
        collation = catalog.collation(side.table, column)
        by_bytes = collation is not None and collation.name in ('pg_catalog."C"', 'pg_catalog."POSIX"')
        columns[(column,)] = Value(
            name(column), found.sort, None, by_bytes, made.base if made.is_enum else ""
        )
    return Names(columns, definitions.types, definitions.encoding == "UTF8")


def _in_check(definition: str) -> str:
    """The condition in ``CHECK (…)``, as pg_get_constraintdef() writes it."""
    found = re.fullmatch(r"CHECK \((.*)\)(?: NO INHERIT)?(?: NOT VALID)?", definition, re.DOTALL)
    return found[1] if found else definition
