"""Two checks of a pair of losses by what a person would say on seeing it: "overfitting", "too good to be true".

Leaves out: overlap of the two texts (`corpora/text_statistics.py`). Read before: `listener.py`.
"""

GAP = 0.1
"""Nats per token by which the training loss must lie below the validation loss to speak of parting …"""
RISE = 0.05
"""… and by which the validation loss must have risen over its best."""
SHARE = 0.2
"""A loss below this share of the entropy given the previous token is implausible for a text."""


def parting(train_loss: float, val_loss: float, best_val_loss: float) -> str | None:
    """A warning when the model gets better at what it has seen and worse at what it has not; None otherwise.

    Losses in nats per token, measured with the same weights without dropout, over fixed parts of either text. A gap
    alone is normal: every model knows its own text better. So the validation loss must also have risen.
    """
    if val_loss - train_loss > GAP and val_loss - best_val_loss > RISE:
        return (
            f"train and validation part: the training loss is {train_loss:.3f}, the validation loss {val_loss:.3f} after a best of "
            f"{best_val_loss:.3f}. The model is memorising. Stop here (best.pt is kept), or use more text, more dropout or a smaller model"
        )
    return None


def too_good(val_loss: float, yardstick: float, floor: float | None = None) -> str | None:
    """A warning when the validation loss is implausibly low; None otherwise.

    With `floor`, the exact entropy of the source in nats per token, nothing honest gets below it for long: the rule is
    val_loss < 0.9 · floor (a tenth is left for the luck of a short text).
    Without, the rule is val_loss < 0.2 · yardstick, where `yardstick` is the `conditional_entropy` of the validation text. For
    English characters that is about 0.5 nats; the best compressors known need 0.6, a model of this size 1.4. A mask
    that lets the model see its target ends near 0. Text that repeats itself word for word can set this off honestly.
    """
    limit = SHARE * yardstick if floor is None else 0.9 * floor
    if val_loss >= limit:
        return None
    known = "what its pairs of neighbours suggest" if floor is None else "its source's exact entropy"
    return (
        f"the validation loss {val_loss:.3f} is implausibly low: {limit:.3f} would already be remarkable, by {known}. "
        "Does the model see its targets (mask, shift), or does the validation text repeat the training text?"
    )


if __name__ == "__main__":
    import numpy as np

    from tiny_transformer.corpora.text_statistics import conditional_entropy

    text = np.frombuffer(b"the cat sat on the mat; the rat sat on the cat. " * 20, dtype=np.uint8)
    yardstick = conditional_entropy(text)
    print(f"ids {text.shape}: a character given the one before has {yardstick:.3f} nats")
    print("parting: ", parting(train_loss=0.9, val_loss=1.8, best_val_loss=1.5))
    print("too good:", too_good(val_loss=0.01, yardstick=yardstick))
    print("honest:  ", too_good(val_loss=1.5, yardstick=2.45))
