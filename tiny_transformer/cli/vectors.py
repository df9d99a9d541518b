"""`--embeddings FILE`: word vectors as first weights, how much of the vocabulary and of the text they cover, and which rows stay.

Read before: word_vectors.py, material.py.
"""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from tiny_transformer.cli.data_source import working
from tiny_transformer.cli.material import COUNTED, Material
from tiny_transformer.cli.screen import Screen, table, visible
from tiny_transformer.config import DataConfig, ModelConfig
from tiny_transformer.initialization import initial_std
from tiny_transformer.training.frozen_rows import TABLE
from tiny_transformer.word_vectors import WordVectors, read_word_vectors, words_of


def vectors_for(data: DataConfig, model: ModelConfig, material: Material, screen: Screen) -> WordVectors | None:
    """What the file of `--embeddings` has for this vocabulary; None where none was named. Raises ConfigError or OSError."""
    if data.embeddings is None:
        return None
    words = words_of(material.tokenizer)
    counts = np.bincount(material.train_ids[:COUNTED], minlength=len(words))
    with working(screen) as stage:
        return read_word_vectors(
            data.embeddings, words, width=model.d_model, counts=counts,
            progress=lambda done, total: stage(f"reading {Path(data.embeddings or '').name}", done, total),
        )  # fmt: skip


def begin_with(model: Any, vectors: WordVectors) -> None:
    """Write the vectors over a model's first weights, in the size that those have. Works on the models of both engines."""
    std = initial_std(TABLE, model.config)
    assert std is not None
    weights = model.weights()[TABLE]
    numbers = weights.numpy() if hasattr(weights, "numpy") else weights  # of a tensor on the processor: its own memory
    numbers[vectors.ids] = vectors.sized(std)


def coverage_table(vectors: WordVectors) -> Table:
    """Cased and lower-cased, by the vocabulary and by the running text."""
    c = vectors.coverage
    made = table(f"words that {Path(vectors.path).name} has", "of the vocabulary", "", "of the training text")
    rows = (
        ("as they are written", c.as_written, c.text_as_written),
        ("in lower case", c.lower_cased, c.text_lower_cased),
        ("one or the other: these begin with a vector", c.either, c.text_either),
    )
    for name, known, running in rows:
        share = f"{known / max(c.words, 1):.1%}"
        made.add_row(name, f"{known:,} of {c.words:,}", share, f"{running / max(c.text_words, 1):.1%}")
    return made


def remarks(vectors: WordVectors, frozen: bool) -> list[str]:
    """What else to say: the words without a vector, and what stays as it is."""
    c = vectors.coverage
    lines = []
    if c.lacking:
        lines.append("without a vector, most frequent first: " + ", ".join(f"{visible(word)} ({count:,})" for word, count in c.lacking))
    if frozen:
        lines.append(f"{c.either:,} vectors stay as they are; those of other words and of special tokens are learned")
    return lines
