"""Probabilistic context-free grammars whose entropy is known exactly: sample, measure, parse.

A grammar here is finite (no symbol contains itself) and *prefix-free*: no text of a symbol is the beginning of, or
equal to, a text that another choice for that symbol can give. `check` decides that exactly. Two things follow.

1. Every text has one derivation. Reading from the left, the text of the first symbol of a sequence can end in one place
   only (were there two, one would be a prefix of the other), so each symbol's stretch is fixed, and within it the
   choice is fixed. The probability of a text is therefore the product of its choices, with nothing to sum over.
2. A stream of independent texts needs no separators: it too has one derivation.

So the entropy of a text is the entropy of its derivation, a sum over the grammar (Cover & Thomas, "Elements of
Information Theory", 2nd ed., section 2.5, chain rule), and a long stream carries

    H(derivation of one text) / E[characters of one text]   nats per character,

by the law of large numbers over independent texts. Leaves out any particular grammar (`pitches.py`).
Read before: nothing.
"""

import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from itertools import combinations, pairwise
from typing import NamedTuple

from tiny_transformer.config import check


class Symbol(NamedTuple):
    """A name that is to be replaced by one of its alternatives."""

    name: str


Part = str | Symbol
"""A literal stretch of text, or a symbol."""
Rules = Mapping[str, Sequence[str | tuple[int, str]]]
"""Symbol → its alternatives: texts in which `<name>` stands for a symbol; (3, text) is three times as likely as text."""


Rests = frozenset[tuple[Part, ...]]
"""Everything that can still follow at some place of a text."""


class Alternative(NamedTuple):
    """One way to replace a symbol."""

    probability: float
    parts: tuple[Part, ...]


class Parse(NamedTuple):
    """All derivations of a stretch of text taken together."""

    derivations: int
    log_probability: float


class Grammar:
    """Rules, read and checked to be finite.

    >>> coin = Grammar({"toss": ["heads, ", "tails, "]}, start="toss")
    >>> round(coin.entropy, 4), coin.mean_length          # ln 2 nats, 7 characters
    (0.6931, 7.0)
    >>> coin.log_probability("heads, tails, ") == -2 * math.log(2)
    True

    Raises ConfigError when a rule uses an unknown symbol, or a symbol contains itself.
    """

    def __init__(self, rules: Rules, start: str) -> None:
        self.start = Symbol(start)
        self.rules = {Symbol(name): _alternatives(choices) for name, choices in rules.items()}
        self._order = self._from_small_to_large()
        self._cumulative = {symbol: _integer_weights(rules[symbol.name]) for symbol in self.rules}

    # -- measuring: two sums over the grammar, from small symbols to large ones ----------------------------------

    @cached_property
    def entropy(self) -> float:
        """Nats in one text: for each symbol, H = sum over choices p (-ln p + sum of the parts' H)."""
        entropy: dict[Symbol, float] = {}
        for symbol in self._order:
            entropy[symbol] = sum(
                p * (-math.log(p) + sum(entropy[part] for part in parts if isinstance(part, Symbol))) for p, parts in self.rules[symbol]
            )
        return entropy[self.start]

    @cached_property
    def mean_length(self) -> float:
        """Characters in one text, on average."""
        length: dict[Symbol, float] = {}
        for symbol in self._order:
            length[symbol] = sum(
                p * sum(length[part] if isinstance(part, Symbol) else len(part) for part in parts) for p, parts in self.rules[symbol]
            )
        return length[self.start]

    @property
    def entropy_rate(self) -> float:
        """Nats per character of a long stream of texts: the loss that no causal model can stay below."""
        return self.entropy / self.mean_length

    # -- sampling ------------------------------------------------------------------------------------------------

    def sample(self, rng: random.Random) -> tuple[str, float]:
        """One text and the natural logarithm of its probability. The same on every platform for the same generator."""
        pieces: list[str] = []
        log_probability = 0.0
        todo: list[Part] = [self.start]
        while todo:
            part = todo.pop()
            if isinstance(part, str):
                pieces.append(part)
                continue
            alternatives = self.rules[part]
            chosen = alternatives[self._cumulative[part][int(rng.random() * len(self._cumulative[part]))]]
            log_probability += math.log(chosen.probability)
            todo.extend(reversed(chosen.parts))
        return "".join(pieces), log_probability

    # -- parsing -------------------------------------------------------------------------------------------------

    def parse(self, text: str) -> Parse:
        """How many derivations `text` has as a stream of whole texts, and ln of the sum of their probabilities.

        Does not rely on the grammar being unambiguous: every derivation is counted. (0, -inf) when there is none.
        """
        reached: dict[int, Parse] = {0: Parse(1, 0.0)}
        for at in range(len(text)):
            if at in reached:
                before, memo = reached.pop(at), dict[tuple[Symbol, int], dict[int, Parse]]()
                for end, found in self._ends((self.start,), text, at, memo).items():
                    _add(reached, end, Parse(before.derivations * found.derivations, before.log_probability + found.log_probability))
        return reached.get(len(text), Parse(0, -math.inf))

    def log_probability(self, text: str) -> float:
        """ln of the probability that the next len(text) characters of a stream, from a boundary on, are these whole texts."""
        return self.parse(text).log_probability

    def _ends(self, parts: Sequence[Part], text: str, at: int, memo: dict[tuple[Symbol, int], dict[int, Parse]]) -> dict[int, Parse]:
        """Every place where a text of `parts` that starts at `at` can end, with its derivations."""
        ends = {at: Parse(1, 0.0)}
        for part in parts:
            following: dict[int, Parse] = {}
            for place, before in ends.items():
                for end, found in self._part_ends(part, text, place, memo).items():
                    _add(following, end, Parse(before.derivations * found.derivations, before.log_probability + found.log_probability))
            ends = following
        return ends

    def _part_ends(self, part: Part, text: str, at: int, memo: dict[tuple[Symbol, int], dict[int, Parse]]) -> dict[int, Parse]:
        if isinstance(part, str):
            return {at + len(part): Parse(1, 0.0)} if text.startswith(part, at) else {}
        if (part, at) not in memo:
            ends: dict[int, Parse] = {}
            for probability, parts in self.rules[part]:
                for end, found in self._ends(parts, text, at, memo).items():
                    _add(ends, end, Parse(found.derivations, found.log_probability + math.log(probability)))
            memo[part, at] = ends
        return memo[part, at]

    # -- checking ------------------------------------------------------------------------------------------------

    def check_prefix_free(self) -> None:
        """Raise ConfigError naming two alternatives of a symbol where a text of one begins, or is, a text of the other.

        Exact for finite grammars, by induction from small symbols to large. Both alternatives are read letter by letter
        at once, keeping all that can still follow. Where all of it begins with the same symbol, that symbol is left out
        at once: it is known to be prefix-free, so its text must be the same on both sides.
        """
        memo: dict[tuple[Rests, Rests], str | None] = {}
        for symbol in self._order:
            for one, other in self._pairs(symbol):
                if one.parts and other.parts and self._openings(one.parts[0]).isdisjoint(self._openings(other.parts[0])):
                    continue  # the usual case, and a fast one
                clash = self._clash(frozenset([one.parts]), frozenset([other.parts]), memo)
                check(
                    clash is None,
                    f"<{symbol.name}> can be {show(one.parts)!r} or {show(other.parts)!r}",
                    f"one can begin the other (both can begin with {clash!r}), so a text could be read in two ways",
                    "Change a word",
                )

    def _pairs(self, symbol: Symbol) -> Iterable[tuple[Alternative, Alternative]]:
        """All pairs; of plain words, neighbours in the alphabet only: between a word and its beginning there is no other kind."""
        alternatives = self.rules[symbol]
        if all(len(parts) == 1 and isinstance(parts[0], str) for _, parts in alternatives):
            return pairwise(sorted(alternatives, key=lambda alternative: show(alternative.parts)))
        return combinations(alternatives, 2)

    def _clash(self, one: Rests, other: Rests, memo: dict[tuple[Rests, Rests], str | None]) -> str | None:
        """A text of one side that begins a text of the other, or None; what both share shows as its symbol's name."""
        if () in one or () in other:
            return ""
        if (one, other) not in memo:
            found = ((head, self._clash(mine, theirs, memo)) for head, mine, theirs in self._shared_heads(one, other))
            memo[one, other] = next((head + tail for head, tail in found if tail is not None), None)
        return memo[one, other]

    def _shared_heads(self, one: Rests, other: Rests) -> Iterator[tuple[str, Rests, Rests]]:
        """Everything that both sides can begin with, and what can follow it on each side."""
        heads = {rest[0] for rest in one | other}
        if len(heads) == 1:
            yield show(heads), _drop_head(one), _drop_head(other)
            return
        mine, theirs = self._by_character(one), self._by_character(other)
        for character in sorted(mine.keys() & theirs.keys()):
            yield character, mine[character], theirs[character]

    def _by_character(self, rests: Rests) -> dict[str, Rests]:
        """Each character that can come next → all that can follow it."""
        out: dict[str, set[tuple[Part, ...]]] = {}
        for head, *tail in rests:
            for character, follows in self._next_of(head).items():
                out.setdefault(character, set()).update((*follow, *tail) for follow in follows)
        return {character: frozenset(follows) for character, follows in out.items()}

    def _openings(self, part: Part) -> Set[str]:
        return self._next[part].keys() if isinstance(part, Symbol) else {part[0]}

    def _next_of(self, part: Part) -> dict[str, Rests]:
        if isinstance(part, Symbol):
            return self._next[part]
        return {part[0]: frozenset([(part[1:],) if part[1:] else ()])}

    @cached_property
    def _next(self) -> dict[Symbol, dict[str, Rests]]:
        """`_by_character` of each symbol."""
        found: dict[Symbol, dict[str, Rests]] = {}
        self.__dict__["_next"] = found  # `_by_character` of a large symbol looks up the smaller ones
        for symbol in self._order:
            found[symbol] = self._by_character(frozenset(parts for _, parts in self.rules[symbol]))
        return found

    def _from_small_to_large(self) -> list[Symbol]:
        """The symbols that can be reached, each after all that it contains."""
        order: list[Symbol] = []
        state: dict[Symbol, str] = {}

        def visit(symbol: Symbol, inside: str) -> None:
            check(symbol in self.rules, f"<{symbol.name}> in {inside}", "every symbol needs a rule", "Add one, or mend the spelling")
            check(state.get(symbol) != "open", f"<{symbol.name}> contains itself", "a grammar must be finite here", "Unroll it")
            if symbol not in state:
                state[symbol] = "open"
                for alternative in self.rules[symbol]:
                    for part in alternative.parts:
                        if isinstance(part, Symbol):
                            visit(part, f"<{symbol.name}>")
                state[symbol] = "done"
                order.append(symbol)

        visit(self.start, "the start")
        return order


def bind(rules: Rules, start: str, slots: Sequence[Mapping[str, str]]) -> dict[str, Sequence[str | tuple[int, str]]]:
    """Rules in which a text from `start` chooses one of `slots`, evenly, and keeps it: `<key>` is that slot's value throughout.

    A context-free grammar cannot remember, so each symbol that mentions a key, directly or not, gets one copy per slot.

    >>> bound = bind({"s": ["<who> greets <who>. "]}, "s", [{"who": "Ann"}, {"who": "Bob"}])
    >>> bound["s"], bound["s@1"]
    (['<s@0>', '<s@1>'], ['Bob greets Bob. '])
    """
    keys = set(slots[0])
    mentions = {name: {part.name for choice in choices for part in _symbols(_text(choice))} for name, choices in rules.items()}
    dependent = set(keys)
    while grown := {name for name, used in mentions.items() if used & dependent} - dependent:
        dependent |= grown
    out = {name: choices for name, choices in rules.items() if name not in dependent}
    for number, slot in enumerate(slots):
        names = {name: f"<{name}@{number}>" for name in dependent - keys} | dict(slot)
        for name in dependent - keys:
            out[f"{name}@{number}"] = [_rename(choice, names) for choice in rules[name]]
    out[start] = [f"<{start}@{number}>" for number in range(len(slots))]
    return out


def split(text: str) -> tuple[Part, ...]:
    """A template as parts: "a <b> c" → ("a ", Symbol("b"), " c")."""
    pieces = re.split(r"<([a-z_]+(?:@[0-9]+)?)>", text)
    parts: Iterator[Part] = (Symbol(piece) if index % 2 else piece for index, piece in enumerate(pieces))
    return tuple(part for part in parts if part)


def _symbols(text: str) -> list[Symbol]:
    return [part for part in split(text) if isinstance(part, Symbol)]


def show(parts: Iterable[Part]) -> str:
    """Parts as a template: the inverse of `split`."""
    return "".join(f"<{part.name}>" if isinstance(part, Symbol) else part for part in parts)


def _text(choice: str | tuple[int, str]) -> str:
    return choice if isinstance(choice, str) else choice[1]


def _rename(choice: str | tuple[int, str], names: Mapping[str, str]) -> str | tuple[int, str]:
    text = "".join(names.get(part.name, show((part,))) if isinstance(part, Symbol) else part for part in split(_text(choice)))
    return text if isinstance(choice, str) else (choice[0], text)


def _alternatives(choices: Sequence[str | tuple[int, str]]) -> tuple[Alternative, ...]:
    weights = [1 if isinstance(choice, str) else choice[0] for choice in choices]
    return tuple(Alternative(weight / sum(weights), split(_text(choice))) for weight, choice in zip(weights, choices, strict=True))


def _integer_weights(choices: Sequence[str | tuple[int, str]]) -> list[int]:
    """Each alternative's index, as often as its weight says."""
    return [index for index, choice in enumerate(choices) for _ in range(1 if isinstance(choice, str) else choice[0])]


def _add(ends: dict[int, Parse], end: int, found: Parse) -> None:
    old = ends.get(end, Parse(0, -math.inf))
    low, high = sorted((old.log_probability, found.log_probability))
    ends[end] = Parse(old.derivations + found.derivations, high + math.log1p(math.exp(low - high)) if low > -math.inf else high)


def _drop_head(rests: Rests) -> Rests:
    return frozenset(rest[1:] for rest in rests)


if __name__ == "__main__":
    menu = Grammar({"order": ["One <hot>, please. ", "<hot>! "], "hot": [(3, "tea"), "soup"]}, start="order")
    menu.check_prefix_free()
    generator = random.Random(0)
    print("sampled:", "".join(menu.sample(generator)[0] for _ in range(4)))
    print(f"exactly: {menu.entropy:.4f} nats and {menu.mean_length:.2f} characters a text = {menu.entropy_rate:.4f} nats per character")
    print("parsed: ", menu.parse("tea! One soup, please. "))
