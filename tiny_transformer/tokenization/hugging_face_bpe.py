"""BPE in a tokenizer.json: byte-level, as GPT-2, Llama 3 and Qwen write it, or over characters, as Llama 2 does; to our classes and back.

Left out: other models (`hugging_face_models.py`), the parts that all have (`hugging_face_parts.py`), files (`hugging_face.py`).
Read before: `hugging_face_parts.py`.
"""

import re
from collections.abc import Mapping

from tiny_transformer.tokenization import hugging_face_parts as parts
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.bpe_encoding import PieceEncoder
from tiny_transformer.tokenization.byte import ByteTokenizer
from tiny_transformer.tokenization.hugging_face_parts import ELSEWHERE, Part, known_keys, refuse
from tiny_transformer.tokenization.metaspace_bpe import MetaspaceBPE
from tiny_transformer.tokenization.normalized import NormalizedTokenizer
from tiny_transformer.tokenization.splitting import PATTERNS
from tiny_transformer.tokenization.vocabulary_files import spell, unspell

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""tiktoken's cl100k_base as Llama 3 writes it. It cuts white space at the end of a text behind a line end, where our "gpt4", like
tiktoken, leaves it whole; so it stays a pattern of its own."""
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
"""The same with one digit at a time: how Qwen 2, 2.5 and 3 cut text."""
BPE_KEYS = ("unk_token", "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges")
NOT_HONOURED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")


def read_bpe(file: Part) -> BPETokenizer | ByteTokenizer | MetaspaceBPE | NormalizedTokenizer:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen write it, or SentencePiece's, as Llama 2 does."""
    model = file["model"]
    known_keys(model, (*BPE_KEYS, *NOT_HONOURED))
    for key in NOT_HONOURED:
        refuse(bool(model.get(key)), f"BPE with {key} {model.get(key)!r}", "we do not honour that")
    cuts = parts.flat(file.get("pre_tokenizer"), "pretokenizers")
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    broken = next((merge for merge in merges if len(merge) != 2 or not all(merge)), None)
    refuse(broken is not None, f"merge {broken}", "it must be two tokens", "Mend the file")
    if cuts and cuts[-1]["type"] == "ByteLevel":
        return _read_byte_level(file, merges, _read_split(cuts))
    return _read_metaspace_bpe(file, merges)


def _read_split(cuts: list[Part]) -> str:
    """The name of a split pattern, or the pattern."""
    level = cuts[-1]
    known_keys(level, ("add_prefix_space", "trim_offsets", "use_regex"))
    refuse(bool(level.get("add_prefix_space")), "ByteLevel with add_prefix_space", "we do not honour that", "Set it to false")
    if len(cuts) == 1:
        return "gpt2" if level.get("use_regex", True) else "none"
    split = cuts[0]
    shape = len(cuts) == 2 and split["type"] == "Split" and split.get("behavior") == "Isolated" and not split.get("invert")
    shape = shape and isinstance(split.get("pattern", {}).get("Regex"), str) and not level.get("use_regex", True)
    names = " + ".join(part["type"] for part in cuts)
    refuse(not shape, f"pre-tokenizer {names}", "it must be ByteLevel, or an isolating Split by a Regex and ByteLevel without one")
    pattern: str = split["pattern"]["Regex"]
    named = {known: name for name, known in PATTERNS.items()}
    return named.get(pattern) or check_pattern(pattern)


def check_pattern(pattern: str) -> str:
    r"""The pattern, when it means the same to the library's engine, Oniguruma, and to ours. \w does not: there it holds marks."""
    odd = re.search(r"\\[wWbBhHRXGKA]|\[\[:|&&|[\d,]\}\+|\(\?[a-z]*[mx]", pattern)
    refuse(odd is not None, f"the pattern {pattern!r}", f"{odd and odd.group()!r} means other things in other engines", ELSEWHERE)
    return pattern


def _read_byte_level(file: Part, merges: list[tuple[str, ...]], split: str) -> BPETokenizer | ByteTokenizer | NormalizedTokenizer:
    model, steps = file["model"], parts.read_normalizers(file)
    decoder = file.get("decoder") or {"type": "ByteLevel"}
    refuse(decoder["type"] != "ByteLevel", f"decoder {decoder['type']}", "with byte-level pieces it must be ByteLevel")
    refuse(bool(model.get("byte_fallback")), "byte_fallback with ByteLevel", "one of the two spells bytes", "Set it to false")
    by_id, special = parts.pieces_by_id(model["vocab"], parts.read_added(file, steps))
    try:
        pairs = [(unspell(left), unspell(right)) for left, right in merges]
        vocab = {i: unspell(piece) for i, piece in by_id.items() if piece not in special}
    except ValueError as error:
        raise ValueError(f"tokenizer.json: {error}: with ByteLevel, each character of a token is a byte. Mend the file") from error
    present = set(vocab.values())
    lacking = next((byte for byte in range(256) if bytes([byte]) not in present), None)
    refuse(lacking is not None, f"no token for the byte 0x{lacking or 0:02X}", "byte-level BPE needs all 256")
    ids = {token: i for i, token in by_id.items() if token in special}
    bytes_only = not pairs and split == "none" and vocab == {i: bytes([i]) for i in range(256)}
    bytes_only = bytes_only and list(ids.items()) == [(token, 256 + i) for i, token in enumerate(special)]
    tokenizer = ByteTokenizer(special) if bytes_only else BPETokenizer(vocab, pairs, ids, split=split)
    if model.get("ignore_merges"):
        _check_reachable(vocab, pairs)
    return NormalizedTokenizer(tokenizer, steps) if steps else tokenizer


def _check_reachable(vocab: Mapping[int, bytes], merges: list[tuple[bytes, bytes]]) -> None:
    """`ignore_merges` takes a word that is a token as that token; where the merges lead to each token it changes nothing."""
    encoder = PieceEncoder({token: i for i, token in vocab.items()}, merges)
    lost = next((token for token in vocab.values() if len(encoder.encode(token)) > 1), None)
    refuse(lost is not None, f"ignore_merges, and the merges do not lead to {spell(lost or b'')!r}", "we follow the merges")


def _read_metaspace_bpe(file: Part, merges: list[tuple[str, ...]]) -> MetaspaceBPE:
    model, steps = file["model"], parts.read_normalizers(file)
    refuse(bool(model.get("ignore_merges")), "ignore_merges without ByteLevel", "we do not honour that", "Set it to false")
    by_id, special = parts.pieces_by_id(model["vocab"], parts.read_added(file, steps))
    settings, byte_fallback = parts.read_spaces(file, steps), bool(model.get("byte_fallback"))
    return MetaspaceBPE(
        parts.in_a_row(by_id), merges, special, unknown=model.get("unk_token"), fuse_unknown=bool(model.get("fuse_unk")),
        byte_fallback=byte_fallback, normalizers=steps, first_space=parts.read_first_space(file, settings, byte_fallback), **settings,
    )  # fmt: skip


def write_metaspace_bpe(tokenizer: MetaspaceBPE) -> Part:
    """Model, pre-tokenizer, decoder, normalizer."""
    pre_tokenizer, decoder = parts.write_spaces(tokenizer)
    model = _bpe_model(tokenizer.ids, [list(pair) for pair in tokenizer.merges], tokenizer.unknown)
    model |= {"fuse_unk": tokenizer.fuse_unknown, "byte_fallback": tokenizer.byte_fallback}
    normalizer = parts.sequence(tokenizer.normalizers, "normalizers")
    return {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": decoder, "model": model}


def write_bpe(tokenizer: BPETokenizer) -> Part:
    """Model, pre-tokenizer, decoder of a byte-level BPE."""
    special = {i: token for token, i in tokenizer.special_tokens.items()}
    ids = {special.get(i) or spell(token): i for i, token in tokenizer.vocab.items()}
    refuse(len(ids) < len(tokenizer.vocab), "a special token spelled like another token", "the format names each once", "Rename it")
    merges = [[spell(left), spell(right)] for left, right in tokenizer.merges]
    return {**_byte_level(tokenizer.split), "model": _bpe_model(ids, merges, None)}


def write_byte(tokenizer: ByteTokenizer) -> Part:
    """Bytes: byte-level BPE without a merge."""
    ids = {spell(bytes([value])): value for value in range(256)} | dict(tokenizer.special_tokens)
    return {**_byte_level("none"), "model": _bpe_model(ids, [], None)}


def _bpe_model(ids: dict[str, int], merges: list[list[str]], unknown: str | None) -> Part:
    return {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": ids, "merges": merges,
    }  # fmt: skip


def _byte_level(split: str) -> Part:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": split == "gpt2"}
    pattern = {"gpt2": None, "none": None}.get(split, PATTERNS.get(split, split))
    if split not in PATTERNS:
        check_pattern(split)
    cut = [] if pattern is None else [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}]
    return {"normalizer": None, "pre_tokenizer": parts.sequence([*cut, level], "pretokenizers"), "decoder": level}


if __name__ == "__main__":
    tokenizer = BPETokenizer.train("the then there " * 3, 260, ["</s>"], split="gpt4")
    written = write_bpe(tokenizer)
    print(written["pre_tokenizer"]["pretokenizers"][0]["pattern"])
    print(written["model"]["merges"], "the last pieces", list(written["model"]["vocab"].items())[-4:])
