"""A tokenizer as a GGUF file's values, and back: byte-level BPE ("gpt2"), SentencePiece's BPE ("llama"), WordPiece ("bert").

Every token of the model needs an entry, so rows without a token get a name that no text has. What these values do not say (another way
of cutting, a normalizer), and tokenizers that no GGUF reader has (characters, bytes, words, Unigram), go into a value of our own beside
them: so what is read is what was written. Other programs then have the tokens, or none, and are told nothing wrong.
Left out: the file (`gguf_file.py`). Read before: `tokenization/bpe.py`, `tokenization/metaspace_bpe.py`, `tokenization/wordpiece.py`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tiny_transformer import tokenization
from tiny_transformer.config import ConfigError, check
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.byte_pieces import BYTE_PIECES
from tiny_transformer.tokenization.hugging_face_bpe import LLAMA3, QWEN2
from tiny_transformer.tokenization.metaspace_bpe import MetaspaceBPE
from tiny_transformer.tokenization.normalized import NormalizedTokenizer
from tiny_transformer.tokenization.vocabulary_files import spell, unspell
from tiny_transformer.tokenization.wordpiece import WordPieceTokenizer

Values = dict[str, Any]
OWN_KEY = "tiny_transformer.tokenizer"
"""JSON of the tokenizer's `to_dict`."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""What a token is (`tokenizer.ggml.token_type`)."""
NO_MODEL = "none"
CUTS: dict[str, str] = {"gpt-2": "gpt2", "llama-bpe": LLAMA3, "qwen2": QWEN2}
"""`tokenizer.ggml.pre` → our `split`."""
SAME_CUTS = {"default": "gpt-2", "llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}
"""Other names in use."""
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "mask": "mask"}
"""Ours → theirs, in `tokenizer.ggml.NAME_token_id`."""


def to_values(tokenizer: Tokenizer, vocab_size: int) -> tuple[Values, list[str]]:
    """The values of a tokenizer for a model with `vocab_size` rows, and what a person should know.

    Raises ConfigError where it has more tokens than the model.
    """
    fits = tokenizer.vocab_size <= vocab_size
    check(fits, f"the tokenizer has {tokenizer.vocab_size} tokens", f"the model has {vocab_size}", "Choose the tokenizer of this model")
    inner = tokenizer.inner if isinstance(tokenizer, NormalizedTokenizer) else tokenizer
    write = WRITERS.get(type(inner))
    values = None if write is None else write(inner, vocab_size)
    if values is None:
        kind = tokenizer.to_dict()["kind"]
        note = f"no GGUF reader has a tokenizer like this one ({kind}): it is in {OWN_KEY}, and other programs get the model without"
        return {"tokenizer.ggml.model": NO_MODEL, OWN_KEY: _json(tokenizer)}, [note]
    values |= {f"tokenizer.ggml.{theirs}_token_id": i for ours, theirs in ROLES.items() if (i := getattr(inner.special, ours)) is not None}
    again = from_values(values)
    if again is None or again.to_dict() != tokenizer.to_dict():
        values[OWN_KEY] = _json(tokenizer)
        return values, [f"some settings of the tokenizer have no place in GGUF: they are in {OWN_KEY}"]
    return values, []


def from_values(values: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer that a file describes; None where it has none. Raises ConfigError for one that we don't have or that is damaged."""
    if OWN_KEY in values:
        try:
            own: Tokenizer = tokenization.from_dict(json.loads(values[OWN_KEY]))
            return own
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"{OWN_KEY} can't be read ({error}). Get the file again") from error
    model = values.get("tokenizer.ggml.model", NO_MODEL)
    if model in (NO_MODEL, "no_vocab"):
        return None
    must = f"read are {', '.join(READERS)}"
    check(model in READERS, f"the file has a tokenizer of kind {model!r}", must, "Load it without its tokenizer: --no-tokenizer")
    tokens = values.get("tokenizer.ggml.tokens")
    kinds = values.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens or ())
    right = isinstance(tokens, list) and all(isinstance(token, str) for token in tokens) and len(kinds) == len(tokens)
    check(right, "tokenizer.ggml.tokens and token_type", "each token needs one type", "Get the file again")
    try:
        return READERS[model](values, list(tokens or ()), kinds)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"the file's tokenizer lacks {error}. Load it without its tokenizer: --no-tokenizer") from error


def _json(tokenizer: Tokenizer) -> str:
    return json.dumps(tokenizer.to_dict())


def _filled(tokens: Mapping[int, tuple[str, int]], vocab_size: int) -> Values:
    """Tokens and what they are; a row without a token gets a name of its own."""
    taken = {token for token, _ in tokens.values()}
    rows = [tokens.get(i, (_free(f"[PAD{i}]", taken), UNUSED)) for i in range(vocab_size)]
    return {"tokenizer.ggml.tokens": [token for token, _ in rows], "tokenizer.ggml.token_type": [kind for _, kind in rows]}


def _free(name: str, taken: set[str]) -> str:
    return name if name not in taken else _free(f"[{name}]", taken)


def _used(tokens: Sequence[str], kinds: Sequence[int]) -> dict[int, str]:
    """Id → token, without the rows that have none."""
    return {i: token for i, token in enumerate(tokens) if kinds[i] != UNUSED}


def _in_a_row(tokens: Mapping[int, str]) -> list[str]:
    """The tokens by id. Raises ConfigError where unused rows stand between them."""
    check(
        set(tokens) == set(range(len(tokens))),
        "tokens with gaps between their ids",
        "they must come in a row",
        "Load it without its tokenizer: --no-tokenizer",
    )
    return [tokens[i] for i in range(len(tokens))]


# --- byte-level BPE ---------------------------------------------------------------------------------------------------


def _write_bpe(tokenizer: BPETokenizer, vocab_size: int) -> Values | None:
    name = next((name for name, split in CUTS.items() if split == tokenizer.split), None)
    special = {i: token for token, i in tokenizer.special_tokens.items()}
    tokens = {i: (special[i], CONTROL) if i in special else (spell(token), NORMAL) for i, token in tokenizer.vocab.items()}
    if name is None or len({token for token, _ in tokens.values()}) < len(tokens):
        return None
    merges = [f"{spell(left)} {spell(right)}" for left, right in tokenizer.merges]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name, **_filled(tokens, vocab_size), "tokenizer.ggml.merges": merges}


def _read_bpe(values: Mapping[str, Any], tokens: list[str], kinds: list[int]) -> Tokenizer:
    name = values.get("tokenizer.ggml.pre", "default")
    name = SAME_CUTS.get(name, name)
    known = f"read are {', '.join(CUTS)}"
    check(name in CUTS, f"the file's tokenizer cuts texts as {name!r}", known, "Load it without its tokenizer: --no-tokenizer")
    special = {token: i for i, token in enumerate(tokens) if kinds[i] in (CONTROL, USER_DEFINED)}
    try:
        vocab = {i: unspell(token) for i, token in _used(tokens, kinds).items() if token not in special}
        merges = [(unspell(left), unspell(right)) for left, right in (merge.split(" ") for merge in values["tokenizer.ggml.merges"])]
        return BPETokenizer(vocab, merges, special, split=CUTS[name])
    except ValueError as error:
        raise ConfigError(f"the file's tokenizer: {error}. Load it without its tokenizer: --no-tokenizer") from error


# --- SentencePiece's BPE ----------------------------------------------------------------------------------------------


def _write_metaspace(tokenizer: MetaspaceBPE, vocab_size: int) -> Values:
    special, bytes_too = set(tokenizer.special_tokens), set(BYTE_PIECES) if tokenizer.byte_fallback else set()

    def kind(piece: str) -> int:
        return UNKNOWN if piece == tokenizer.unknown else CONTROL if piece in special else BYTE if piece in bytes_too else NORMAL

    made: dict[str, int] = {}
    for rank, (left, right) in enumerate(tokenizer.merges):
        made.setdefault(left + right, rank)
    scores = [-float(made.get(piece, 0)) for piece in tokenizer.pieces] + [0.0] * (vocab_size - len(tokenizer.pieces))
    tokens = {i: (piece, kind(piece)) for i, piece in enumerate(tokenizer.pieces)}
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", **_filled(tokens, vocab_size), "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in tokenizer.merges],
        "tokenizer.ggml.add_space_prefix": tokenizer.prepend != "never",
    }  # fmt: skip


def _read_metaspace(values: Mapping[str, Any], tokens: list[str], kinds: list[int]) -> Tokenizer:
    pieces = _in_a_row(_used(tokens, kinds))
    unknown = next((piece for piece, kind in zip(pieces, kinds, strict=False) if kind == UNKNOWN), None)
    special = [piece for piece, kind in zip(pieces, kinds, strict=False) if kind in (UNKNOWN, CONTROL, USER_DEFINED)]
    merges = values.get("tokenizer.ggml.merges")
    pairs = [merge.split(" ") for merge in merges] if merges else recover_merges(pieces, values["tokenizer.ggml.scores"], set(special))
    return MetaspaceBPE(
        pieces, pairs, special, unknown=unknown, byte_fallback=BYTE in kinds, split=False,
        prepend="first" if values.get("tokenizer.ggml.add_space_prefix", True) else "never",
    )  # fmt: skip


def recover_merges(pieces: Sequence[str], scores: Sequence[float], special: set[str]) -> list[tuple[str, str]]:
    """SentencePiece's BPE has scores and no merges: of the neighbours whose join is a piece, the join with the highest score is made.

    So each way to cut a piece into two is a merge, and the scores are their order; halves of equal pieces by the pieces' ids.
    """
    ids = {piece: i for i, piece in enumerate(pieces) if piece not in special}
    found = [
        (-scores[i], i, ids[piece[:cut]], (piece[:cut], piece[cut:]))
        for piece, i in ids.items()
        for cut in range(1, len(piece))
        if piece not in BYTE_PIECES and piece[:cut] in ids and piece[cut:] in ids
    ]
    return [pair for *_, pair in sorted(found)]


# --- WordPiece --------------------------------------------------------------------------------------------------------


def _write_wordpiece(tokenizer: WordPieceTokenizer, vocab_size: int) -> Values | None:
    special = set(tokenizer.special_tokens)

    def spelled(piece: str) -> str:
        return piece if piece in special else piece[2:] if piece.startswith("##") and len(piece) > 2 else "▁" + piece

    tokens = {i: (spelled(piece), CONTROL if piece in special else NORMAL) for i, piece in enumerate(tokenizer.pieces)}
    if tokenizer.prefix != "##":
        return None
    more = {f"tokenizer.ggml.{name}_token_id": tokenizer.ids[token] for name, token in BERT_IDS.items() if token in tokenizer.ids}
    return {"tokenizer.ggml.model": "bert", "tokenizer.ggml.pre": "default", **_filled(tokens, vocab_size), **more}


BERT_IDS = {"cls": "[CLS]", "seperator": "[SEP]"}  # so spelled in the format


def _read_wordpiece(values: Mapping[str, Any], tokens: list[str], kinds: list[int]) -> Tokenizer:
    def piece(token: str, kind: int) -> str:
        bracketed = token.startswith("[") and token.endswith("]") and len(token) > 2
        return token if kind in (CONTROL, UNKNOWN) or bracketed else token[1:] if token.startswith("▁") else "##" + token

    used = _used(tokens, kinds)
    pieces = _in_a_row({i: piece(token, kinds[i]) for i, token in used.items()})
    special = [token for i, token in used.items() if kinds[i] in (CONTROL, UNKNOWN)] or [token for token in BERT_NAMES if token in pieces]
    return WordPieceTokenizer(pieces, special, unknown="[UNK]")


BERT_NAMES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

WRITERS: dict[type, Callable[[Any, int], Values | None]] = {
    BPETokenizer: _write_bpe, MetaspaceBPE: _write_metaspace, WordPieceTokenizer: _write_wordpiece,
}  # fmt: skip
READERS: dict[str, Callable[[Mapping[str, Any], list[str], list[int]], Tokenizer]] = {
    "gpt2": _read_bpe, "llama": _read_metaspace, "bert": _read_wordpiece,
}  # fmt: skip


if __name__ == "__main__":
    text = "the then there other another " * 9
    for kind, size in (("bpe", 262), ("wordpiece", 40), ("char", None)):
        tokenizer = tokenization.train(kind, text, size)
        values, notes = to_values(tokenizer, tokenizer.vocab_size + 1)
        print(values["tokenizer.ggml.model"], values.get("tokenizer.ggml.tokens", [])[-4:], notes)
        again = from_values(values)
        print("back the same:", again is not None and again.to_dict() == tokenizer.to_dict())
