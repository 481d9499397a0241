"""Ownership as config.py writes it, and the words in names."""

from __future__ import annotations

import re
from typing import Iterable, List, Sequence, Tuple

from migration.model import Ownership, Way, assert_never
from migration.python_text import columns_text, text


def written(rule: Ownership) -> str:
    """An ownership as config.py says it."""
    way = rule.way
    if way is Way.ROOT:
        return "the_root()"
    if way is Way.OWNED:
        return "owned_by(%s%s)" % (columns_text(rule.columns), ", or_shared=True" if rule.or_shared else "")
    if way is Way.CHILD:
        more = ", or_referenced=True" if rule.or_referenced else ""
        return "child_of(%s, %s%s)" % (text(rule.parent or ""), columns_text(rule.columns), more)
    if way is Way.SHARED:
        return "shared()"
    if way is Way.REFERENCED:
        return "referenced()"
    if way is Way.ANY or way is Way.ALL:
        return "%s(%s)" % ("any_of" if way is Way.ANY else "all_of", ", ".join(map(written, rule.ways)))
    if way is Way.WHERE:
        return "where(%s)" % text(rule.texts[0])
    if way is Way.UNDECIDED:
        return "undecided(%s)" % ", ".join(map(text, rule.texts))
    assert_never(way)


def listed(values: Iterable[str], last: str = "and") -> str:
    """In a sentence: a, b and c."""
    all_ = list(values)
    return all_[0] if len(all_) == 1 else "%s %s %s" % (", ".join(all_[:-1]), last, all_[-1])


# Names of tables and columns


def words_of(name: str) -> List[str]:
    """The words of a name: of ``ownerId``, ``owner_id`` and ``OwnerID`` the same."""
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return [word for word in re.split(r"[\W_]+", name.lower()) if word]


_IRREGULAR = {"people": "person", "children": "child", "men": "man", "women": "woman", "data": "datum"}


def singular(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + instead
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word


def stem(name: str) -> Tuple[str, ...]:
    """What a reference to a table of this name would be called: the words of it, the last in the singular."""
    words = words_of(name)
    return (*words[:-1], singular(words[-1])) if words else ()


def plain(word: str) -> str:
    """The same for a word in the singular and in the plural, whatever its ending: of movie and movies, status and statuses."""
    word = _IRREGULAR.get(word, word)
    short = word.rstrip("es")
    short = word if len(short) < 2 else short
    return short[:-1] + "i" if short.endswith("y") else short


def matched(name: str) -> Tuple[str, ...]:
    """The words of a name, the last as ``plain`` makes it, to compare names of tables and columns by."""
    words = words_of(name)
    return (*words[:-1], plain(words[-1])) if words else ()


IDS = re.compile(r"id|uuid|uid|guid|key|ref|fk|pk")  # a word that says that it is a key


def without_id(words: Sequence[str]) -> Tuple[str, ...]:
    """The words of a column's name without what says that it is a key: of order_id, orderid, id_order and fk_order. () without it."""
    if len(words) > 1 and IDS.fullmatch(words[-1]):
        return tuple(words[:-1])
    if len(words) > 1 and words[0] in ("id", "fk"):
        return tuple(words[1:])
    if words and len(words[-1]) > 4 and words[-1].endswith("id"):
        return (*words[:-1], words[-1][:-2])
    return ()
