"""The runs that the law behind `--minutes` is fitted to: which they are, how one is made, and the file that keeps them.

Every run is a training of its own, from nothing, with its learning rate decayed to the end of its own time: a loss read off the middle of
a longer run would be too high (Hoffmann et al. 2022, section 3.1). Left out: the law (training/loss_law.py), the commands (law.py).
Read before: training/loss_law.py, training/size_choice.py.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiny_transformer import hardware
from tiny_transformer.cli.engines import engine
from tiny_transformer.cli.material import Material, gather
from tiny_transformer.cli.minutes import COUNTED_TRAIN, COUNTED_VAL
from tiny_transformer.cli.noise import Noise
from tiny_transformer.config import ModelConfig, check
from tiny_transformer.corpora.counting_loss import ngram_loss
from tiny_transformer.recipes import Recipe, recipe
from tiny_transformer.training import loss_law
from tiny_transformer.training.loss_law import Law, Point
from tiny_transformer.training.size_choice import LEAST_STEPS, Candidate, block_parameters, resized
from tiny_transformer.utils.atomic import atomic_save

HOME_TEXT = "shakespeare"
"""The text whose losses the law is about; runs on others show how far it carries."""
LEARNING_SHARE = 0.85
"""Of the time that measuring is given; the rest is for the loss over the whole validation text after each run."""


PIECE = 20_000
"""Tokens from whose beginning a part of the text takes its share each time."""


class Cell(NamedTuple):
    """One run of the grid: sizes, and its part of the time."""

    d_model: int
    n_layers: int
    max_seq_len: int
    batch_size: int
    weight: float
    part: float = 1.0
    """Share of the training text that it may see: less of it comes round more often."""


GRID = (
    # five sizes for two or three times each: what size and tokens are worth
    Cell(128, 4, 128, 16, 12), Cell(64, 2, 128, 16, 8), Cell(192, 4, 128, 16, 20), Cell(128, 4, 128, 16, 25), Cell(256, 5, 128, 16, 30),
    Cell(96, 3, 128, 16, 12), Cell(128, 4, 128, 16, 50), Cell(64, 2, 128, 16, 20), Cell(192, 4, 128, 16, 45), Cell(96, 3, 128, 16, 30),
    Cell(256, 5, 128, 16, 65),
    # the middle size in other batches and contexts
    Cell(128, 4, 128, 4, 25), Cell(128, 4, 128, 64, 25), Cell(128, 4, 64, 32, 25), Cell(128, 4, 256, 8, 25),
    # a part of the text only, read over and over: what repeats are worth
    Cell(96, 3, 128, 16, 30, part=0.1),
)  # fmt: skip
"""In an order that lets a part of it speak for all sizes."""


@dataclass(frozen=True)
class Setting:
    """Everything that a measurement shares."""

    base: Recipe
    corpus: str
    minutes: float
    engine: str = "torch"
    gflops: float | None = None
    """With it a run gets the steps that its time is worth at so many 10⁹ operations a second, however long they take."""

    def cells(self) -> Iterator[tuple[Cell, float]]:
        """Each run of the grid with its seconds."""
        total = sum(cell.weight for cell in GRID)
        for cell in GRID:
            yield cell, round(LEARNING_SHARE * 60 * self.minutes * cell.weight / total, 1)


def measure(
    content: dict[str, Any], setting: Setting, save: Callable[[], None], say: Callable[[str], None], most: int | None = None
) -> int:
    """Make the runs of the grid that `content` does not hold yet, at most so many, saving after each; returns how many were made."""
    material, _ = gather(replace(setting.base.data, corpus=setting.corpus, data=None), Noise(), setting.base.training.seed)
    if setting.corpus not in content["yardsticks"]:
        train, val = material.train_ids[:COUNTED_TRAIN], material.val_ids[:COUNTED_VAL]
        content["yardsticks"][setting.corpus] = round(ngram_loss(train, val, material.tokenizer.vocab_size), 5)
    made = 0
    for cell, seconds in setting.cells():
        if made == most or any(_is_of(run, cell, seconds, setting) for run in content["runs"]):
            continue
        run = one_run(cell, seconds, setting, material)
        content["runs"].append(run)
        save()
        made += 1
        say(f"{line_of(run)}  ({sum(_is_of(run, *c, setting) for run in content['runs'] for c in setting.cells())} of {len(GRID)})")
    return made


def one_run(cell: Cell, seconds: float, setting: Setting, material: Material, *, compiled: bool = False) -> dict[str, Any]:
    """Train one model of the grid for `seconds`; returns what the file keeps of it."""
    used, base = engine(setting.engine), setting.base
    model = _model(cell, base.model, material)
    train_ids = part_of(np.asarray(material.train_ids), cell.part)
    length: dict[str, Any] = {"minutes": seconds / 60}
    if setting.gflops is not None:
        length = {"max_steps": max(1, round(seconds * 1e9 * setting.gflops / Candidate(model, cell.batch_size).flop))}
    training = replace(
        base.training, **length, batch_size=cell.batch_size, accumulate=1, patience=None, compile=compiled,
        learning_rate=base.training.learning_rate * base.model.d_model / cell.d_model, eval_every=10**9, eval_tokens=1000, save_every=10**9,
    )  # fmt: skip
    trainer = used.trainer(used.new_model(model, training.seed), material.tokenizer, train_ids, material.val_ids, training)
    result = trainer.fit()
    if result.signal is not None:
        raise KeyboardInterrupt
    found = hardware.detect(look_for_gpu=setting.engine == "torch")
    before = None if trainer.budget is None else round(trainer.budget.used - trainer.budget.learned, 2)
    return {
        "recipe": base.name, "engine": setting.engine, "corpus": setting.corpus, "d_model": cell.d_model, "n_layers": cell.n_layers,
        "max_seq_len": cell.max_seq_len, "batch_size": cell.batch_size, "part": cell.part, "parameters": block_parameters(model),
        "tokens": result.steps * cell.batch_size * cell.max_seq_len, "unique": len(train_ids), "val_loss": round(result.final_val_loss, 5),
        "steps": result.steps, "seconds": round(seconds, 1), "gflops": setting.gflops, "tokens_per_second": round(result.tokens_per_second),
        "before_learning": before, "date": date.today().isoformat(), "hardware": hardware.describe(found),
        "command": " ".join(["tiny", *sys.argv[1:]]),
    }  # fmt: skip


def part_of(ids: NDArray[np.integer[Any]], part: float) -> NDArray[np.integer[Any]]:
    """A share of a text in pieces from all over it: its beginning alone may be unlike the rest (one play of many)."""
    if part >= 1:
        return ids
    piece = min(PIECE, max(1, len(ids) // 20))
    return np.concatenate([ids[start : start + max(1, int(part * piece))] for start in range(0, len(ids), piece)])


def measure_compiling(content: dict[str, Any], setting: Setting) -> dict[str, float]:
    """How many times faster compiled steps of the middle size are, and how long compiling takes; kept in `content`."""
    material, _ = gather(replace(setting.base.data, corpus=setting.corpus, data=None), Noise(), setting.base.training.seed)
    cell = next(cell for cell in GRID if cell.d_model == 128)
    setting = replace(setting, gflops=None)
    plain = one_run(cell, 6, setting, material)
    compiled = one_run(cell, max(90.0, 10 * plain["before_learning"]), setting, material, compiled=True)
    gain = compiled["tokens_per_second"] / plain["tokens_per_second"]  # the first step, which compiles, is counted: a lower bound
    found = {"gain": round(gain, 3), "seconds": round(compiled["before_learning"] - plain["before_learning"], 1)}
    content["compiling"][setting.base.name] = found
    return found


def _model(cell: Cell, base: ModelConfig, material: Material) -> ModelConfig:
    heads = max(1, cell.d_model // base.head_width)
    model = resized(base, cell.d_model, cell.n_layers, heads, cell.max_seq_len)
    return replace(model, vocab_size=material.tokenizer.vocab_size)


def _is_of(run: dict[str, Any], cell: Cell, seconds: float, setting: Setting) -> bool:
    names = ("d_model", "n_layers", "max_seq_len", "batch_size", "part", "seconds", "gflops", "recipe", "corpus", "engine")
    wanted = (*cell[:4], cell.part, seconds, setting.gflops, setting.base.name, setting.corpus, setting.engine)
    return tuple(run[name] for name in names) == wanted


# --- from runs to laws ------------------------------------------------------------------------------------------------


def point_of(run: dict[str, Any]) -> Point:
    """What the law looks at in a run."""
    return Point(
        parameters=run["parameters"], tokens=run["tokens"], context=run["max_seq_len"], batch=run["batch_size"] * run["max_seq_len"],
        unique=run["unique"],
    )  # fmt: skip


def runs_of(content: dict[str, Any], recipe_name: str, home: bool = True) -> list[dict[str, Any]]:
    """The runs of a recipe on the home text, or on all others; without those too short for their own warm-up."""
    own = [run for run in content["runs"] if run["recipe"] == recipe_name and run["steps"] >= LEAST_STEPS]
    return [run for run in own if (run["corpus"] == HOME_TEXT) == home]


def fit_all(content: dict[str, Any]) -> dict[str, Law]:
    """Fit a law for every recipe that has runs on the home text; they replace those in `content`."""
    names = dict.fromkeys(run["recipe"] for run in content["runs"] if run["corpus"] == HOME_TEXT)
    check(bool(names), "no runs to fit", f"a law needs runs on {HOME_TEXT}", "Measure some: tiny law measure")
    laws = {}
    for name in names:
        runs = runs_of(content, name)
        laws[name] = loss_law.fit([point_of(run) for run in runs], [run["val_loss"] for run in runs], content["yardsticks"][HOME_TEXT])
    content["laws"] = {name: law.to_dict() | {"fitted": date.today().isoformat()} for name, law in laws.items()}
    return laws


def line_of(run: dict[str, Any]) -> str:
    """A run in one line."""
    return (
        f"{run['n_layers']} × {run['d_model']:3}  context {run['max_seq_len']:3}  batch {run['batch_size']:3}  {run['seconds']:6.1f} s  "
        f"{run['tokens'] / 1e6:6.2f} M tokens ({run['tokens'] / run['unique']:4.1f} × the text)  loss {run['val_loss']:.4f}"
    )


def empty() -> dict[str, Any]:
    """A law file without runs."""
    return {"laws": {}, "yardsticks": {}, "compiling": {}, "runs": []}


def save_file(path: Path, content: dict[str, Any]) -> None:
    """Write a law file: one run a line, so that a difference can be read."""
    head = {key: value for key, value in content.items() if key != "runs"}
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda row: f"[{' '.join(row[1].split())}]", json.dumps(head, indent=1))  # a row in a line
    text = text.removesuffix("\n}") + ',\n "runs": [\n  '
    text += ",\n  ".join(json.dumps(run) for run in content["runs"]) + "\n ]\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_save(path, lambda file: file.writelines([text.encode()]))


def setting_of(recipe_name: str, corpus: str | None, minutes: float, engine_name: str, gflops: float | None = None) -> Setting:
    """What to measure, by the names of flags."""
    base = recipe(recipe_name)
    return Setting(base, corpus or base.data.corpus or HOME_TEXT, minutes, engine_name, gflops)


if __name__ == "__main__":
    for cell, seconds in setting_of("quick", None, 18, "torch").cells():
        model = resized(recipe("quick").model, cell.d_model, cell.n_layers, cell.d_model // 32, cell.max_seq_len)
        tokens = Candidate(model, cell.batch_size).step_tokens
        print(f"{seconds:6.1f} s  {tokens:6,} tokens a step  {block_parameters(model):9,} in the blocks  {cell.part:.0%} of the text")
