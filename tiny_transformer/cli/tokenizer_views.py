"""How a text becomes tokens, step by step, and what one token is made of; one view for each kind of tokenizer.

BPE: the text after each merge. WordPiece: the longest piece that fits, again and again. Unigram: the best way and the runners-up.
Left out: colours and tables (tokenizer_inspect.py). Read before: tokenization/bpe_views.py, wordpiece.py, unigram_lattice.py.
"""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from rich.text import Text
from rich.tree import Tree as Drawing

from tiny_transformer.cli.tokenizer_facts import merges_of
from tiny_transformer.cli.tokenizer_pieces import core, kind_of, shown, token, vocabulary
from tiny_transformer.tokenization.bpe_views import Tree, derivation, stages
from tiny_transformer.tokenization.byte_pieces import BYTE_PIECES
from tiny_transformer.tokenization.normalizing import bert_words, normalize
from tiny_transformer.tokenization.special_tokens import split_special
from tiny_transformer.tokenization.unigram import PENALTY
from tiny_transformer.tokenization.unigram_lattice import build_trie, n_best


class Step(NamedTuple):
    """A text at one moment on its way to tokens."""

    what: str
    """What led here, in words."""
    pieces: list[bytes]
    new: bytes | None = None
    """The piece that this step made."""


def steps(tokenizer: Any, text: str, ways: int = 5) -> list[Step]:
    """The view of the tokenizer's kind; the last step of BPE and WordPiece, and the first way of Unigram, is what `encode` gives."""
    kind, inner = kind_of(core(tokenizer)), core(tokenizer)
    if inner is not tokenizer:
        parts = split_special(text, inner.special_tokens)
        text = "".join(part if is_special else normalize(part, tokenizer.normalizers) for part, is_special in parts)
    if kind == "bpe":
        return list(_merging(inner, inner.stages(text)))
    if kind == "metaspace_bpe":
        return list(_merging(inner, stages(_symbols(inner, text), {(m.left, m.right): m.rank for m in merges_of(inner)})))
    if kind == "wordpiece":
        return list(_greedy(inner, text))
    if kind == "unigram":
        return list(_ways(inner, text, ways))
    return [Step("tokens", [token(inner, i) for i in inner.encode(text)])]


def _merging(tokenizer: Any, states: Iterator[tuple[int | None, list[bytes]]]) -> Iterator[Step]:
    merges = merges_of(tokenizer)
    for rank, pieces in states:
        if rank is None:
            yield Step("begin", pieces)
        else:
            yield Step(f"merge {rank}", pieces, merges[rank].left + merges[rank].right)


def _symbols(tokenizer: Any, text: str) -> list[list[bytes]]:
    """The characters of each final token, where merges made it: no merge crosses the end of one, so merging each by itself is the same."""
    made = {left + right for left, right in tokenizer.merges}
    final = [tokenizer.pieces[i] for i in tokenizer.encode(text)]
    return [[character.encode() for character in piece] if piece in made else [piece.encode()] for piece in final]


def greedy_steps(word: str, pieces: Collection[str], prefix: str) -> Iterator[tuple[str, str, int]]:
    """WordPiece's choices in one word: (piece, what is left of the word after it, candidates tried); piece "" where none fits.

    >>> list(greedy_steps("unable", {"un", "##able", "##a"}, "##"))
    [('un', 'able', 5), ('##able', '', 1)]
    """
    start = 0
    while start < len(word):
        tried = 0
        for end in range(len(word), start, -1):
            tried += 1
            piece = (prefix if start else "") + word[start:end]
            if piece in pieces:
                break
        else:
            yield "", word[start:], tried
            return
        yield piece, word[end:], tried
        start = end


def _greedy(tokenizer: Any, text: str) -> Iterator[Step]:
    """Word after word; what is not yet cut stands at the end of its word as one piece. Last of all the tokens of the whole text."""
    ordinary = set(tokenizer.ids) - set(tokenizer.special_tokens)
    done: list[bytes] = []
    for part, is_special in split_special(text, tokenizer.special_tokens):
        if is_special:
            done.append(part.encode())
            continue
        for word in bert_words(normalize(part, tokenizer.normalizers)):
            found: list[bytes] = []
            for piece, rest, tried in greedy_steps(word, ordinary, tokenizer.prefix):
                if not piece or len(word) > tokenizer.max_chars:
                    found = [tokenizer.unknown.encode()]
                    reason = f"nothing begins {rest}" if not piece else f"longer than {tokenizer.max_chars}"
                    yield Step(reason, list(found), found[0])
                    break
                found.append(piece.encode())
                left = [tokenizer.prefix.encode() + rest.encode()] if rest else []
                yield Step(f"{tried} tried", [*found, *left], found[-1])
            done += found
    yield Step("tokens", done)


def _ways(tokenizer: Any, text: str, n: int) -> Iterator[Step]:
    chosen = tokenizer.encode(text, "none")
    for score, ids in sorted(tokenizer.nbest(text, n), key=lambda way: (-way[0], way[1] != chosen)):  # of equal ways the one that is taken
        yield Step(f"{score:.2f}", [token(tokenizer, i) for i in ids])


def sum_of_scores(tokenizer: Any, text: str) -> str:
    """Unigram's best way as a sum: ▁to -4.10 + ▁be -5.00 = -9.10. What is unknown, or spelled in bytes, shares what the others leave."""
    score, ids = core(tokenizer).nbest(text, 1)[0][0], core(tokenizer).encode(text, "none")
    scores, pieces = core(tokenizer).scores, [core(tokenizer).pieces[i] for i in ids]
    lacking = {place for place, piece in enumerate(pieces) if piece == core(tokenizer).unknown or piece in BYTE_PIECES}
    rest = score - sum(scores[i] for place, i in enumerate(ids) if place not in lacking)
    parts = [rest / len(lacking) if place in lacking else scores[i] for place, i in enumerate(ids)]
    summed = " + ".join(f"{shown(piece.encode())} {part:.2f}" for piece, part in zip(pieces, parts, strict=True))
    return f"{summed} = {score:.2f}"


# --- one token --------------------------------------------------------------------------------------------------------


def token_tree(tokenizer: Any, i: int) -> Drawing:
    """What token `i` is made of: BPE's halves down to bytes; Unigram's other ways to write it, with their scores; else itself alone."""
    inner = core(tokenizer)
    ids = {piece: number for number, piece in vocabulary(inner).items()}
    ranks = {merge.left + merge.right: merge.rank for merge in reversed(merges_of(inner))}
    root = token(inner, i)
    if root not in ids:
        return Drawing(_label(root, {root: i}, {}))
    drawn = Drawing(_label(root, ids, ranks), guide_style="dim")
    if ranks:
        pairs = [(merge.left, merge.right) for merge in merges_of(inner)]
        _branches(drawn, derivation(root, pairs), ids, ranks)
    elif kind_of(inner) == "unigram" and i not in inner.special_tokens.values():
        for score, pieces in _without(inner, root.decode()):
            drawn.add(Text.assemble(("without it  ", "dim"), "|".join(map(shown, (piece.encode() for piece in pieces))), f"  {score:.2f}"))
    return drawn


def _branches(drawn: Drawing, tree: Tree, ids: dict[bytes, int], ranks: dict[bytes, int]) -> None:
    """Hang the halves below; a list of what is to do in place of recursion, for a tree may be as deep as its token is long."""
    todo = [(drawn, tree)]
    while todo:
        above, node = todo.pop()
        if isinstance(node, tuple):
            for half in node:
                todo.append((above.add(_label(flat(half), ids, ranks)), half))


def flat(tree: Tree) -> bytes:
    """The bytes of a tree, from left to right."""
    found, todo = b"", [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, tuple):
            todo += [node[1], node[0]]
        else:
            found += node
    return found


def nested(tree: Tree) -> Any:
    """The tree as lists in lists of shown text, for JSON."""
    return [nested(half) for half in tree] if isinstance(tree, tuple) else shown(tree)


def _label(piece: bytes, ids: dict[bytes, int], ranks: dict[bytes, int]) -> Text:
    where = f"id {ids[piece]}" if piece in ids else "no token"
    rank = f", merge {ranks[piece]}" if piece in ranks else ""
    return Text.assemble((shown(piece), "bold"), (f"  {where}{rank}", "dim"))


def _without(tokenizer: Any, piece: str, n: int = 3) -> list[tuple[float, list[str]]]:
    """The best ways to write a piece if it were not there."""
    special = set(tokenizer.special_tokens)
    scores = {other: tokenizer.scores[i] for other, i in tokenizer.ids.items() if other not in special and other != piece}
    return n_best(piece, build_trie(scores), min(tokenizer.scores) - PENALTY, n)


if __name__ == "__main__":
    from rich.console import Console

    from tiny_transformer.tokenization.bpe import BPETokenizer

    tokenizer = BPETokenizer.train("she sells sea shells by the sea shore; the shells she sells are sea shells", 275)
    for step in steps(tokenizer, "sea shells"):
        print(f"{step.what:>9}  {'|'.join(map(shown, step.pieces))}")
    Console().print(token_tree(tokenizer, tokenizer.encode(" shells")[0]))
