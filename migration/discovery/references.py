"""References between tables: those that PostgreSQL declares, and those that names suggest and the data bear out."""

from __future__ import annotations

from typing import Dict, Iterator, List, Mapping, NamedTuple, Sequence, Set, Tuple

from migration.discovery.mixed_references import BARE, Candidate, MixedReferences, nearest
from migration.discovery.source import Source
from migration.discovery.words import IDS, matched, plain, without_id, words_of
from migration.model import Column, ForeignKey, Kind
from migration.postgres.operators import are_written_alike
from migration.printing import counted
from migration.sql import qualified


class Link(NamedTuple):
    """A reference. ``why``: what speaks for it where no foreign key declares it, else ''.

    ``when``: SQL on alias ``t``, of the rows for which it holds; '' for all. ``doubtful``: the data do not bear it out.
    """

    key: ForeignKey
    optional: bool
    why: str = ""
    when: str = ""
    doubtful: bool = False

    @property
    def columns(self) -> str:
        return ", ".join(self.key.columns)


class Guess(NamedTuple):
    """A reference that a column's name suggests: of how many values there are, how many lead nowhere.

    ``doubt``: what else the column may mean, so that no value shows it.
    """

    key: ForeignKey
    why: str
    values: int
    astray: int
    when: str = ""
    doubt: str = ""

    @property
    def holds(self) -> bool:
        """With ``when``, the row itself says which table it means: values that lead nowhere are of rows that are gone."""
        return not self.doubt and (bool(self.when) or (self.values > 0 and self.astray == 0))

    @property
    def mostly_holds(self) -> bool:
        return self.astray * 2 < self.values

    @property
    def borne_out(self) -> str:
        """What the data say of it."""
        if self.astray or not self.values:
            lost = "%d of its %s lead nowhere" % (self.astray, counted(self.values, "value"))
            return lost if self.values else "it has no value"
        return "every value leads to a row"


class References(NamedTuple):
    """``links``: declared ones and guesses that hold. ``doubtful``: guesses that the data do not bear out.

    ``unmeant``: table → column → a line, of columns that name rows, but nothing says of which table.
    """

    links: Tuple[Link, ...]
    doubtful: Tuple[Guess, ...]
    unmeant: Mapping[str, Mapping[str, str]]


def find_references(source: Source, root: str) -> References:
    """All references between tables that may be read. Asks the data about each guess, a query a table."""
    links = _declared(source)
    inherited = list(_inherited(source, list(links.values())))
    keys = [*(link.key for link in links.values()), *(one.key for one in inherited)]
    # Of a composite key of which a column is NULL, PostgreSQL looks at none: each may name something by itself.
    covered = {
        (key.table, name)
        for key in keys
        if len(key.columns) == 1 or not source.may_be_null(key.table, key.columns)
        for name in key.columns
    }
    named = _by_stem(source, root)
    several = MixedReferences(source, covered, named)
    mixed = list(several.all())
    covered |= {(one.key.table, one.key.columns[0]) for one in mixed}
    by_table: Dict[str, List[Candidate]] = {}
    guesses = _Guesses(
        source, root, named, [link.key for link in links.values()], several.doubts, several.unmeant
    )
    for one in (*inherited, *mixed, *guesses.all(covered)):
        by_table.setdefault(one.key.table, []).append(one)
    guessed = [guess for table, some in by_table.items() for guess in _asked(source, table, some)]
    for guess in guessed:
        if guess.holds:
            optional = bool(guess.when) or source.may_be_null(guess.key.table, guess.key.columns)
            link = Link(guess.key, optional, "%s; %s" % (guess.why, guess.borne_out), guess.when)
            links.setdefault((*guess.key[:4], guess.when), link)
    known = {
        (guess.key.table, guess.key.columns[0]) for guess in guessed if guess.holds or guess.doubt
    } | covered
    for table, column in _of_any_table(source):
        if (table, column.name) not in known and table not in source.empty:
            several.unmeant.setdefault(table, {}).setdefault(
                column.name, "%s may name a row of any table" % column.name
            )
    return References(
        tuple(links.values()), tuple(guess for guess in guessed if not guess.holds), several.unmeant
    )


def _declared(source: Source) -> Dict[Tuple[object, ...], Link]:
    """Foreign keys; those of a table that is read with its parent count as the parent's."""
    found: Dict[Tuple[object, ...], Link] = {}
    tables = set(source.tables)
    for key in source.catalog.foreign_keys:
        table, parent = (source.heirs.get(name, name) for name in (key.table, key.parent))
        if table in tables and parent in tables:
            ours = key._replace(table=table, parent=parent)
            found.setdefault(ours[:4], Link(ours, source.may_be_null(table, key.columns)))
    return found


# Guesses


def _inherited(source: Source, links: Sequence[Link]) -> Iterator[Candidate]:
    """What a table with columns of its own refers to as the table that it inherits from: PostgreSQL hands no key down."""
    known = {link.key[:4] for link in links}
    tables = set(source.tables)
    for link in links:
        for heir in sorted(source.catalog.heirs(link.key.table)):
            key = link.key._replace(table=heir)
            if heir in tables and heir not in source.catalog.unreadable and key[:4] not in known:
                yield Candidate(key, "as of %s, from which it inherits" % link.key.table)


class _Guesses:
    """References that names of columns suggest."""

    def __init__(
        self,
        source: Source,
        root: str,
        named: Dict[Tuple[str, ...], List[str]],
        keys: Sequence[ForeignKey],
        doubts: Mapping[Tuple[str, str], str],
        unmeant: Dict[str, Dict[str, str]],
    ) -> None:
        self.source = source
        self.root = root
        self.named = named
        self.by_key = _by_key_name(source)
        self.alike = _by_declared(source, keys)
        self.leads_on = {(key.table, key.columns[0]): key for key in keys if len(key.columns) == 1}
        self.doubts = doubts
        self.unmeant = unmeant

    def all(self, covered: Set[Tuple[str, str]]) -> Iterator[Candidate]:
        """The likeliest of each column."""
        for table in self.source.readable:
            for column in self.source.catalog.columns.get(table, ()):
                if (table, column.name) not in covered:
                    yield from self._of(table, column)

    def _of(self, table: str, column: Column) -> Iterator[Candidate]:
        """At most one."""
        source = self.source
        unlike = ""
        for parent, doubt in self._parents(table, column):
            key = source.single_key(parent)
            if key is None:
                self._note_composite(table, column, parent)
                continue
            if parent == table and key.name == column.name:
                continue
            # A key that is itself a reference stands for what it refers to: one row a user, for example.
            onward = self.leads_on.get((parent, key.name))
            if onward is not None:
                parent = onward.parent
                key = source.catalog.column(parent, onward.parent_columns[0])
            key, other = self._other_key(parent, key, column)
            if (parent, key.name) == (table, column.name):
                continue
            if not _is_comparable(key, column):
                unlike = (
                    unlike
                    or "%s looks like a reference to %s, but its type is %s, and that of %s %s"
                    % (
                        column.name,
                        parent,
                        column.type,
                        key.name,
                        key.type,
                    )
                )
                continue
            found = source.reference(table, column.name, parent, key.name)
            yield Candidate(found, "by its name", "", self.doubts.get((table, column.name)) or doubt or other)
            return
        if unlike and without_id(words_of(column.name)):
            self.unmeant.setdefault(table, {})[column.name] = unlike

    def _parents(self, table: str, column: Column) -> Iterator[Tuple[str, str]]:
        """Tables that a column's name means, the likeliest first, each with a doubt or ''."""
        words = words_of(column.name)
        bare = without_id(words) or tuple(words)
        if bare == ("parent",) and bare != tuple(words):
            for above, _ in self._called(table, matched(self.source.catalog.relations[table].name)[:-1]):
                yield above, "it may name a row of %s itself" % table
            yield table, ""
        by_name = list(self._by_name(table, column, words, bare))
        schema = self.source.catalog.relations[table].schema
        here = self.alike.get((schema, column.name), set())
        for parents in (here, self.alike.get(("", column.name), set())):
            if len(parents) == 1:
                (parent,) = parents
                others = sorted({other for other, _ in by_name} - parents)
                is_said = not others or any(other == parent for other, _ in by_name)
                yield parent, "" if is_said else "it may name a row of %s" % " or ".join(others)
        many = "elsewhere it names rows of %s" % " or ".join(sorted(here)) if len(here) > 1 else ""
        for parent, doubt in by_name:
            yield parent, doubt or many
        for parent in self.by_key.get(column.name, ()):
            yield parent, ""

    def _by_name(
        self, table: str, column: Column, words: Sequence[str], bare: Tuple[str, ...]
    ) -> Iterator[Tuple[str, str]]:
        """``words``: of the name; ``bare``: without an id at its end."""
        is_whole = bare == tuple(words)
        # page is a number, if it has no id at its end
        number = "it may be a number that names nothing" if is_whole and column.kind is Kind.INTEGER else ""
        for start in range(len(bare)):  # created_by_user_id is a user's
            if start and is_whole:
                break  # without an id at the end, the whole name has to be the table's
            for parent, doubt in self._called(table, (*bare[start:-1], plain(bare[-1]))):
                yield parent, doubt or number
        if not is_whole:
            yield from self._called(table, matched(column.name))  # api_key is one of api_keys

    def _called(self, table: str, words: Tuple[str, ...]) -> Iterator[Tuple[str, str]]:
        """The table of this name, of several that of the same schema."""
        tables = nearest(self.source, table, self.named.get(words, ()))
        if len(tables) > 1:
            yield tables[0], "several tables are called so: %s" % ", ".join(tables)
        elif tables:
            called, mine = (matched(self.source.catalog.relations[name].name) for name in (tables[0], table))
            akin = called == words or tables[0] == self.root or called[:1] == mine[:1]
            yield tables[0], "" if akin else "the name is only the end of that of %s" % tables[0]

    def _other_key(self, parent: str, key: Column, column: Column) -> Tuple[Column, str]:
        """Of a table with several unique columns the one that a reference means: legacy_user_id may be users.legacy_id."""
        source = self.source
        more = (
            set(words_of(column.name))
            - set(matched(source.catalog.relations[parent].name))
            - {key.name.lower()}
        )
        more = {word for word in more if not IDS.fullmatch(word)}
        others = [
            other
            for other in (source.unique_columns(parent) if more else ())
            if other.name != key.name and _is_comparable(other, column)
        ]
        for other in others:
            if more & set(words_of(other.name)):
                return other, ""
        if others:
            return key, "it may name %s of %s" % (" or ".join(other.name for other in others), parent)
        return key, ""

    def _note_composite(self, table: str, column: Column, parent: str) -> None:
        """A column that is called like a part of a key of several columns, of which the others are not there."""
        key = self.source.catalog.primary_keys.get(parent) or self.source.catalog.keys.get(parent, ())
        if (
            len(key) > 1
            and parent != table
            and not any(self.source.catalog.has(table, (name,)) for name in key if name != "id")
        ):
            self.unmeant.setdefault(table, {})[column.name] = (
                "%s looks like a part of the key of %s (%s), of which %s has no more"
                % (column.name, parent, ", ".join(key), table)
            )


def _of_any_table(source: Source) -> Iterator[Tuple[str, Column]]:
    """Columns whose names say that they name a row, and not of which table: parent_id."""
    for table in source.readable:
        for column in source.catalog.columns.get(table, ()):
            bare = without_id(words_of(column.name))
            if len(bare) == 1 and bare[0] in ("parent", *BARE) and column != source.single_key(table):
                yield table, column


def _by_declared(source: Source, keys: Sequence[ForeignKey]) -> Dict[Tuple[str, str], Set[str]]:
    """What columns of a name refer to, where a foreign key says so: by schema, and in all ('')."""
    found: Dict[Tuple[str, str], Set[str]] = {}
    for key in keys:
        if len(key.columns) == 1:
            for schema in (source.catalog.relations[key.table].schema, ""):
                found.setdefault((schema, key.columns[0]), set()).add(key.parent)
    return found


def _is_comparable(key: Column, column: Column) -> bool:
    return are_written_alike(key, column) or key.type.partition("(")[0] == column.type.partition("(")[0]


def names(key: ForeignKey, parent: str) -> str:
    """SQL condition: row ``t`` names the row of this alias."""
    return " AND ".join(
        equality.sql(qualified(parent, theirs), qualified("t", mine))
        for equality, theirs, mine in zip(key.equalities, key.parent_columns, key.columns)
    )


def _by_stem(source: Source, root: str) -> Dict[Tuple[str, ...], List[str]]:
    """Tables by what a reference to them would be called; the root first, then those of the usual schema."""
    found: Dict[Tuple[str, ...], List[str]] = {}
    usual = source.db.schema
    order = sorted(
        source.tables, key=lambda name: (name != root, source.catalog.relations[name].schema != usual)
    )
    for name in order:
        if name not in source.foreign:
            words = matched(source.catalog.relations[name].name)
            for start in range(len(words)):  # auth_user is called user, too
                found.setdefault(words[start:], []).append(name)
    for words, names in found.items():
        exact = [name for name in names if matched(source.catalog.relations[name].name) == words]
        found[words] = exact or (names[:1] if names[0] == root else names)
    return found


def _by_key_name(source: Source) -> Dict[str, List[str]]:
    """Tables by the name of their key, where that says more than ``id`` and is no other table's."""
    found: Dict[str, List[str]] = {}
    for name in source.tables:
        key = source.single_key(name)
        if key is not None and len(words_of(key.name)) > 1 and name not in source.foreign:
            found.setdefault(key.name, []).append(name)
    return {column: names for column, names in found.items() if len(names) == 1}


def _asked(source: Source, table: str, candidates: Sequence[Candidate]) -> List[Guess]:
    """Count the values of each guess, and those that lead nowhere, in one query of the table."""
    if table in source.empty or any(one.key.parent in source.catalog.unreadable for one in candidates):
        return [Guess(one.key, one.why, 0, 0, one.when, one.doubt) for one in candidates]
    counts, joins = [], []
    for number, (key, _, when, _) in enumerate(candidates):
        parent = "p%d" % number
        there = " AND ".join(
            [when or "true", *("%s IS NOT NULL" % qualified("t", name) for name in key.columns)]
        )
        counts += [
            "count(*) FILTER (WHERE %s)" % there,
            "count(*) FILTER (WHERE %s AND %s IS NULL)" % (there, qualified(parent, key.parent_columns[0])),
        ]
        joins.append("LEFT JOIN %s ON %s" % (source.rows_of(key.parent, parent), names(key, parent)))
    sql = "SELECT {} FROM {} {}".format(", ".join(counts), source.rows_of(table, "t"), " ".join(joins))
    row = source.db.rows(sql)[0]
    return [
        Guess(one.key, one.why, row[2 * number], row[2 * number + 1], one.when, one.doubt)
        for number, one in enumerate(candidates)
    ]
