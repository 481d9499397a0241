"""Which tables lead to the root, over how many references, and in which order they are decided."""

from __future__ import annotations

from typing import Callable, Dict, Iterator, List, Mapping, Sequence, Set, Tuple

from migration.discovery.references import Guess, Link


def levels(
    root: str, links: Sequence[Link], doubtful: Sequence[Guess]
) -> Tuple[Dict[str, int], Dict[str, Guess]]:
    """Table → how many references lead from it to the root; and the tables that lead there by a doubtful guess alone."""
    uncertain: Dict[str, Guess] = {}
    while True:
        children: Dict[str, List[str]] = {}
        for link in (*links, *map(doubtful_link, uncertain.values())):
            children.setdefault(link.key.parent, []).append(link.key.table)
        found = {root: 0}
        waiting = [root]
        for name in waiting:
            for child in children.get(name, ()):
                if child not in found:
                    found[child] = found[name] + 1
                    waiting.append(child)
        more = [guess for guess in doubtful if guess.key.table not in found and guess.key.parent in found]
        if not more:
            return found, uncertain
        for guess in more:
            uncertain.setdefault(guess.key.table, guess)


def doubtful_link(guess: Guess) -> Link:
    return Link(guess.key, True, guess.why, guess.when, doubtful=True)


def parents_first(
    found: Mapping[str, int], links: Sequence[Link], root: str, astray: Callable[[str], float]
) -> Iterator[str]:
    """The tables below the root, parents before children; of a cycle first the one of which most rows lead to a parent that is done.

    ``astray``: the share of a table's rows that lead to none. Of equal ones, the nearest to the root.
    """
    parents: Dict[str, Set[str]] = {name: set() for name in found}
    certain: Dict[str, Set[str]] = {name: set() for name in found}  # by references that are never NULL
    for link in links:
        if link.key.table in parents and link.key.parent in parents and link.key.table != link.key.parent:
            parents[link.key.table].add(link.key.parent)
            if not link.optional:
                certain[link.key.table].add(link.key.parent)
    done = {root}
    waiting = sorted((name for name in found if name not in done), key=lambda name: (found[name], name))
    while waiting:
        ready = [name for name in waiting if parents[name] <= done]
        if not ready:
            sure = [name for name in waiting if certain[name] & done]
            possible = [name for name in sure or waiting if parents[name] & done]
            ready = [min(possible, key=astray) if len(possible) > 1 and not sure else possible[0]]
        for name in ready:
            yield name
            done.add(name)
            waiting.remove(name)
