"""The models of a tokenizer.json but BPE, each with what belongs to it, to our classes and back.

Left out: BPE (`hugging_face_bpe.py`), the parts that all have (`hugging_face_parts.py`), files (`hugging_face.py`).
Read before: `hugging_face_parts.py`.
"""

from tiny_transformer.tokenization import hugging_face_parts as parts
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.tokenization.hugging_face_parts import Part, known_keys, refuse
from tiny_transformer.tokenization.unigram import UnigramTokenizer
from tiny_transformer.tokenization.word import NATURAL, WordTokenizer
from tiny_transformer.tokenization.wordpiece import WordPieceTokenizer

EACH_CHARACTER = r"[\s\S]"


# --- WordPiece --------------------------------------------------------------------------------------------------------


def read_wordpiece(file: Part) -> WordPieceTokenizer:
    """BERT's kind."""
    model, steps = file["model"], parts.read_normalizers(file)
    known_keys(model, ("unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"))
    words = file.get("pre_tokenizer")
    refuse(words != {"type": "BertPreTokenizer"}, f"WordPiece with the pre-tokenizer {words}", "it must be BertPreTokenizer")
    decoder = file.get("decoder") or {"type": "WordPiece"}
    known_keys(decoder, ("prefix", "cleanup"))
    prefix = model.get("continuing_subword_prefix", "##")
    right = decoder["type"] == "WordPiece" and decoder.get("prefix", prefix) == prefix
    refuse(not right, f"WordPiece with the decoder {decoder}", f"it must be WordPiece with the prefix {prefix!r}")
    by_id, special = parts.pieces_by_id(model["vocab"], parts.read_added(file, steps))
    return WordPieceTokenizer(
        parts.in_a_row(by_id), special, unknown=model.get("unk_token", "[UNK]"), prefix=prefix,
        max_chars=model.get("max_input_chars_per_word", 100), normalizers=steps, cleanup=decoder.get("cleanup", True),
    )  # fmt: skip


def write_wordpiece(tokenizer: WordPieceTokenizer) -> Part:
    """Model, pre-tokenizer, decoder, normalizer."""
    model = {
        "type": "WordPiece", "unk_token": tokenizer.unknown, "continuing_subword_prefix": tokenizer.prefix,
        "max_input_chars_per_word": tokenizer.max_chars, "vocab": tokenizer.ids,
    }  # fmt: skip
    decoder = {"type": "WordPiece", "prefix": tokenizer.prefix, "cleanup": tokenizer.cleanup}
    normalizer = parts.sequence(tokenizer.normalizers, "normalizers")
    return {"normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": decoder, "model": model}


# --- Unigram ----------------------------------------------------------------------------------------------------------


def read_unigram(file: Part) -> UnigramTokenizer:
    """SentencePiece's kind."""
    model, steps = file["model"], parts.read_normalizers(file)
    known_keys(model, ("unk_id", "vocab", "byte_fallback"))
    entries, unk = model["vocab"], model.get("unk_id")
    paired = isinstance(entries, list) and all(isinstance(entry, list) and len(entry) == 2 for entry in entries)
    refuse(not paired, "Unigram's vocab", "it must be a list of pieces with scores", "The file is damaged: get it again")
    twice = len({piece for piece, _ in entries}) < len(entries)
    refuse(twice, "a piece that is there twice", "each piece must have one score", "Remove one")
    refuse(unk is not None and not 0 <= unk < len(entries), f"unk_id {unk}", f"there are {len(entries)} pieces", "Mend the file")
    by_id, special = parts.pieces_by_id({piece: i for i, (piece, _) in enumerate(entries)}, parts.read_added(file, steps))
    pieces = parts.in_a_row(by_id)
    settings, byte_fallback = parts.read_spaces(file, steps), bool(model.get("byte_fallback"))
    scores = [*(score for _, score in entries), *(0.0 for _ in pieces[len(entries) :])]
    return UnigramTokenizer(
        pieces, scores, special, byte_fallback=byte_fallback, unknown=None if unk is None else entries[unk][0], normalizers=steps,
        first_space=parts.read_first_space(file, settings, byte_fallback), **settings,
    )  # fmt: skip


def write_unigram(tokenizer: UnigramTokenizer) -> Part:
    """Model, pre-tokenizer, decoder, normalizer."""
    pre_tokenizer, decoder = parts.write_spaces(tokenizer)
    model = {
        "type": "Unigram", "unk_id": None if tokenizer.unknown is None else tokenizer.ids[tokenizer.unknown],
        "vocab": [[piece, score] for piece, score in zip(tokenizer.pieces, tokenizer.scores, strict=True)],
        "byte_fallback": tokenizer.byte_fallback,
    }  # fmt: skip
    normalizer = parts.sequence(tokenizer.normalizers, "normalizers")
    return {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": decoder, "model": model}


# --- words and characters ---------------------------------------------------------------------------------------------


def read_word_level(file: Part) -> CharTokenizer | WordTokenizer:
    """What `write_char` and `write_word` have written; other word-level tokenizers have rules that we do not."""
    model, words = file["model"], file.get("pre_tokenizer") or {}
    pattern = words.get("pattern", {}).get("Regex") if words.get("type") == "Split" else None
    known = pattern in (EACH_CHARACTER, NATURAL.pattern) and words.get("behavior") == "Isolated" and not words.get("invert")
    refuse(not known or bool(file.get("normalizer")), "a WordLevel model", "we read those that we have written", ELSEWHERE_WORDS)
    by_id, special = parts.pieces_by_id(model["vocab"], parts.read_added(file, []))
    pieces = parts.in_a_row(by_id)
    if pattern != EACH_CHARACTER:
        return WordTokenizer(pieces, special, unknown=model["unk_token"])
    symbols = pieces[: len(pieces) - len(special)]
    refuse(pieces[len(symbols) :] != special, "special tokens among the characters", "they must have the last ids", "Number them so")
    return CharTokenizer(symbols, special)


ELSEWHERE_WORDS = "Train a word tokenizer of ours, or use the tokenizers library for this file"


def write_char(tokenizer: CharTokenizer) -> Part:
    """Characters as words of one character. An unknown one is an error there too."""
    broken = next((symbol for symbol in tokenizer.symbols if "\ud800" <= symbol <= "\udfff"), None)
    refuse(broken is not None, f"the symbol {broken!r}", "a lone surrogate cannot stand in a JSON file", "Train without it")
    return _word_level({symbol: i for i, symbol in enumerate(tokenizer.symbols)}, "<unk>", EACH_CHARACTER)


def write_word(tokenizer: WordTokenizer) -> Part:
    """Words of style "natural"."""
    refuse(tokenizer.style != "natural", f"words of style {tokenizer.style!r}", "the format has no decoder for them", "Keep to_dict's JSON")
    return _word_level(tokenizer.ids, str(tokenizer.unknown), NATURAL.pattern)


def _word_level(ids: dict[str, int], unknown: str, pattern: str) -> Part:
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    model = {"type": "WordLevel", "vocab": ids, "unk_token": unknown}
    return {"normalizer": None, "pre_tokenizer": cut, "decoder": {"type": "Fuse"}, "model": model}


if __name__ == "__main__":
    words = WordTokenizer.train("the cat and the dog", vocab_size=4)
    print(write_word(words))
    try:
        write_word(WordTokenizer.train("the cat", style="wikitext"))
    except ValueError as error:
        print("caught:", error)
