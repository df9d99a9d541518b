"""`tiny runs`: which runs there are, and how they compare. Read before: run.py."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tiny_transformer.cli.screen import Screen, table
from tiny_transformer.cli.settings import parse
from tiny_transformer.config import check

if TYPE_CHECKING:
    from tiny_transformer.run import Run

DESCRIPTION = """\
List the runs in a folder, best validation loss first.

  tiny runs
  tiny runs experiments --json
"""


@dataclass(frozen=True, kw_only=True)
class RunsSettings:
    """What `tiny runs` accepts."""

    folder: tyro.conf.Positional[str] = "checkpoints"
    """Where to look, subfolders included."""
    json: bool = False
    """Print one JSON list."""


def main(argv: list[str]) -> int:
    """Find, sort, show."""
    settings = parse(RunsSettings, argv, command="runs", description=DESCRIPTION)
    folder = Path(settings.folder)
    check(folder.is_dir(), f"there is no folder {folder}", "runs lie in a folder", "Name it: tiny runs FOLDER")
    from tiny_transformer.run import Run

    rows = sorted(map(summary, Run.find(folder)), key=lambda row: (row["val_loss"] is None, row["val_loss"] or 0.0, row["run"]))
    if settings.json:
        print(json.dumps(rows))
        return 0
    Screen().say(runs_table(rows) if rows else f"no runs in {folder}. Make one: tiny train --corpus shakespeare --out {folder}/first")
    return 0


def summary(run: "Run") -> dict[str, Any]:
    """A run as one row; None where something is not known."""
    metrics, record = _metrics(run), run.record
    losses = [line["val_loss"] for line in metrics if line.get("val_loss") is not None]
    return {
        "run": str(run.path),
        "corpus": record.get("corpus", {}).get("name"),
        "parameters": record.get("parameters"),
        "steps": max((int(line["step"]) for line in metrics), default=0),
        "max_steps": record.get("training", {}).get("max_steps"),
        "val_loss": min(losses, default=None),
        "final_val_loss": _last(metrics, "final_val_loss"),
        "tokens_per_second": _last(metrics, "tokens_per_second"),
        "started": {**record, **record.get("environment", {})}.get("started"),
    }


def _metrics(run: "Run") -> list[dict[str, Any]]:
    try:
        return run.metrics()
    except (ValueError, OSError):  # a damaged one must not hide the others
        return []


def _last(metrics: Sequence[Mapping[str, Any]], key: str) -> Any:
    return next((line[key] for line in reversed(metrics) if line.get(key) is not None), None)


def runs_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """The rows for people."""
    made = table("run", "text", "size", "steps", "validation", "whole text", "tokens/s", "started")
    for column in (made.columns[1], made.columns[-1]):  # in a narrow terminal a path may be folded, a name and a date not
        column.no_wrap = True
    for row in rows:
        steps = f"{row['steps']:,}" + (f" of {row['max_steps']:,}" if row["steps"] < (row["max_steps"] or 0) else "")
        size = "–" if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f} M"
        made.add_row(
            row["run"], row["corpus"] or "–", size, steps, _number(row["val_loss"], ".3f"), _number(row["final_val_loss"], ".3f"),
            _number(row["tokens_per_second"], ",.0f"), (row["started"] or "–")[:16].replace("T", " "),
        )  # fmt: skip
    return made


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
