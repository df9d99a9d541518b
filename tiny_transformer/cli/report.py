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
    """What the text itself says about a loss, in nats per character."""

    vocab_size: int
    guess: float
    """ln V: every character equally likely."""
    one: float
    """Entropy of a character: how often each occurs is known."""
    pair: float
    """Entropy given the character before."""
    floor: float | None
    """The exact entropy of the source, where it is known (`pitches`)."""
    bytes_per_character: float
    """Of the validation text, in UTF-8."""

    def bits_per_byte(self, loss: float) -> float:
        """Nats per character as bits per byte of UTF-8: comparable between tokenizers and alphabets."""
        return loss / math.log(2) / self.bytes_per_character

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self)


def landmarks(ids: Any, vocab_size: int, val_text: str, floor: float | None) -> Landmarks:
    """The landmarks of a text: `ids` is the whole of it, `val_text` its validation part."""
    from tiny_transformer.corpora.text_statistics import conditional_entropy, symbol_entropy

    return Landmarks(
        vocab_size=vocab_size,
        guess=math.log(vocab_size),
        one=float(symbol_entropy(ids)),
        pair=float(conditional_entropy(ids)),
        floor=floor,
        bytes_per_character=len(val_text.encode("utf-8")) / len(val_text),
    )


def loss_table(train_loss: float | None, val_loss: float, marks: Landmarks, *, at_step: int | None = None) -> Table:
    """The losses between their landmarks, from the worst to the best, in nats per character and bits per byte."""
    rows: list[tuple[str, float, bool]] = [
        (f"guessing blindly: ln {marks.vocab_size}", marks.guess, False),
        ("knowing how often each character occurs", marks.one, False),
        ("knowing the character before", marks.pair, False),
    ]
    best = "" if at_step is None else f" (best, step {at_step})"
    rows.append((f"this model, all validation text{best}", val_loss, True))
    if train_loss is not None:
        rows.append(("this model, training text", train_loss, True))
    if marks.floor is not None:
        rows.append(("the source's exact entropy: nothing can be below", marks.floor, False))
    made = table("how well the next character is predicted", "nats/character", "bits/byte")
    for name, loss, ours in sorted(rows, key=lambda row: -row[1]):
        made.add_row(name, f"{loss:.3f}", f"{marks.bits_per_byte(loss):.3f}", style="bold green" if ours else "")
    return made
