"""The numbers at the end of a run, beside numbers that say what they are worth.

A loss alone says little: ln V is what blind guessing costs, the entropies are what counting letters and pairs of letters would reach, and a
generated text has a floor that nothing can go below. Read before: corpora/text_statistics.py, screen.py.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from tiny_transformer.cli.screen import table


@dataclass(frozen=True)
class Landmarks:
    """What the text itself says about a loss, in nats per token."""

    vocab_size: int
    guess: float
    """ln V: every token equally likely."""
    one: float
    """Entropy of a token: how often each occurs is known."""
    pair: float | None
    """Entropy given the token before; None for large vocabularies, where counting pairs flatters (most occur once)."""
    floor: float | None
    """The exact entropy of the source, where it is known (`pitches`)."""
    bytes_per_token: float
    """Of the validation text, in UTF-8."""
    unit: str = "character"
    """What a token is called."""

    def bits_per_byte(self, loss: float) -> float:
        """Nats per token as bits per byte of UTF-8: comparable between tokenizers and alphabets."""
        return loss / math.log(2) / self.bytes_per_token

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self)


def landmarks(ids: Any, vocab_size: int, bytes_per_token: float, floor: float | None, unit: str = "character") -> Landmarks:
    """The landmarks of a text: `ids` is the whole of it; its validation part has so many bytes in a token.

    `floor` is the source's entropy in nats per token.
    """
    from tiny_transformer.corpora.text_statistics import conditional_entropy, symbol_entropy

    return Landmarks(
        vocab_size=vocab_size,
        guess=math.log(vocab_size),
        one=float(symbol_entropy(ids)),
        pair=float(conditional_entropy(ids)) if unit in ("character", "byte") else None,
        floor=floor,
        bytes_per_token=bytes_per_token,
        unit=unit,
    )


def loss_table(train_loss: float | None, val_loss: float, marks: Landmarks, *, at_step: int | None = None) -> Table:
    """The losses between their landmarks, from the worst to the best, in nats per token and bits per byte."""
    rows: list[tuple[str, float, bool]] = [
        (f"guessing blindly: ln {marks.vocab_size}", marks.guess, False),
        (f"knowing how often each {marks.unit} occurs", marks.one, False),
    ]
    if marks.pair is not None:
        rows.append((f"knowing the {marks.unit} before", marks.pair, False))
    best = "" if at_step is None else f" (best, step {at_step})"
    rows.append((f"this model, all validation text{best}", val_loss, True))
    if train_loss is not None:
        rows.append(("this model, training text", train_loss, True))
    if marks.floor is not None:
        rows.append(("the source's exact entropy: nothing can be below", marks.floor, False))
    made = table(f"how well the next {marks.unit} is predicted", f"nats/{marks.unit}", "bits/byte")
    for name, loss, ours in sorted(rows, key=lambda row: -row[1]):
        made.add_row(name, f"{loss:.3f}", f"{marks.bits_per_byte(loss):.3f}", style="bold green" if ours else "")
    return made
