"""What was measured, as a page of tables and a plot."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Callable, Iterator, Mapping, NamedTuple, Optional, Sequence

from benchmarks.measure import Usage
from benchmarks.peers import FLOOR, OTHERS, OURS, Peer

FOLDER = Path(__file__).resolve().parent / "results"
PAGE = "results.md"
PLOT = "results.svg"
README = FOLDER.parent / "README.md"
BEGIN, END = "<!-- the newest results -->\n", "<!-- end of the newest results -->\n"

PHASES = ("export", "import", "validate", "migrate")
COLORS = {OURS: "#2a6f97", OTHERS: "#b0b0b0", FLOOR: "#e0c080"}


@dataclass(frozen=True)
class Result:
    """The runs of a peer, or the word that says why there are none."""

    peer: Peer
    version: Optional[str]
    runs: Sequence[Usage]
    skipped: Optional[str]

    @property
    def best(self) -> Usage:
        """The quickest run; its memory that of the run which took most."""
        quickest = min(self.runs, key=lambda run: run.wall_s)
        return quickest._replace(peak_mb=max(run.peak_mb for run in self.runs))

    @property
    def failed(self) -> bool:
        return self.version is not None and not self.runs

    @property
    def summary(self) -> str:
        if self.skipped is not None:
            return self.skipped
        best = self.best
        return f"{best.wall_s:8.2f} s {best.cpu_s:8.2f} s CPU {best.peak_mb:6.0f} MB"


@dataclass(frozen=True)
class Scale:
    """The results at one size of the data, None for what has none; ``server`` is PostgreSQL with its version."""

    size: Optional[float]
    server: str
    rows: Mapping[str, int]
    results: Sequence[Result]

    def best(self, name: str) -> Optional[Usage]:
        return next((r.best for r in self.results if r.peer.name == name and r.runs), None)

    @property
    def title(self) -> str:
        return "small" if self.size is None else f"scale {self.size:g}"


class Target(NamedTuple):
    """A number that should not be above ``bound``. ``value`` is given a scale and all of them, and returns None
    where what it takes was not measured.
    """

    what: str
    bound: float
    unit: str
    value: Callable[[Scale, Sequence[Scale]], Optional[float]]


def _ratio(name: str, other: str) -> Callable[[Scale, Sequence[Scale]], Optional[float]]:
    def value(scale: Scale, _: Sequence[Scale]) -> Optional[float]:
        this, that = scale.best(name), scale.best(other)
        return None if this is None or that is None else this.wall_s / that.wall_s

    return value


def _peak(scale: Scale, _: Sequence[Scale]) -> Optional[float]:
    return max((best.peak_mb for best in map(scale.best, PHASES) if best is not None), default=None)


def _growth(scale: Scale, scales: Sequence[Scale]) -> Optional[float]:
    """Time for a row against that at the smallest scale: 1 is linear."""
    smallest = next(each for each in scales if each.size is not None or each is scale)
    this, that = scale.best("migrate"), smallest.best("migrate")
    if scale is smallest or this is None or that is None:
        return None
    return (this.wall_s / sum(scale.rows.values())) / (that.wall_s / sum(smallest.rows.values()))


def _seconds(name: str) -> Callable[[Scale, Sequence[Scale]], Optional[float]]:
    def value(scale: Scale, _: Sequence[Scale]) -> Optional[float]:
        best = scale.best(name)
        return None if best is None else best.wall_s

    return value


TARGETS = (
    Target("migrate / duckdb-same", 0.75, "×", _ratio("migrate", "duckdb-same")),
    Target("export / copy", 2.5, "×", _ratio("export", "copy")),
    Target("peak memory of every phase", 100, " MB", _peak),
    Target("migrate, time for a row / that at the smallest scale", 1.2, "×", _growth),
    Target("sample", 0.5, " s", _seconds("sample")),
    Target("help", 0.15, " s", _seconds("help")),
)


def write(scales: Sequence[Scale], folder: Path) -> None:
    """Write page and plot to ``folder``; the newest in the usual place go to the README too."""
    folder.mkdir(parents=True, exist_ok=True)
    scaled = [scale for scale in scales if scale.size is not None]
    page = "\n".join(_page(scales)) + "\n"
    drawn = scaled and _plot(scaled, folder / PLOT)
    picture = f"\n![wall time and peak memory, by scale]({PLOT})\n" if drawn else ""
    (folder / PAGE).write_text("# Results\n\n" + page + picture, encoding="utf-8")
    if folder.resolve() == FOLDER:
        before, rest = README.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        README.write_text(f"{before}{BEGIN}\n{page}\n{END}{after}", encoding="utf-8")


def _page(scales: Sequence[Scale]) -> Iterator[str]:
    yield f"{date.today()}, {machine()}."
    versions = {r.version: None for scale in scales for r in scale.results if r.version is not None}
    servers = {scale.server: None for scale in scales}
    yield f"Versions: {', '.join([*servers, *versions])}."
    yield ""
    yield from _table(scales)
    yield ""
    yield from _targets(scales)


def _targets(scales: Sequence[Scale]) -> Iterator[str]:
    for target in TARGETS:
        values = {scale.title: target.value(scale, scales) for scale in scales}
        held = ", ".join(
            f"{_held(target, value)} ({title})" for title, value in values.items() if value is not None
        )
        if held:
            yield f"- {target.what}, at most {target.bound:g}{target.unit}: {held}"


def _held(target: Target, value: float) -> str:
    return f"{value:.3g}{target.unit} {'✓' if value <= target.bound else '✗'}"


def _table(scales: Sequence[Scale]) -> Iterator[str]:
    rows = [sum(scale.rows.values()) for scale in scales]
    heads = [f"{scale.title}{f': {count:,} rows' if count else ''}" for scale, count in zip(scales, rows)]
    yield f"| | what it does | what it does not | {' | '.join(heads)} |"
    yield f"|---|---|---|{'---:|' * len(scales)}"
    peers = {result.peer.name: result.peer for scale in scales for result in scale.results}
    for name, peer in peers.items():
        yield f"| {name} | {peer.what} | {peer.lacks} | {' | '.join(_cell(scale, name) for scale in scales)} |"


def _cell(scale: Scale, name: str) -> str:
    result = next((result for result in scale.results if result.peer.name == name), None)
    if result is None:
        return ""
    if result.skipped is not None:
        return result.skipped.replace("|", " ")
    best = result.best
    return f"{best.wall_s:.2f} s, {best.cpu_s:.2f} s, {best.peak_mb:.0f} MB"


def machine() -> str:
    """Cores, memory, processor and kernel; no name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    kernel = platform.release().split("-")[0]
    return f"{os.cpu_count()} cores, {memory:.0f} GB, {_processor()}, {platform.system()} {kernel}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _plot(scales: Sequence[Scale], path: Path) -> bool:
    """Draw wall time and memory of each scale; False where matplotlib is missing."""
    try:
        import matplotlib  # type: ignore[import-not-found, unused-ignore]
        from matplotlib.figure import Figure  # type: ignore[import-not-found, unused-ignore]
        from matplotlib.patches import Patch  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        print("no plot: matplotlib is not installed")
        return False
    matplotlib.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 8})
    figure = Figure(figsize=(10, 3.2 * len(scales)), layout="constrained")
    axes = figure.subplots(len(scales), 2, squeeze=False)
    kinds = [Patch(color=color, label=kind) for kind, color in COLORS.items()]
    figure.legend(handles=kinds, loc="outside upper right", ncols=len(kinds), frameon=False)
    for (time, memory), scale in zip(axes, scales):
        results = [result for result in scale.results if result.runs][::-1]
        names = [result.peer.name for result in results]
        colors = [COLORS[result.peer.kind] for result in results]
        for axis, values, form in (
            (time, [result.best.wall_s for result in results], "{:,.2f} s"),
            (memory, [result.best.peak_mb for result in results], "{:,.0f} MB"),
        ):
            bars = axis.barh(names, values, color=colors)
            axis.bar_label(bars, [form.format(value) for value in values], padding=3)
            axis.margins(x=0.15)
            axis.spines[["top", "right"]].set_visible(False)
        time.set_title(f"{scale.title}: wall time, s")
        memory.set_title(f"{scale.title}: peak memory, MB")
    figure.savefig(str(path), metadata={"Date": None})
    return True
