"""history.jsonl read back: runs, and for each comparison its line through time.

Old lines lack what later ones have, and some comparisons have changed their names since: both are made good here.
Leaves out: the page and the picture (`report.py`, `picture.py`). Read before: `harness.py`, `catalogue.py`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmarks.catalogue import RENAMED, group_of
from benchmarks.harness import HISTORY, Result
from benchmarks.watch import BUSY

LOAD = 0.5
"""The load average above which runs that did not watch the others count as disturbed."""


@dataclass(frozen=True)
class Run:
    """One line of the history."""

    number: int
    date: str
    commit: str
    processor: str
    cores: int | None
    threads: int | None
    gpu: str
    load: float | None
    others: float | None
    """Others' share of the machine before the first measurement; None in runs that did not look."""
    versions: Mapping[str, str]
    seconds: Mapping[str, float]
    """What each benchmark took."""
    results: tuple[Result, ...] = field(repr=False, default=())

    @property
    def day(self) -> str:
        """The date without the time."""
        return self.date[:10]

    @property
    def hardware(self) -> str:
        """Processor and cores in a few words."""
        return f"{self.processor}, {self.cores} cores" if self.cores else self.processor


@dataclass(frozen=True)
class Point:
    """A comparison in one run."""

    run: Run
    result: Result

    @property
    def is_disturbed(self) -> bool:
        """Whether others used the machine meanwhile; from runs that did not watch, whether the load was high before."""
        if self.result.others is not None:
            return self.result.others > BUSY
        return self.run.others is None and (self.run.load or 0) > LOAD and not self.run.gpu

    @property
    def hardware(self) -> str:
        """What it was measured on: a GPU's figures are the GPU's."""
        return self.run.gpu if self.result.group == "gpu" else self.run.hardware


def read(path: Path = HISTORY, renamed: Mapping[str, str | None] = RENAMED) -> list[Run]:
    """All runs, oldest first. Raises ValueError that names a line which is no record."""
    runs = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            runs.append((record["date"], number, record))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path.name}, line {number}: {error!r}: it must be one JSON object with a date. Mend or delete it") from None
    return [_run(place, record, renamed) for place, (_, _, record) in enumerate(sorted(runs, key=lambda run: run[:2]), 1)]


def _run(number: int, record: Mapping[str, Any], renamed: Mapping[str, str | None]) -> Run:
    results = []
    for found in record.get("results", ()):
        name = renamed.get(found["name"], found["name"])
        if name is not None:
            known = {entry.name: found[entry.name] for entry in fields(Result) if entry.name in found}
            results.append(Result(**(known | {"name": name, "group": group_of(name, found.get("group", ""))})))
    return Run(
        number, record["date"], record.get("commit", ""), record.get("processor", "an unknown processor"), record.get("cores"),
        record.get("threads"), record.get("gpu", ""), record.get("load"), record.get("others_before"),
        {name: record[name] for name in ("python", "torch", "transformers") if record.get(name)}, record.get("seconds", {}), tuple(results),
    )  # fmt: skip


def lines(runs: Iterable[Run], first: Iterable[str] = ()) -> dict[str, dict[str, list[Point]]]:
    """group → comparison → its points, oldest first. The groups named in `first` come first, gpu last.

    Where one name was measured beside several peers, each is a comparison of its own, named with its peer.
    """
    runs = list(runs)
    peers: dict[str, set[str]] = {}
    for result in (result for run in runs for result in run.results):
        peers.setdefault(result.name, set()).add(result.peer_name)
    found: dict[str, dict[str, list[Point]]] = {}
    for run in runs:
        for result in run.results:
            name = result.name if len(peers[result.name]) == 1 else f"{result.name}, beside {result.peer_name}"
            found.setdefault(result.group, {}).setdefault(name, []).append(Point(run, result))
    order = [*first, *sorted(found), "gpu"]
    place = {group: index for index, group in reversed(list(enumerate(order)))} | {"gpu": len(order)}
    return dict(sorted(found.items(), key=lambda item: place[item[0]]))


if __name__ == "__main__":
    for group, comparisons in lines(read()).items():
        print(group)
        for name, points in comparisons.items():
            print(f"  {name:46} {' → '.join(f'{point.result.ratio:.2f}' for point in points)}")
