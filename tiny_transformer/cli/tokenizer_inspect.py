"""`tiny tokenizer inspect`: what a vocabulary holds, its merges one by one, a text on its way to tokens, the tree of a token.

Read before: tokenizer_facts.py, tokenizer_views.py.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.table import Table
from rich.text import Text

from tiny_transformer.cli.data_source import working
from tiny_transformer.cli.screen import Screen, plain_text, table, visible
from tiny_transformer.cli.settings import parse
from tiny_transformer.cli.tokenizer_facts import about, find_token, merge_counts, merges_of
from tiny_transformer.cli.tokenizer_pieces import core, fact, joined, kind_of, shown, vocabulary
from tiny_transformer.cli.tokenizer_source import Opened, open_tokenizer, read_text
from tiny_transformer.cli.tokenizer_views import steps, sum_of_scores, token_tree
from tiny_transformer.config import check
from tiny_transformer.corpora.corpus import Corpus

DESCRIPTION = """\
Look inside a tokenizer.

  tiny tokenizer inspect tok.json                          size, special and long tokens, merges
  tiny tokenizer inspect tok.json --merges 50 --from 200   merges 200 to 249
  tiny tokenizer inspect tok.json --corpus shakespeare     with counts, and what is never used
  tiny tokenizer inspect tok.json --text "to be or not"    where the boundaries stand after each merge
  tiny tokenizer inspect tok.json --token " the"           the tree of one token
"""

DEFAULT_ROWS = 30


@dataclass(frozen=True, kw_only=True)
class InspectSettings:
    """What `tiny tokenizer inspect` accepts."""

    tokenizer: tyro.conf.Positional[str | None] = None
    """A tokenizer's file or folder, a run, or a checkpoint."""
    merges: int | None = None
    """How many merges (other kinds: tokens) to list; default 30, none with --text or --token."""
    start: Annotated[int, tyro.conf.arg(name="from")] = 0
    """The first one to list."""
    corpus: str | None = None
    """Count in this built-in text."""
    data: str | None = None
    """Count in this text file."""
    size: int | None = None
    """Take this many characters of it only, from the start."""
    text: str | None = None
    """Show how this text becomes tokens: BPE merge by merge, WordPiece piece by piece, Unigram's best ways."""
    ways: int = 5
    """Unigram: how many ways to show."""
    token: str | None = None
    """Show what this token, an id or a text, is made of."""
    json: bool = False
    """Print it all as JSON."""


def main(argv: list[str]) -> int:
    """Look, show."""
    settings = parse(InspectSettings, argv, command="tokenizer inspect", description=DESCRIPTION)
    opened = open_tokenizer(settings.tokenizer, "inspect")
    check(settings.merges is None or settings.merges >= 0, f"merges={settings.merges}", "it must be 0 or more", "Try --merges 30")
    check(settings.start >= 0, f"--from {settings.start}", "it must be 0 or more", "Try --from 0")
    check(settings.ways >= 1, f"ways={settings.ways}", "it must be at least 1", "Try --ways 5")
    check(settings.text != "", "an empty text", "there is nothing to show", "Pass some text")
    chosen = None if settings.token is None else find_token(opened.tokenizer, settings.token)
    facts: dict[str, Any] = {"tokenizer": opened.name, **about(opened.tokenizer)}
    usage = None
    if settings.corpus is not None or settings.data is not None:
        with working(Screen(to_stderr=True)) as stage:
            corpus = read_text(settings.corpus, settings.data, "inspect", settings.size)
            stage("counting tokens", 0, 1)
            usage = count(opened, corpus)
            facts["usage"] = usage.facts
    rows = listing(opened.tokenizer, settings, usage)
    seen = [] if settings.text is None else steps(opened.tokenizer, settings.text, settings.ways)
    if settings.json:
        told = [{"step": step.what, "tokens": [shown(piece) for piece in step.pieces]} for step in seen]
        tree = None if chosen is None else plain_text(token_tree(opened.tokenizer, chosen)).split("\n")
        print(json.dumps({**facts, "listed": rows, "steps": told, "tree": tree}))
        return 0
    screen = Screen()
    overview(facts, screen)
    if rows:
        screen.say()
        screen.say(drawn(rows, opened.tokenizer))
    if settings.text is not None:
        screen.heading(f"{visible(settings.text[:40])!r}")
        show_steps(opened.tokenizer, settings.text, seen, screen)
    if chosen is not None:
        screen.heading(f"token {chosen}")
        show_token(opened.tokenizer, chosen, usage, screen)
    return 0


# --- counting -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """What a text makes of a vocabulary."""

    tokens: Counter[int]
    """How often each id occurs in the encoded text."""
    pairs: Counter[int]
    """By rank: how often the pair stood there when it was the merge's turn. BPE only."""
    facts: dict[str, Any]


def count(opened: Opened, corpus: Corpus) -> Usage:
    """Encode the text and count."""
    tokenizer = opened.tokenizer
    counts = Counter(tokenizer.encode_array(corpus.text).tolist())
    pieces = vocabulary(tokenizer)
    unused = [i for i in pieces if i not in counts]
    size = len(corpus.text.encode("utf-8", "replace"))
    facts = {
        "source": corpus.source,
        "n_tokens": counts.total(),
        "bytes_per_token": size / max(counts.total(), 1),
        "n_never_used": len(unused),
        "never_used": [shown(pieces[i]) for i in unused],
        "most_used": [[shown(pieces[i]), times] for i, times in counts.most_common(8)],
    }
    pairs = merge_counts(tokenizer, corpus.text) if kind_of(core(tokenizer)) == "bpe" else Counter()
    return Usage(counts, pairs, facts)


def listing(tokenizer: Any, settings: InspectSettings, usage: Usage | None) -> list[dict[str, Any]]:
    """The merges (or tokens) one by one, with their counts where there is a text."""
    default = DEFAULT_ROWS if settings.text is None and settings.token is None else 0
    most = default if settings.merges is None else settings.merges
    chosen = slice(settings.start, settings.start + most)
    merges, pieces = merges_of(tokenizer), vocabulary(tokenizer)
    number = len(merges) or len(pieces)
    check(not most or settings.start < number, f"--from {settings.start}", f"there are {number}", f"Try --from {max(0, number - most)}")
    rows: list[dict[str, Any]]
    if merges:
        rows = [
            {"merge": m.rank, "left": shown(m.left), "right": shown(m.right), "token": shown(m.left + m.right), "id": m.id}
            for m in merges[chosen]
        ]
    else:
        scores = getattr(core(tokenizer), "scores", None)
        rows = [{"id": i, "token": shown(pieces[i]), **({"score": scores[i]} if scores else {})} for i in list(pieces)[chosen]]
    if usage is not None:
        for row in rows:
            row |= {"joined": usage.pairs[row["merge"]]} if usage.pairs else {}
            row["occurs"] = usage.tokens[row["id"]]
    return rows


# --- showing ------------------------------------------------------------------------------------------------------------


def overview(facts: dict[str, Any], screen: Screen) -> None:
    """A few lines about the whole."""
    screen.heading(visible(facts["tokenizer"]))
    screen.say(fact("kind", facts["kind"] + (f", split {facts['split']}" if facts["split"] else "")))
    merges = f", {facts['n_merges']:,} merges" if facts["n_merges"] else ""
    screen.say(fact("size", f"{facts['vocab_size']:,} tokens{merges}, {len(facts['special_tokens'])} special"))
    special = [f"{s['token']} {s['id']}" + (f" ({', '.join(s['roles'])})" if s["roles"] else "") for s in facts["special_tokens"]]
    if special:
        screen.say(fact("special tokens", "  ".join(special[:20]) + (f"  … {len(special) - 20} more" if len(special) > 20 else "")))
    if facts["kind"] not in ("char", "byte"):
        screen.say(fact("longest", "  ".join(word if len(word) <= 40 else word[:39] + "…" for word in facts["longest"])))
    if facts["share_that_start_a_word"] is not None:
        screen.say(fact("start a word", f"{facts['share_that_start_a_word']:.1%} of the tokens"))
    if usage := facts.get("usage"):
        screen.say(fact("text", usage["source"]))
        screen.say(fact("encoded", f"{usage['n_tokens']:,} tokens, {usage['bytes_per_token']:.2f} bytes per token"))
        screen.say(fact("most used", "  ".join(f"{token} {times / max(usage['n_tokens'], 1):.1%}" for token, times in usage["most_used"])))
        unused, n = usage["never_used"], usage["n_never_used"]
        some = ": " + "  ".join(unused[:12]) + ("  …" if n > 12 else "") if n else ""
        screen.say(fact("never used", f"{n:,} ({n / facts['vocab_size']:.1%}){some}"))


def drawn(rows: Sequence[dict[str, Any]], tokenizer: Any) -> Table:
    """The list as a table."""
    counted = "occurs" in rows[0]
    paired = "joined" in rows[0]
    counts = [
        *(["pairs joined"] if paired else []),
        *(["stay in text"] if counted and "merge" in rows[0] else ["in text"] if counted else []),
    ]
    if "merge" in rows[0]:
        made = table("merge", "pair", "token", "id", *counts, title="merges, one by one")
    else:
        made = table("id", "token", *(["log p"] if "score" in rows[0] else []), *counts, title="tokens, one by one")
    for column in made.columns:
        column.justify = "left" if column.header in ("pair", "token") else "right"
    for row in rows:
        values = [f"{row[key]:,}" for key in ("joined", "occurs") if key in row]
        if "merge" in row:
            made.add_row(str(row["merge"]), Text(f"{row['left']} + {row['right']}"), Text(row["token"]), str(row["id"]), *values)
        else:
            made.add_row(str(row["id"]), Text(row["token"]), *([f"{row['score']:.2f}"] if "score" in row else []), *values)
    return made


def show_steps(tokenizer: Any, text: str, seen: Sequence[Any], screen: Screen) -> None:
    """One row a step: what happened, and the text with its boundaries."""
    if not screen.live:
        width = max(len(step.what) for step in seen)
        for step in seen:
            screen.say(f"{step.what:>{width}}  {joined(step.pieces).plain}")
    else:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(justify="right", style="dim", max_width=28)
        grid.add_column(overflow="fold")
        for step in seen:
            grid.add_row(Text(step.what), joined(step.pieces, step.new))
        screen.say(grid)
    ends = f"{len(seen[-1].pieces)} tokens after {len(seen) - 1} merges" if merges_of(tokenizer) else f"{len(seen[-1].pieces)} tokens"
    if kind_of(core(tokenizer)) == "wordpiece":
        ends += "; tried: pieces looked up, from the rest of the word down to the first that is there"
    if kind_of(core(tokenizer)) == "unigram":
        ends = f"the best way is the most probable: {sum_of_scores(tokenizer, text)}"
    screen.say(ends, style="dim")


def show_token(tokenizer: Any, i: int, usage: Usage | None, screen: Screen) -> None:
    """The tree, and what else is known about the token."""
    screen.say(token_tree(tokenizer, i))
    pieces = vocabulary(tokenizer)
    more = [shown(piece) for other, piece in pieces.items() if pieces[i] in piece and other != i]
    known = f"{len(pieces[i])} bytes" + ("" if usage is None else f", {usage.tokens[i]:,} times in the text")
    screen.say(known, style="dim")
    if more:
        screen.say(
            f"in {len(more)} other token{'s' if len(more) > 1 else ''}: " + "  ".join(more[:10]) + ("  …" if len(more) > 10 else ""),
            style="dim",
        )
    others = [other for other, piece in pieces.items() if piece == str(i).encode() and other != i]
    if others:
        screen.say(f"the token that reads {i} has the id {others[0]}", style="dim")
