"""Order of what depends on each other."""

from __future__ import annotations

from typing import Dict, Hashable, List, Mapping, Sequence, Tuple, TypeVar

Node = TypeVar("Node", bound=Hashable)


def components(dependencies: Mapping[Node, Sequence[Node]]) -> List[List[Node]]:
    """The nodes, each after those that it depends on; those that depend on each other in a cycle stand together.

    Tarjan's algorithm without recursion, as chains may be long.
    """
    index: Dict[Node, int] = {}
    low: Dict[Node, int] = {}
    stack: List[Node] = []
    on_stack: Dict[Node, bool] = {}
    found: List[List[Node]] = []
    for root in dependencies:
        work: List[Tuple[Node, int]] = [] if root in index else [(root, 0)]
        while work:
            node, step = work.pop()
            if node not in index:
                index[node] = low[node] = len(index)
                stack.append(node)
                on_stack[node] = True
            for place in range(step, len(dependencies[node])):
                other = dependencies[node][place]
                if other not in index:
                    work += [(node, place), (other, 0)]
                    break
                if on_stack[other]:
                    low[node] = min(low[node], low[other])
            else:
                if low[node] == index[node]:
                    start = stack.index(node)
                    found.append(stack[start:])
                    on_stack.update(dict.fromkeys(stack[start:], False))
                    del stack[start:]
    return found
