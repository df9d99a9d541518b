"""`tiny tokenizer compare`: several tokenizers on the same texts, as a table, as JSON, as a picture. Read before: tokenizer_measures.py."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table
from rich.text import Text

from tiny_transformer import tokenization
from tiny_transformer.cli.data_source import working
from tiny_transformer.cli.screen import Screen, table, visible
from tiny_transformer.cli.settings import parse
from tiny_transformer.cli.texts import DEFAULT_PIECES
from tiny_transformer.cli.tokenizer_measures import Measured, measure
from tiny_transformer.cli.tokenizer_source import open_tokenizer, read_text, spread
from tiny_transformer.config import check
from tiny_transformer.corpora.corpus import Corpus
from tiny_transformer.tokenization.registry import OWN_SIZE, TRAINED
from tiny_transformer.training.dataset import split

DESCRIPTION = """\
Measure tokenizers on the same texts. A and B are files, folders, runs or checkpoints; or a
kind (char, byte, word) or kind:size (bpe:2048, wordpiece:1000, unigram:1000), trained on
the first nine tenths of the first text. Then everything is measured on the last tenth of
each text; if nothing is trained, on all of it.

  tiny tokenizer compare char bpe:512 bpe:2048 word --corpus shakespeare --out compared.png
  tiny tokenizer compare tok.json gpt2/ --data mine.txt --data other.txt --json

bytes/token: compression. tokens/word: fertility. whole: share of words that are one token.
unk.: share of the tokens that stand for something unknown. exact: decodes to the same text.
s/MB: seconds to encode a million bytes, by a tokenizer that has seen nothing; median of 3.
"""


NAME_WIDTH = 15
"""Columns for a tokenizer's name on a terminal: the table then fits into 80."""


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """What `tiny tokenizer compare` accepts."""

    tokenizers: tyro.conf.Positional[tuple[str, ...]] = ()
    """Files, runs, checkpoints, or kind:size."""
    corpus: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Built-in texts to measure on."""
    data: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Text files to measure on."""
    size: int | None = None
    """Take this many characters of each text only, from the start."""
    val_share: float = 0.1
    """Share of each text that is held back from training, to measure on."""
    out: str | None = None
    """Draw the comparison: .png and .svg are written."""
    json: bool = False
    """Print the measures as JSON."""


def main(argv: list[str]) -> int:
    """Train what is to be trained, measure, show."""
    tokens = spread(spread(argv, "--corpus"), "--data")
    settings = parse(CompareSettings, tokens, command="tokenizer compare", description=DESCRIPTION)
    share = settings.val_share
    named = bool(settings.tokenizers)
    check(named, "no tokenizers", "compare needs one or more", "Try: tiny tokenizer compare char bpe:1024 --corpus pitches")
    check(0 < share < 1, f"val_share={share}", "it must be above 0 and below 1", "Try --val-share 0.1")
    check(settings.out != "", "--out without a name", "the picture needs a file", "Try --out compared.png")
    check(bool(settings.data or settings.corpus), "compare without a text", "it needs one", "Try --corpus shakespeare, or --data FILE")
    specs = {name: spec(name) for name in settings.tokenizers}
    loaded = {name: open_tokenizer(name, "compare").tokenizer for name, made in specs.items() if made is None}
    with working(Screen(to_stderr=True)) as stage:
        corpora = [read_text(None, name, "compare", settings.size) for name in settings.data]
        corpora += [read_text(name, None, "compare", settings.size) for name in settings.corpus]
        for name, made in specs.items():
            if made is not None:
                stage(f"training {name}", 0, 1)
                loaded[name] = learn(*made, corpora[0].text, share)
        trained = any(specs.values())
        rows = []
        for corpus in corpora:
            text = held_back(corpus, share) if trained else corpus.text
            for place, name in enumerate(specs):
                stage(f"measuring {name} on {corpus.name}", place, len(specs))
                rows.append(measure(loaded[name], name, corpus.name, text))
        caption = describe(corpora, share if trained else None)
        pictures = [] if settings.out is None else draw(rows, caption, Path(settings.out))
    if settings.json:
        print(json.dumps({"about": caption, "measures": [asdict(row) for row in rows], "pictures": [str(path) for path in pictures]}))
        return 0
    show(rows, caption, Screen())
    for path in pictures:
        print(f"drawn: {path}")
    return 0


def spec(name: str) -> tuple[str, int | None] | None:
    """(kind, size) of a name like bpe:2048; None for the path of a tokenizer. Raises ConfigError for a kind that needs a whole number."""
    kind, colon, size = name.partition(":")
    if kind not in TRAINED:
        like = re.fullmatch(r"[a-z]+:\d+", name) and not Path(name).exists()
        check(not like, f"tokenizer kind {kind!r}", f"it must be one of {', '.join(TRAINED)}", "Pick one of these")
        return None
    right = not colon or (size.isascii() and size.isdigit() and int(size) > 0)
    check(right, name, "behind the colon stands how many tokens to learn", f"Try {kind}:2048")
    return kind, int(size) if colon else None if kind in OWN_SIZE else DEFAULT_PIECES


def learn(kind: str, vocab_size: int | None, text: str, share: float) -> Any:
    """A tokenizer learned from what is not held back; characters are those of the whole text, as in `tiny train`."""
    return tokenization.train(kind, text if kind == "char" else split(text, share)[0], vocab_size)


def held_back(corpus: Corpus, share: float) -> str:
    """The last part. Raises ConfigError where there is none."""
    text = split(corpus.text, share)[1]
    check(bool(text), f"{corpus.name} with val_share={share}", "something must be left to measure on", "Take a longer text")
    return text


def describe(corpora: Sequence[Corpus], share: float | None) -> str:
    """What was measured on what, in one line."""
    names = ", ".join(corpus.name for corpus in corpora)
    if share is None:
        return f"measured on all of {names}"
    return f"trained on the first {1 - share:.0%} of {corpora[0].name}; measured on the last {share:.0%} of {names}"


def draw(rows: Sequence[Measured], caption: str, target: Path) -> list[Path]:
    """The picture, as PNG and SVG."""
    from tiny_transformer.cli.plots import save
    from tiny_transformer.cli.tokenizer_plot import comparison

    target.parent.mkdir(parents=True, exist_ok=True)
    return save(comparison(rows, caption), target)


def show(rows: Sequence[Measured], caption: str, screen: Screen) -> None:
    """A table for each text."""
    for corpus in dict.fromkeys(row.corpus for row in rows):
        found = [row for row in rows if row.corpus == corpus]
        screen.say()
        screen.say(drawn(found, f"{visible(corpus)}, {found[0].n_bytes:,} bytes", NAME_WIDTH if screen.live else 1000))
        for row in found:
            if row.problem:
                screen.warn(f"{row.tokenizer} can't read {corpus}: {row.problem}")
    screen.say(visible(caption), style="dim")


def drawn(rows: Sequence[Measured], title: str, name_width: int = 1000) -> Table:
    """The table of one text; the best compression stands out. Of a long name the end is shown."""
    made = table("tokenizer", "vocab", "tokens", "bytes/\ntoken", "tokens/\nword", "whole", "unk.", "exact", "s/MB", title=title)
    made.collapse_padding, made.pad_edge = True, False
    for column in made.columns[1:]:
        column.no_wrap = True
    best = max((row.bytes_per_token or 0 for row in rows), default=0)
    for row in rows:
        exact = "" if row.exact is None else "yes" if row.exact else "no"
        name = visible(row.tokenizer)
        made.add_row(
            Text(name if len(name) <= name_width else "…" + name[1 - name_width :]), f"{row.vocab_size:,}", _number(row.n_tokens, ",d"),
            Text(_number(row.bytes_per_token, ".2f"), style="bold" if row.bytes_per_token == best else ""),
            _number(row.tokens_per_word, ".2f"), _number(row.whole_words, ".0%"), _number(row.unknown, ".1%"), exact,
            _number(row.seconds_per_mb, ".2f"),
        )  # fmt: skip
    return made


def _number(value: float | int | None, form: str) -> str:
    return "–" if value is None else format(value, form)
