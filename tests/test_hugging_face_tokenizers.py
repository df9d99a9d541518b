"""tokenizer.json in and out: what `tokenizers` wrote gives its ids here, what we write gives our ids there, the rest is refused."""

import copy
import json
import os
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.any_text import ANY_TEXT, PARTS, chunks_of, many_texts
from tiny_transformer.config import ConfigError
from tiny_transformer.tokenization import from_dict
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.byte import ByteTokenizer
from tiny_transformer.tokenization.byte_pieces import BYTE_PIECES
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.tokenization.hugging_face import load_tokenizer_json, save_tokenizer_json, to_tokenizer_json
from tiny_transformer.tokenization.hugging_face_bpe import LLAMA3
from tiny_transformer.tokenization.metaspace_bpe import MetaspaceBPE, merge_plain, merge_quick
from tiny_transformer.tokenization.normalized import NormalizedTokenizer
from tiny_transformer.tokenization.unigram import UnigramTokenizer
from tiny_transformer.tokenization.word import WordTokenizer
from tiny_transformer.tokenization.wordpiece import WordPieceTokenizer

TEXT = [" ".join([*PARTS, *many_texts(40, seed=3)]).replace("<unk>", ""), "the other then, there don't won't they'll 12345 end\n" * 6]
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIAL = ["<unk>", "<s>", "</s>"]


def byte_level(split: Regex | None, *, use_regex: bool = False, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    made = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    made.pre_tokenizer = level if split is None else pre_tokenizers.Sequence([pre_tokenizers.Split(split, "isolated"), level])
    made.decoder = decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>", "<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(TEXT, trainer)
    made.add_special_tokens(["<|im_start|>"])
    made.add_tokens([AddedToken("<tool>", normalized=False)])
    return made


def metaspace_bpe(style: str) -> Tokenizer:
    """Trained with word splits, then dressed as Llama 2, Mistral or Gemma."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    pieces = [*SPECIAL, *BYTE_PIECES] if style != "no bytes" else SPECIAL
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=pieces, show_progress=False, limit_alphabet=90)
    trained.train_from_iterator(TEXT, trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    made = Tokenizer(models.BPE(model["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=style != "no bytes"))
    replace = normalizers.Replace(" ", "▁")
    undo = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if style == "llama":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
        made.decoder = decoders.Sequence([*undo, decoders.Strip(" ", 1, 0)])
    elif style == "mistral":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        made.decoder = decoders.Sequence([*undo, decoders.Strip(" ", 1, 0)])
    elif style == "gemma":
        made.normalizer = replace
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        made.decoder = decoders.Sequence(undo)
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        made.decoder = decoders.Metaspace(prepend_scheme="always")
    made.add_special_tokens(SPECIAL)
    return made


def wordpiece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(cleanup=False)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(TEXT, trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False))
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def unigram(lines: bool) -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    mark = pre_tokenizers.Metaspace(prepend_scheme="never" if lines else "always")
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("\n", "isolated"), mark]) if lines else mark
    made.decoder = decoders.Metaspace(prepend_scheme="never" if lines else "always")
    trainer = trainers.UnigramTrainer(vocab_size=600, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(TEXT, trainer)
    template = {"single": "<s> $A </s>", "pair": "<s> $A </s> $B:1 </s>:1", "special_tokens": [("<s>", 1), ("</s>", 2)]}
    made.post_processor = processors.TemplateProcessing(**template)
    return made


@lru_cache
def theirs() -> dict[str, Tokenizer]:
    """One of each kind, made by the library alone."""
    return {
        "gpt2": byte_level(None, use_regex=True),
        "gpt4": byte_level(Regex(LLAMA3)),
        "qwen": byte_level(Regex(QWEN), normalizer=normalizers.NFC()),
        "unsplit": byte_level(None),
        "llama": metaspace_bpe("llama"),
        "mistral": metaspace_bpe("mistral"),
        "gemma": metaspace_bpe("gemma"),
        "no bytes": metaspace_bpe("no bytes"),
        "wordpiece": wordpiece(),
        "unigram": unigram(False),
        "unigram lines": unigram(True),
    }


@lru_cache
def loaded() -> dict:
    return {name: load_tokenizer_json(json.loads(tokenizer.to_str())) for name, tokenizer in theirs().items()}


NAMES = (
    "gpt2", "gpt4", "qwen", "unsplit", "llama", "mistral", "gemma", "no bytes", "wordpiece", "unigram", "unigram lines",
)  # fmt: skip


def test_each_is_read_as_what_it_is():
    kinds = {name: type(tokenizer) for name, tokenizer in loaded().items()}
    assert kinds == {
        **dict.fromkeys(["gpt2", "gpt4", "unsplit"], BPETokenizer), "qwen": NormalizedTokenizer,
        **dict.fromkeys(["llama", "mistral", "gemma", "no bytes"], MetaspaceBPE), "wordpiece": WordPieceTokenizer,
        "unigram": UnigramTokenizer, "unigram lines": UnigramTokenizer,
    }  # fmt: skip
    assert [loaded()[name].split for name in ("gpt2", "gpt4", "unsplit")] == ["gpt2", LLAMA3, "none"]
    assert loaded()["qwen"].inner.split == QWEN


@given(ANY_TEXT)
@example("<s><s>a<|im_start|> <tool>x<|endoftext|><|im_end|>")
@example("  a  <s>  b ▁ c▁")
@example("\n ")
@example("a \n\n  ")
@settings(max_examples=150, deadline=None)
def test_ids_and_text_are_the_library_s(text):
    for name, tokenizer in theirs().items():
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert loaded()[name].encode(text) == ids, name
        assert loaded()[name].decode(ids) == tokenizer.decode(ids, skip_special_tokens=False), name


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_the_library_s_on_many_more_texts_and_again_when_written(name, tmp_path):
    texts = [f"{part}<s>{part[::-1]}</s> the <tool>" if i % 4 == 0 else part for i, part in enumerate(many_texts(700, seed=11))]
    expected = [encoding.ids for encoding in theirs()[name].encode_batch(texts, add_special_tokens=False)]
    ours = loaded()[name]
    assert [ours.encode(text) for text in texts] == expected
    save_tokenizer_json(ours, tmp_path / "tokenizer.json")
    opened = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [encoding.ids for encoding in opened.encode_batch(texts, add_special_tokens=False)] == expected
    # A part that makes no difference may be gone (Gemma's split at spaces that there are not), so decoding is compared too.
    assert opened.decode_batch(expected, skip_special_tokens=False) == [ours.decode(ids) for ids in expected]
    again = load_tokenizer_json(tmp_path / "tokenizer.json")
    assert type(again) is type(ours)
    assert again.to_dict() == ours.to_dict()
    assert to_tokenizer_json(again) == to_tokenizer_json(ours)
    assert getattr(again, "template", None) == getattr(ours, "template", None)


@given(ANY_TEXT, st.lists(st.integers(0, 9)), st.sampled_from(NAMES), st.sampled_from(["all", "none", ["<s>"]]))
@settings(max_examples=400, deadline=None)
def test_a_stream_is_the_joined_text_wherever_it_is_cut(text, sizes, name, allowed):
    tokenizer = loaded()[name]
    allowed = allowed if name != "wordpiece" or isinstance(allowed, str) else ["[SEP]"]
    text = f"{text}<s> <s{text}  the other"
    assert list(tokenizer.encode_iterable(chunks_of(text, sizes), allowed)) == tokenizer.encode(text, allowed)


@pytest.mark.parametrize("name", ["llama", "gemma", "mistral", "no bytes"])
def test_unsplit_streams_are_cut_between_words(name):
    tokenizer = copy.copy(loaded()[name])
    longest = []
    inner = tokenizer._encode_segment
    tokenizer._encode_segment = lambda text, *flags: longest.append(len(text)) or inner(text, *flags)
    assert list(tokenizer.encode_iterable("the  other " for _ in range(500))) == loaded()[name].encode("the  other " * 500)
    assert max(longest) < 40


def test_merges_that_join_words_are_followed():
    pieces, merges = ["<unk>", "▁", "a", "b", "a▁", "a▁b", "▁b"], [("a", "▁"), ("a▁", "b"), ("▁", "b")]
    ours = MetaspaceBPE(pieces, merges, ["<unk>"], split=False)
    library = Tokenizer.from_str(json.dumps(to_tokenizer_json(ours)))
    for text in ("a b", "b b", "aa ba b ", "a  b"):
        assert ours.encode(text) == library.encode(text).ids == list(ours.encode_iterable(text))
    assert ours.encode("a b") == [5]


def test_spaces_in_a_row_are_not_cut_apart():
    ours = MetaspaceBPE(["<unk>", "▁", "a", "▁▁", "▁▁a"], [("▁", "▁"), ("▁▁", "a")], ["<unk>"], split=False)
    library = Tokenizer.from_str(json.dumps(to_tokenizer_json(ours)))
    for text in ("a  a", "  a   a ", "a a"):
        assert list(ours.encode_iterable(text)) == ours.encode(text) == library.encode(text).ids
    assert ours.encode("a  a") == [2, 4]


@given(
    st.text("abc", max_size=12),
    st.lists(st.tuples(st.text("abc", min_size=1, max_size=3), st.text("abc", min_size=1, max_size=3)), unique=True, max_size=9),
)
@settings(max_examples=600, deadline=None)
def test_quick_merging_is_the_plain_one(word, merges):
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    assert merge_quick(word, ranks) == merge_plain(word, ranks)


def test_templates_are_reported_and_not_added():
    bert, t5 = loaded()["wordpiece"], loaded()["unigram"]
    assert bert.template == {"single": ["[CLS]", "$A", "[SEP]"], "pair": ["[CLS]", "$A", "[SEP]", "$B:1", "[SEP]:1"]}
    assert t5.template == {"single": ["<s>", "$A", "</s>"], "pair": ["<s>", "$A", "</s>", "$B:1", "</s>:1"]}
    assert not {2, 3} & set(bert.encode("the other"))
    for name in ("wordpiece", "unigram"):
        opened = Tokenizer.from_str(json.dumps(to_tokenizer_json(loaded()[name])))
        for pair in (("the other",), ("the", "other")):
            ours, before = opened.encode(*pair), theirs()[name].encode(*pair)
            assert (ours.ids, ours.type_ids) == (before.ids, before.type_ids)
    assert from_dict(bert.to_dict()).template == bert.template
    assert bert.with_special_tokens(["<x>"]).template == bert.template


def test_roberta_s_and_llama_3_s_templates():
    values = json.loads(theirs()["gpt2"].to_str())
    values["post_processor"] = {"type": "RobertaProcessing", "sep": ["<s>", 1], "cls": ["<|endoftext|>", 0], "trim_offsets": True}
    values["post_processor"]["add_prefix_space"] = False
    ours = load_tokenizer_json(values)
    assert ours.template == {"single": ["<|endoftext|>", "$A", "<s>"], "pair": ["<|endoftext|>", "$A", "<s>", "<s>", "$B", "<s>"]}
    opened, before = Tokenizer.from_str(json.dumps(to_tokenizer_json(ours))), Tokenizer.from_str(json.dumps(values))
    assert opened.encode("a", "b").ids == before.encode("a", "b").ids
    made = theirs()["gpt4"]
    level = processors.ByteLevel(trim_offsets=False)
    bos = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    made.post_processor = processors.Sequence([level, bos])
    assert load_tokenizer_json(json.loads(made.to_str())).template == {"single": ["<s>", "$A"], "pair": ["<s>", "$A", "<s>:1", "$B:1"]}


def test_merges_as_strings_are_merges_as_pairs():
    values = json.loads(theirs()["gpt2"].to_str())
    pairs = copy.deepcopy(values)
    values["model"]["merges"] = [" ".join(merge) for merge in pairs["model"]["merges"]]
    assert values["model"]["merges"] != pairs["model"]["merges"]
    assert load_tokenizer_json(values).to_dict() == load_tokenizer_json(pairs).to_dict()
    del values["model"]["type"], values["model"]["byte_fallback"], values["model"]["ignore_merges"]
    assert load_tokenizer_json(values).to_dict() == load_tokenizer_json(pairs).to_dict()


def test_an_older_metaspace():
    values = json.loads(theirs()["unigram"].to_str())
    for part in ("pre_tokenizer", "decoder"):
        values[part] = {"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True}
    assert load_tokenizer_json(values).to_dict() == loaded()["unigram"].to_dict()
    values["pre_tokenizer"]["add_prefix_space"] = values["decoder"]["add_prefix_space"] = False
    values["pre_tokenizer"]["prepend_scheme"] = values["decoder"]["prepend_scheme"] = "never"
    before = Tokenizer.from_str(json.dumps(values))
    assert load_tokenizer_json(values).encode("the other") == before.encode("the other", add_special_tokens=False).ids


def test_ignoring_merges_is_fine_where_they_lead_everywhere():
    values = json.loads(theirs()["gpt4"].to_str())
    values["model"]["ignore_merges"] = True
    ours, before = load_tokenizer_json(values), Tokenizer.from_str(json.dumps(values))
    for text in many_texts(300, seed=4):
        assert ours.encode(text) == before.encode(text, add_special_tokens=False).ids
    values["model"]["vocab"]["zq"] = len(values["model"]["vocab"]) + 2
    with pytest.raises(ConfigError, match="ignore_merges, and the merges do not lead to 'zq'"):
        load_tokenizer_json(values)


def test_gpt_2_itself():
    folder = os.environ.get("TINY_GPT2")
    if not folder or not (Path(folder) / "merges.txt").is_file():
        pytest.skip("TINY_GPT2 must name a folder with GPT-2's vocab.json and merges.txt")
    library = Tokenizer(models.BPE.from_file(f"{folder}/vocab.json", f"{folder}/merges.txt"))
    library.pre_tokenizer, library.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    library.add_special_tokens(["<|endoftext|>"])
    ours = load_tokenizer_json(json.loads(library.to_str()))
    texts = many_texts(400, seed=6)
    assert [ours.encode(text) for text in texts] == [encoding.ids for encoding in library.encode_batch(texts)]
    assert ours.vocab_size == 50257
    assert ours.special.eos == 50256


# --- ours, to the library ---------------------------------------------------------------------------------------------


def ours() -> dict:
    text = "".join(TEXT)
    return {
        "char": CharTokenizer.train(text),
        "byte": ByteTokenizer(["<s>", "</s>"]),
        "word": WordTokenizer.train(text, special_tokens=["<s>"]),
        "bpe": BPETokenizer.train(text, 500, ["<s>"], split="gpt2"),
        "bpe gpt4": BPETokenizer.train(text, 500, ["<s>"], split="gpt4"),
        "bpe none": BPETokenizer.train(text[:300], 280, ["<s>"], split="none"),
        "bpe own": BPETokenizer.train(text, 400, ["<s>"], split=r"\p{L}+|\s*[^\p{L}\s]"),
        "wordpiece": WordPieceTokenizer.train(text, 700),
        "unigram": UnigramTokenizer.train(text, 700, ["<s>"]),
        "unigram bytes": UnigramTokenizer.train(text, 900, ["<s>"], byte_fallback=True, prepend="first", character_coverage=0.98),
    }


@pytest.mark.parametrize("name", sorted(ours()))
def test_what_we_trained_opens_in_the_library(name, tmp_path):
    tokenizer = ours()[name]
    save_tokenizer_json(tokenizer, tmp_path / "tokenizer.json")
    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = [*many_texts(300, seed=8), "a<s>b", "", "x<s><s> "]
    if name == "char":
        known = set(tokenizer.symbols)
        texts = ["".join(c for c in text if c in known) for text in texts]
        with pytest.raises(Exception, match="Missing .UNK. token"):
            library.encode("\U0010fffe")
    ids = [tokenizer.encode(text) for text in texts]
    assert [encoding.ids for encoding in library.encode_batch(texts)] == ids
    assert library.decode_batch(ids, skip_special_tokens=False) == [tokenizer.decode(one) for one in ids]
    again = load_tokenizer_json(tmp_path / "tokenizer.json")
    assert again.to_dict() == tokenizer.to_dict()
    assert to_tokenizer_json(again) == to_tokenizer_json(tokenizer)
    assert from_dict(tokenizer.to_dict()).to_dict() == tokenizer.to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_more_special_tokens_and_json(name):
    tokenizer = loaded()[name]
    more = tokenizer.with_special_tokens(["<new>"])
    assert more.encode("the<new>other") == [*tokenizer.encode("the"), tokenizer.vocab_size, *more.encode("<new>other")[1:]]
    assert more.vocab_size == tokenizer.vocab_size + 1
    again = type(tokenizer).from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert again.encode("The <s>crème 東京\n") == tokenizer.encode("The <s>crème 東京\n")
    assert again.encode_array("the").tolist() == tokenizer.encode("the")


# --- what is refused --------------------------------------------------------------------------------------------------


def changed(name: str, *path: str | int, to: object) -> dict:
    """A file of the library's with one value changed."""
    values = json.loads(theirs()[name].to_str())
    at = values
    for key in path[:-1]:
        at = at[key]
    if isinstance(at, list) and path[-1] == "add":
        at.append(to)
    else:
        at[path[-1]] = to
    return values


TRUNCATION = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
CUT = {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Removed", "invert": False}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
REFUSED = {
    "model 'Word2Vec'": ("gpt2", ("model", "type"), "Word2Vec"),
    "no model": ("gpt2", ("model",), None),
    "'colour'": ("gpt2", ("colour",), "red"),
    "truncation is set": ("gpt2", ("truncation",), TRUNCATION),
    "padding is set": ("wordpiece", ("padding",), {"strategy": "BatchLongest"}),
    "normalizer 'Precompiled'": ("unigram", ("normalizer",), {"type": "Precompiled", "precompiled_charsmap": ""}),
    "normalizer 'Nmt'": ("gpt2", ("normalizer",), {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Nmt"}]}),
    "BPE with dropout 0.1": ("gpt2", ("model", "dropout"), 0.1),
    "BPE with end_of_word_suffix '</w>'": ("gpt2", ("model", "end_of_word_suffix"), "</w>"),
    "BPE with continuing_subword_prefix": ("gpt2", ("model", "continuing_subword_prefix"), "##"),
    "ByteLevel with add_prefix_space": ("gpt2", ("pre_tokenizer", "add_prefix_space"), True),
    "BPE with 'speed'": ("gpt2", ("model", "speed"), 1),
    "pre-tokenizer Split [+] ByteLevel": ("gpt2", ("pre_tokenizer",), {"type": "Sequence", "pretokenizers": [CUT, LEVEL]}),
    "the pattern .*means other": ("gpt4", ("pre_tokenizer", "pretokenizers", 0, "pattern"), {"Regex": r"\w+"}),
    "pre-tokenizer Digits [+] ByteLevel": ("gpt2", ("pre_tokenizer",), {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, LEVEL]}),
    "byte_fallback with ByteLevel": ("gpt2", ("model", "byte_fallback"), True),
    "decoder WordPiece": ("gpt2", ("decoder",), {"type": "WordPiece", "prefix": "##", "cleanup": True}),
    "stands for no byte": ("gpt2", ("model", "vocab", "日本"), 999),
    "is not in the vocabulary": ("gpt2", ("model", "merges", 0), ["Ġ", "ÿÿ"]),
    "it must be two tokens": ("gpt2", ("model", "merges", 0), ["Ġ"]),
    "the id '7'": ("gpt2", ("model", "vocab", "a"), "7"),
    "each id must have one token": ("gpt2", ("model", "vocab", "a"), 70),
    "added token '<s>' with the id 1": ("gpt2", ("model", "vocab", "<s>"), 900),
    "added token '<s>' with lstrip": ("gpt2", ("added_tokens", 1, "lstrip"), True),
    "added token '<s>' with single_word": ("gpt2", ("added_tokens", 1, "single_word"), True),
    "added token '<s>' is normalized": ("unigram", ("added_tokens", 1, "normalized"), True),
    "must have a content": ("gpt2", ("added_tokens", "add"), {"id": 3}),
    "'<s>' twice": ("gpt2", ("added_tokens", "add"), {"id": 1, "content": "<s>"}),
    "overlap": ("gpt2", ("added_tokens", "add"), {"id": 604, "content": "><", "normalized": True}),
    "two post-processors": ("wordpiece", ("post_processor",), {"type": "Sequence", "processors": [
        {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}] * 2}),
    "post-processor Magic": ("wordpiece", ("post_processor",), {"type": "Magic"}),
    "WordPiece with the pre-tokenizer": ("wordpiece", ("pre_tokenizer",), {"type": "Whitespace"}),
    "WordPiece with the decoder": ("wordpiece", ("decoder", "prefix"), "@@"),
    "WordPiece with the decoder ": ("wordpiece", ("decoder",), {"type": "BPEDecoder"}),
    "no token has the id": ("wordpiece", ("added_tokens", "add"), {"id": 901, "content": "<x>"}),
    "unk_id 10000": ("unigram", ("model", "unk_id"), 10_000),
    "Metaspace, or a Split": ("unigram", ("pre_tokenizer",), {"type": "WhitespaceSplit"}),
    "no pre-tokenizer": ("unigram", ("pre_tokenizer",), None),
    "decoder Metaspace for '_'": ("unigram", ("decoder", "replacement"), "_"),
    "decoder BPEDecoder": ("llama", ("decoder",), {"type": "BPEDecoder"}),
    "it must strip one space": ("llama", ("decoder", "decoders", 3, "start"), 2),
    "it must replace": ("llama", ("decoder", "decoders", 0, "content"), "_"),
    "ignore_merges without": ("llama", ("model", "ignore_merges"), True),
    "a part is missing": ("gpt2", ("model", "vocab"), None),
    "list of pieces with scores": ("unigram", ("model", "vocab"), [["a"]]),
    "among pretokenizers": ("gpt2", ("pre_tokenizer",), "ByteLevel"),
    "a WordLevel model": ("gpt2", ("model",), {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}),
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_we_cannot_honour_is_refused_by_name(words):
    name, path, value = REFUSED[words]
    with pytest.raises(ValueError, match=words.strip()) as error:
        load_tokenizer_json(changed(name, *path, to=value))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


DAMAGED = [(b"{", "line 1: this is no JSON"), (b"\xff{}", "byte 0 is not UTF-8"), (b"[]", "holds list"), (b"", "no JSON")]
DAMAGED += [(b"{}", "no model")]


@pytest.mark.parametrize(("data", "words"), DAMAGED)
def test_a_damaged_file_is_one_line(data, words, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(ConfigError, match=words) as error:
        load_tokenizer_json(tmp_path / "tokenizer.json")
    assert "\n" not in str(error.value)


def test_what_the_format_cannot_say_is_not_written():
    with pytest.raises(ConfigError, match="style 'wikitext'"):
        to_tokenizer_json(WordTokenizer.train("a b", style="wikitext"))
    with pytest.raises(ConfigError, match=r"the pattern '.*means other things in other engines"):
        to_tokenizer_json(BPETokenizer.train("a b", 256, split=r"\b"))
    with pytest.raises(ConfigError, match="lone surrogate"):
        to_tokenizer_json(CharTokenizer(["\ud800"]))
    with pytest.raises(ConfigError, match="a str: written are BPETokenizer"):
        to_tokenizer_json("tokenizer")
    with pytest.raises(ConfigError, match="first_space 'all'"):
        to_tokenizer_json(UnigramTokenizer(["<unk>"], [0.0], first_space="all"))
    with pytest.raises(ConfigError, match="merge 0 of 'a' and 'b': 'ab' must be a piece"):
        MetaspaceBPE(["<unk>", "a", "b"], [("a", "b")])
