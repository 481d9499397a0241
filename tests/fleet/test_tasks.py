"""How many users a worker is handed at once."""

from __future__ import annotations

import heapq

import pytest

from migration.fleet import cluster
from migration.fleet.coordinator import MOST_IN_TASK, users_in_task


@pytest.mark.parametrize(
    ("seconds", "left", "window", "size"),
    [
        (0.0, 10_000, 4, 1),  # nobody knows yet how long a user takes
        (0.001, 10_000, 4, MOST_IN_TASK),
        (0.1, 10_000, 4, 10),
        (30.0, 10_000, 4, 1),
        (0.001, 40, 4, 10),
        (0.001, 3, 4, 1),
        (0.001, 10_000, 0, MOST_IN_TASK),  # no worker is left
    ],
)
def test_quick_users_share_a_task(seconds: float, left: int, window: int, size: int) -> None:
    assert users_in_task(seconds, left, window) == size


@pytest.mark.parametrize("workers", [2, 3, 16])
@pytest.mark.parametrize("users", [5, 100, 1000])
def test_workers_end_together(workers: int, users: int) -> None:
    """No worker has users left to do for long while another has none."""
    seconds, window = 0.02, workers * (1 + cluster.AHEAD)
    busy_until, left = [0.0] * workers, users
    ends = [(0.0, worker) for worker in range(workers)] * (
        1 + cluster.AHEAD
    )  # of tasks: its worker gets the next
    while left:
        now, worker = heapq.heappop(ends)
        size = min(left, users_in_task(seconds, left, window))
        left -= size
        busy_until[worker] = max(now, busy_until[worker]) + size * seconds
        heapq.heappush(ends, (busy_until[worker], worker))
    assert max(busy_until) - min(busy_until) <= 2 * seconds
