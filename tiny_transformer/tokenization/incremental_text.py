"""Tokens to text while they come: whole characters only, and never a piece of a stop string.

Left out: where the tokens come from (`generator.py`). Read before: `tokenization/base.py`.
"""

from collections.abc import Sequence

from tiny_transformer.tokenization.base import Tokenizer

UNFINISHED = "\ufffd"
"""What a decoder shows for bytes that are no character (yet)."""
CONTEXT = 8
"""Tokens of the prompt that are decoded along with the first new ones."""


class IncrementalText:
    """Push tokens, get the text that has become certain.

    Two things make text uncertain. A character can be spread over tokens (byte-level vocabularies): the decoder then ends with
    U+FFFD, which is held back until the rest comes. And the end of the text can be the beginning of a stop string: it is held
    back until it is one or is not.

    Tokens are decoded together with the few before them, since some decoders treat the beginning of a text differently
    (leading spaces), and only the difference is handed on. The cost per token does not grow with the text.

    >>> from tiny_transformer.tokenization.char import CharTokenizer
    >>> tokenizer = CharTokenizer.train("abc.")
    >>> text = IncrementalText(tokenizer, stop=("bc",))
    >>> [text.push(token) for token in tokenizer.encode("ab.bc")], text.stopped
    (['a', '', 'b.', '', ''], True)
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = (), stop: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.stop = tuple(stop)
        self.stopped = False
        """Whether a stop string has appeared; nothing comes after that."""
        self._context = len(prompt[-CONTEXT:])
        self._ids = list(prompt[-CONTEXT:])
        # The part of the text of _ids that has been handed on.
        self._done = tokenizer.decode(self._ids).removesuffix(UNFINISHED) if self._ids else ""
        self._held = ""

    def push(self, token: int) -> str:
        """Take one more token; return the text that is certain now, often just that token's."""
        if self.stopped:
            return ""
        self._ids.append(token)
        text = self.tokenizer.decode(self._ids)
        certain = text.removesuffix(UNFINISHED)
        new, self._done = certain[len(self._done) :], certain
        if new and certain == text:  # nothing is open: these tokens become the context of the next
            self._ids = self._ids[self._context :]
            self._context, self._done = len(self._ids), self.tokenizer.decode(self._ids)
        return self._hold(new) if self.stop else new

    def finish(self) -> str:
        """What was held back and has turned out to be text."""
        if self.stopped:
            return ""
        new = self.tokenizer.decode(self._ids)[len(self._done) :] if self._ids else ""
        out = self._hold(new)
        out, self._held = out + self._held, ""
        return out

    def _hold(self, new: str) -> str:
        """Add `new` to what is held; return it up to where a stop string is, or may be beginning."""
        self._held += new
        end = find_stop(self._held, self.stop)
        if end is None:
            end = len(self._held) - _possible_beginning(self._held, self.stop)
        else:
            self.stopped = True
        out, self._held = self._held[:end], "" if self.stopped else self._held[end:]
        return out


def find_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where to cut `text`: the beginning of the stop string that is complete first; None when there is none.

    First complete, not first begun: so the cut is the same whether the text comes in characters or in lumps.
    Of several that end at one place, the longest counts.
    """
    found = [(start + len(word), start) for word in stop if (start := text.find(word)) >= 0]
    return min(found)[1] if found else None


def _possible_beginning(text: str, stop: Sequence[str]) -> int:
    """The length of the longest end of `text` that a stop string begins with."""
    longest = min(len(text), max((len(word) for word in stop), default=0) - 1)
    return next((n for n in range(longest, 0, -1) if any(word.startswith(text[-n:]) for word in stop)), 0)


if __name__ == "__main__":
    from tiny_transformer.tokenization.char import CharTokenizer

    tokenizer = CharTokenizer.train("JULIET: ROMEO\n.")
    text = IncrementalText(tokenizer, stop=("\nJULIET:",))
    for token in tokenizer.encode("ROMEO.\nJUL\nJULIET: ROMEO"):
        print(f"{tokenizer.decode([token])!r:6} certain: {text.push(token)!r}")
    print("stopped", text.stopped, "rest", repr(text.finish()))
