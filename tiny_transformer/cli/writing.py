"""Letting a trained model write: load it with its history, apply strategies, show and measure what comes out.

Used by generate, chat and demo. Read before: sampling/generator.py, measures.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tiny_transformer.cli.engines import Engine, engine
from tiny_transformer.cli.screen import Screen, sample_panel, table
from tiny_transformer.cli.texts import choose_prompt, training_text
from tiny_transformer.config import SAMPLING_PRESETS, SampleConfig, check
from tiny_transformer.numpy_engine.checkpoint import QUANTIZED
from tiny_transformer.run import Run, resolve, tokenizer_of
from tiny_transformer.sampling.measures import distinct_n, longest_overlap, repeated_share
from tiny_transformer.tokenization.base import Tokenizer

Strategy = tuple[str, SampleConfig]
Written = tuple[str, SampleConfig, str]
"""(name of the strategy, its settings, the text with its prompt)."""

SIDE_BY_SIDE = 126
"""Columns a terminal needs to show three samples beside each other."""


@dataclass
class Writer:
    """A trained model that can write, and what is known about where it comes from."""

    path: Path
    engine: Engine
    model: Any
    tokenizer: Tokenizer
    step: int
    metrics: Mapping[str, Any]
    record: Mapping[str, Any]
    drafted: Any = None
    """The generator with a draft (`drafts.py`), where one is used."""
    bits: int | None = None
    """Of its linear layers' weights, where they were rounded."""
    lineage: Mapping[str, Any] = field(default_factory=dict)
    """Where the checkpoint comes from."""
    _text: str | None = None
    _looked: bool = False

    @property
    def generator(self) -> Any:
        """The engine's TextGenerator, or the one with a draft: one for everything."""
        return self.drafted or self.engine.generator(self.model, self.tokenizer)

    @property
    def training_text(self) -> str | None:
        """The text it learned from, looked for once; None when it can't be had."""
        if not self._looked:
            self._text, self._looked = training_text(self.record), True
        return self._text

    def prompt(self, wanted: str | None) -> str:
        """The wanted prompt, or the one this run was shown with. Raises ValueError for characters that the model does not know."""
        return choose_prompt(self.record.get("prompt") if wanted is None else wanted, "", self.tokenizer, "\n")

    def describe(self) -> str:
        """The model in one line."""
        loss = self.metrics.get("best_val_loss", self.metrics.get("val_loss"))
        about = "" if loss is None else f", validation loss {loss:.3f}{'' if self.bits is None else ' before rounding'}"
        rounded = "" if self.bits is None else f", weights in {self.bits} bits"
        return f"{self.path} ({self.model.config.n_parameters / 1e6:.2f} M parameters{rounded}, step {self.step:,}{about})"


def open_writer(path: str, engine_name: str = "torch", *, int8: bool = False) -> Writer:
    """The model at a run directory or checkpoint file, ready to write with an engine; with `int8` its weights are rounded to 8 bits.

    Raises ValueError naming what is wrong with the path or file.
    """
    check(not (int8 and engine_name == "numpy"), "--int8 with --engine numpy", "only PyTorch writes with rounded weights", "Leave one out")
    file = resolve(path)
    used = engine(engine_name)
    loaded = used.read(file)
    tokenizer = tokenizer_of(loaded)
    if not tokenizer:
        raise ValueError(f"{file} holds no tokenizer: writing needs one. Name a checkpoint made by tiny train")
    bits = loaded.lineage.get(QUANTIZED, {}).get("bits")
    check(not int8 or bits is None, f"--int8 with {file}", f"its weights are in {bits} bits already", "Leave it out")
    model = used.build(loaded)
    if int8:
        from tiny_transformer.quantized_layers import quantize_model

        model = quantize_model(model)
        bits = 8
    return Writer(file, used, model, tokenizer, loaded.step, loaded.metrics, _record_beside(file), bits=bits, lineage=loaded.lineage)


def _record_beside(file: Path) -> Mapping[str, Any]:
    try:
        return Run.open(file.parent).record
    except (ValueError, OSError):
        return {}


def moods(seed: int, max_tokens: int = 200) -> list[Strategy]:
    """Focused, balanced, creative, with one seed."""
    return [(name, replace(settings, seed=seed, max_tokens=max_tokens)) for name, settings in SAMPLING_PRESETS.items()]


def strategies(base: SampleConfig) -> list[Strategy]:
    """What `--compare` compares: each with the same seed and length."""
    plain = replace(base, temperature=1.0, top_k=None, top_p=None, min_p=None, repetition_penalty=1.0, beams=1)
    return [
        ("greedy", replace(plain, temperature=0.0)),
        *((name, replace(s, seed=base.seed, max_tokens=base.max_tokens, stop=base.stop)) for name, s in SAMPLING_PRESETS.items()),
        ("as learned", plain),
        ("top-p", replace(plain, top_p=0.9)),
        ("min-p", replace(plain, min_p=0.1)),
        ("beam search", replace(plain, beams=4)),
    ]


def settings_line(settings: SampleConfig) -> str:
    """Settings in a few words: what differs from plain sampling."""
    if settings.beams > 1:
        return f"{settings.beams} beams"
    if settings.temperature == 0:
        return "always the likeliest"
    filters = (("top-k", settings.top_k), ("top-p", settings.top_p), ("min-p", settings.min_p))
    parts = [f"temperature {settings.temperature:g}", *(f"{name} {value:g}" for name, value in filters if value)]
    return ", ".join(parts + ([f"repetition penalty {settings.repetition_penalty:g}"] if settings.repetition_penalty != 1 else []))


def write_all(generator: Any, prompt: str, chosen: Sequence[Strategy]) -> list[Written]:
    """One text per strategy."""
    return [(name, settings, generator.generate(prompt, settings)) for name, settings in chosen]


def show_strategies(screen: Screen, texts: Sequence[Written], prompt: str, source: str | None) -> None:
    """The texts, beside each other where the terminal is wide enough, and a table that measures them."""
    if screen.live and len(texts) == 3 and screen.console.width >= SIDE_BY_SIDE:
        _show_beside(screen, texts, prompt)
    else:
        for name, settings, text in texts:
            screen.sample(f"{name}: {settings_line(settings)}", text, prompt=prompt)
    screen.say(measures_table(texts, prompt, source))
    if source is None:
        screen.say("the training text can't be had here, so copying from it is not measured", style="dim")


def _show_beside(screen: Screen, texts: Sequence[Written], prompt: str) -> None:
    from rich.table import Table

    grid = Table.grid(expand=True, padding=(0, 1))
    for _ in texts:
        grid.add_column(ratio=1)
    grid.add_row(*(sample_panel(f"{name}: {settings_line(settings)}", text, prompt=prompt) for name, settings, text in texts))
    screen.say(grid)


def measures_table(texts: Sequence[Written], prompt: str, source: str | None) -> Any:
    """Variety (words, pairs of words), repetition (runs of 8 characters) and copying of each text, its prompt left out."""
    made = table("strategy", "distinct-1", "distinct-2", "repeated 8-grams", "longest copy", "word for word")
    for name, _, text in texts:
        new = text.removeprefix(prompt)
        variety = (distinct_n(new.split(), 1), distinct_n(new.split(), 2), repeated_share(new, 8))
        made.add_row(name, *(f"{share:.0%}" for share in variety), *_copied(new, source))
    return made


def measures(text: str, source: str | None) -> dict[str, Any]:
    """The same for programs."""
    words, copied = text.split(), None if source is None else longest_overlap(text, source).text
    return {"distinct_1": distinct_n(words, 1), "distinct_2": distinct_n(words, 2), "repeated_8": repeated_share(text, 8), "copied": copied}


def _copied(text: str, source: str | None) -> tuple[str, str]:
    if source is None:
        return "–", "–"
    found = longest_overlap(text, source)
    return str(found.length), repr(found.text if found.length <= 28 else found.text[:27] + "…")


def gallery(
    generator: Any, prompts: Sequence[str], settings: SampleConfig, n: int, at_once: int = 16
) -> Iterator[tuple[int, str, str]]:
    """`n` samples as (seed, prompt, text), prompts in turn; sample i has the seed `settings.seed + i` and can be made again alone."""
    first = settings.seed or 0
    rows = [(first + i, prompts[i % len(prompts)]) for i in range(n)]
    for start in range(0, n, at_once):
        part = rows[start : start + at_once]
        texts = generator.generate_batch([prompt for _, prompt in part], replace(settings, seed=part[0][0]))
        yield from ((seed, prompt, text) for (seed, prompt), text in zip(part, texts, strict=True))
