"""Three bugs that turn an honest loss of 4.6 into 0.384, each reproduced, and the check that would have caught it.

    python examples/honest_loss.py                                        the table
    python examples/honest_loss.py --figure docs/images/honest_loss.svg   and the drawing
    python examples/honest_loss.py --text data/valid.txt                  and what padding would do to the lines of that text

The text is one that nobody can predict: 100 words, each equally likely, whatever came before. Its entropy is exactly ln 100 = 4.605
nats per word, so a smaller loss is wrong, whoever reports it. docs/honest_loss.md tells the story. Read before: docs/honest_loss.md.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

try:
    import torch
    from torch import Tensor

    from tiny_transformer import corpora
    from tiny_transformer.cli.main import explain, fail
    from tiny_transformer.config import ModelConfig, check
    from tiny_transformer.corpora.text_statistics import overlap
    from tiny_transformer.evaluation.future_leak import future_leak
    from tiny_transformer.model import TinyTransformerLM
    from tiny_transformer.training.dataset import IGNORE
    from tiny_transformer.training.objectives import cross_entropy
    from tiny_transformer.training.utils import clip_gradients, evaluating
except ModuleNotFoundError:
    sys.exit("examples/honest_loss.py: the package is not installed. Run: pip install -e .")

WORDS, CLAIMED = 100, 0.384
ENTROPY = math.log(WORDS)
PAD = WORDS
"""One more id, for the filling behind a line."""
CONTEXT, BATCH, EVERY = 16, 32, 10


class ShiftedMask(TinyTransformerLM):
    """Bug two: the triangle of the mask begins one place too far to the right, so that each position sees its target."""

    def hidden(self, ids: Tensor, mask: Tensor | None = None, **more: object) -> Tensor:
        """The model's own, but for the mask."""
        shifted = torch.ones(ids.size(1), ids.size(1), dtype=torch.bool).tril(1)  # right: tril(0)
        return super().hidden(ids, shifted, **more)


@dataclass
class Story:
    """How one pipeline came to its number."""

    name: str
    reported: list[tuple[int, float]] = field(default_factory=list)
    """(steps, the validation loss that it reports)."""
    honest: float = math.nan
    """The same model, measured rightly."""
    caught: str = ""
    """What a check says about it."""

    @property
    def loss(self) -> float:
        """What it reports in the end."""
        return self.reported[-1][1]


def unpredictable(n: int, seed: int) -> np.ndarray:
    """`n` words, each drawn for itself: (n,)."""
    return np.random.default_rng(seed).integers(WORDS, size=n)


def new_model(context: int = CONTEXT, kind: type[TinyTransformerLM] = TinyTransformerLM, causal: bool = True) -> TinyTransformerLM:
    """A small model for the words and the padding."""
    return kind(ModelConfig(vocab_size=WORDS + 1, max_seq_len=context, d_model=64, n_layers=2, n_heads=4, causal=causal), seed=0)


def windows(ids: np.ndarray, stride: int, context: int = CONTEXT) -> Tensor:
    """Windows of context + 1 words that begin `stride` words apart: (n, context + 1)."""
    return torch.from_numpy(np.lib.stride_tricks.sliding_window_view(ids, context + 1)[::stride].copy())


def loss_of(model: TinyTransformerLM, rows: Tensor, ignore: int | None = None) -> Tensor:
    """Mean loss of predicting each word of a row from those before it; targets equal to `ignore` are not asked for."""
    targets = rows[:, 1:] if ignore is None else rows[:, 1:].masked_fill(rows[:, 1:] == ignore, IGNORE)
    return cross_entropy(model(rows[:, :-1]), targets)


def measure(model: TinyTransformerLM, rows: Tensor, ignore: int | None = None) -> float:
    """The same, for a validation text."""
    with evaluating(model):
        return float(loss_of(model, rows, ignore))


def learn(
    model: TinyTransformerLM, rows: Tensor, report: Callable[[], float], steps: int, ignore: int | None = None
) -> Iterator[tuple[int, float]]:
    """Train on batches of `rows`, and report now and then: (step, loss), until the claimed loss is reached."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    draw = np.random.default_rng(0)
    for step in range(steps + 1):
        if step % EVERY == 0:
            reported = report()
            yield step, reported
            if reported <= CLAIMED:
                return
        model.train()
        optimizer.zero_grad()
        loss_of(model, rows[draw.integers(len(rows), size=BATCH)], ignore).backward()
        clip_gradients(model.parameters(), 1.0)
        optimizer.step()


def honest(steps: int = 100) -> Story:
    """No bug: another part of the text is measured, every word of it once."""
    story, model, words = Story("no bug"), new_model(), 400 * CONTEXT
    train, val = windows(unpredictable(40_000, 1), 1), windows(unpredictable(words + 1, 2), CONTEXT)
    story.reported = list(learn(model, train, lambda: measure(model, val), steps))
    story.honest = story.loss
    leak = future_leak(model.eval(), WORDS, CONTEXT)
    story.caught = f"{val[:, 1:].numel():,} targets for {words:,} words; {leak or 'no place sees its future'}"
    return story


def padded(steps: int = 400) -> Story:
    """Bug one: each line is a row, filled up to one width, and the filling counts as targets. It is easy to predict."""
    lengths = np.random.default_rng(3).integers(5, 14, size=1200)
    width = width_for(lengths)
    story, model = Story("padding counted"), new_model(context=width - 1)
    rows = torch.full((len(lengths), width), PAD)
    rows[torch.arange(width) < torch.from_numpy(lengths)[:, None]] = torch.from_numpy(unpredictable(int(lengths.sum()), 4))
    train, val = rows[:1000], rows[1000:]
    story.reported = list(learn(model, train, lambda: measure(model, val), steps))
    story.honest = measure(model, val, ignore=PAD)
    asked, words = val[:, 1:].numel(), int((val[:, 1:] != PAD).sum())
    story.caught = f"{asked:,} targets for {words:,} words"
    return story


def width_for(lengths: np.ndarray, loss: float = ENTROPY, claimed: float = CLAIMED, room: float = 0.95) -> int:
    """The width to fill lines of so many words up to, so that `loss` nats per word look like `claimed` nats per target.

    The filling is taken to cost nothing, and `room` leaves a twentieth for what it does cost: where a line ends is a surprise.
    """
    asked = float(np.maximum(lengths - 1, 0).mean())  # a line's first word is asked for by nobody
    return 1 + math.ceil(asked * loss / (claimed * room))


def shifted(steps: int = 600) -> Story:
    """Bug two: see ShiftedMask."""
    story, model = Story("mask shifted by one"), new_model(kind=ShiftedMask, causal=False)
    train, val = windows(unpredictable(40_000, 1), 1), windows(unpredictable(200 * CONTEXT + 1, 2), CONTEXT)
    story.reported = list(learn(model, train, lambda: measure(model, val), steps))
    righted = TinyTransformerLM(replace(model.config, causal=True), weights=model.weights())
    story.honest = measure(righted, val)
    story.caught = str(future_leak(model.eval(), WORDS, CONTEXT))
    return story


def overlapping(steps: int = 600) -> Story:
    """Bug three: windows that overlap are shuffled first and divided afterwards, so that all of the validation text is trained on."""
    story, context = Story("windows shuffled, then split"), 48  # a window's first words can't be known: there must be others
    model, rows = new_model(context), windows(unpredictable(600, 5), 2, context)
    rows = rows[torch.from_numpy(np.random.default_rng(6).permutation(len(rows)))]
    train, val = rows[len(rows) // 10 :], rows[: len(rows) // 10]
    story.reported = list(learn(model, train, lambda: measure(model, val), steps))
    story.honest = measure(model, windows(unpredictable(70 * context + 1, 2), context, context))
    story.caught = str(overlap(spell(train), spell(val), n=12))
    return story


def spell(rows: Tensor) -> str:
    """Rows of ids as a text: each word two letters, so that a window of 12 characters is six words."""
    return "\n".join("".join(f"{word:02d}" for word in row) for row in rows.tolist())


STORIES: tuple[Callable[[], Story], ...] = (honest, padded, shifted, overlapping)


def show(stories: list[Story]) -> None:
    """The table."""
    print(f"{WORDS} words that nobody can predict, equally likely. Entropy ln {WORDS} = {ENTROPY:.3f} nats: no honest loss is below.\n")
    print(f"{'pipeline':30} {'reports':>8} {'after':>11} {'same model, measured rightly':>30}")
    for story in stories:
        print(f"{story.name:30} {story.loss:8.3f} {story.reported[-1][0]:5} steps {story.honest:30.3f}")
    print("\nWhat a check says:")
    for story in stories:
        print(f"  {story.name}: {story.caught}")


def about_lines(text: str) -> str:
    """What padding would do to the lines of a text of words."""
    lengths = np.array([len(line.split()) + 1 for line in text.splitlines() if line.strip()])  # and the line end
    check(len(lengths) > 0, "a text without words", "it must have lines to fill up", "Name another file")
    asked = float(np.maximum(lengths - 1, 0).mean())
    usual = ", ".join(f"{width}: {asked * 4.6 / (width - 1):.3f}" for width in (int(lengths.max()), 512, 1024))
    enough = width_for(lengths, 4.6, room=1.0)
    return (
        f"{len(lengths):,} lines of {lengths.mean():.1f} words, the longest of {lengths.max()}. Filled up to {enough}, "
        f"an honest 4.6 is reported as {CLAIMED}; by other widths, {usual}"
    )


# --- the drawing ------------------------------------------------------------------------------------------------------

COLOURS = {"paper": ("#ffffff", "#161b22"), "ink": ("#22223b", "#e8e8f2"), "soft": ("#5b6078", "#a9b0c2"), "grid": ("#d9dbe3", "#333b49")}
LINES = (("#1f6390", "#7cc0e8"), ("#b83c08", "#ff8f61"), ("#6f4aa8", "#b99bea"), ("#2c7a3f", "#7fd494"))
"""Of each story, on light and on dark ground."""
LEFT, RIGHT, TOP, BOTTOM = 60, 700, 50, 340


def drawing(stories: list[Story]) -> str:
    """What each pipeline reports, step by step, as an SVG whose colours follow the reader's light or dark mode."""
    last = max(story.reported[-1][0] for story in stories)

    def at(step: float, loss: float) -> tuple[float, float]:
        return LEFT + step / last * (RIGHT - LEFT), BOTTOM - loss / 5 * (BOTTOM - TOP)

    parts = [f'<text class="name" x="{LEFT}" y="28">validation loss as reported, nats per word</text>']
    for loss in range(6):
        y = at(0, loss)[1]
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f} H{RIGHT}"/>')
        parts.append(f'<text class="soft" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{loss}</text>')
    ticks = range(0, last + 1, max(20, last // 100 * 20))
    parts += [f'<text class="soft" x="{at(step, 0)[0]:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{step}</text>' for step in ticks]
    parts.append(f'<text class="soft" x="{(LEFT + RIGHT) / 2:.0f}" y="{BOTTOM + 42}" text-anchor="middle">steps</text>')
    for loss, words in ((ENTROPY, f"ln {WORDS} = {ENTROPY:.3f}: no honest loss is below"), (CLAIMED, f"{CLAIMED}, as claimed")):
        y = at(0, loss)[1]
        parts.append(f'<path class="mark" d="M{LEFT} {y:.1f} H{RIGHT}"/>')
        parts.append(f'<text class="soft" x="{LEFT + 8}" y="{y - 9 if loss > 1 else y + 16:.1f}">{words}</text>')
    for number, story in enumerate(stories):
        path = " L".join("{:.1f} {:.1f}".format(*at(step, min(loss, 5))) for step, loss in story.reported)
        y = 130 + 22 * number
        parts.append(f'<path class="line{number}" d="M{path}"/><path class="line{number}" d="M470 {y - 4} h24"/>')
        parts.append(f'<text class="ink" x="502" y="{y}">{story.name}</text>')
    size = 'viewBox="0 0 720 400" width="720" height="400"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>Three bugs and what they report</title>'
    return "\n".join([head, f"<style>{_style()}</style>", '<rect class="paper" width="720" height="400" rx="8"/>', *parts, "</svg>", ""])


def _style() -> str:
    def painted(mode: int) -> str:
        colour = {name: pair[mode] for name, pair in COLOURS.items()}
        lines = "".join(f".line{number} {{ stroke: {pair[mode]}; }} " for number, pair in enumerate(LINES))
        return (
            f".paper {{ fill: {colour['paper']}; }} .ink, .name {{ fill: {colour['ink']}; }} .soft {{ fill: {colour['soft']}; }} "
            f".grid {{ stroke: {colour['grid']}; }} .mark {{ stroke: {colour['soft']}; stroke-dasharray: 5 4; }} {lines}"
        )

    forms = 'text { font: 13px Verdana, "DejaVu Sans", sans-serif; } .name { font-weight: bold; } path { fill: none; stroke-width: 2; } '
    forms += ".grid { stroke-width: 1; } "
    return f"{forms}{painted(0)}@media (prefers-color-scheme: dark) {{ {painted(1)}}}"


def main(argv: list[str] | None = None) -> int:
    """Tell the stories."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="a file or a built-in corpus: say what padding would do to its lines, and nothing else")
    parser.add_argument("--figure", type=Path, help="also draw what each pipeline reports, step by step, into this SVG")
    options = parser.parse_args(argv)
    try:
        if options.text is not None:
            print(about_lines(corpora.load(options.text).text))
            return 0
        stories = [tell() for tell in STORIES]
        show(stories)
        if options.figure is not None:
            options.figure.parent.mkdir(parents=True, exist_ok=True)
            options.figure.write_text(drawing(stories), encoding="utf-8")
            print(f"\n{options.figure}")
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        return fail("honest_loss", line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
