"""Tokenizers on their way out: AutoTokenizer opens them beside a model and gives the same ids and texts."""

import functools
import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.any_text import ANY_TEXT, PARTS
from tests.hugging_face import transformers
from tiny_transformer.config import ConfigError, ModelConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.pretrained import export_pretrained, load_pretrained
from tiny_transformer.pretrained.chat_template import ChatTemplate
from tiny_transformer.tokenization import train
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.hugging_face_bpe import QWEN2
from tiny_transformer.tokenization.metaspace_bpe import MetaspaceBPE
from tiny_transformer.tokenization.normalized import NormalizedTokenizer

TEXT = " ".join(PARTS) + " to be, or not to be: that is the question\n" * 20
SPECIAL = ["<s>", "</s>", "<pad>", "<|user|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def metaspace():
    pieces = ["<unk>", "<s>", "</s>", *BYTES, *"▁helowrd", "he", "ll", "hell", "hello", "▁hello", "▁w"]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello"), ("▁", "w")]
    made = MetaspaceBPE(pieces, merges, ["<unk>", "<s>", "</s>"], prepend="first", split=False, byte_fallback=True)
    made.template = {"single": ["<s>", "$A"], "pair": ["<s>", "$A", "<s>:1", "$B:1"]}
    return made


def qwen():
    inner = BPETokenizer.train(TEXT, 300, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], split=QWEN2)
    return NormalizedTokenizer(inner, [{"type": "NFC"}])


def llama3():
    made = train("bpe", TEXT, 300, ["<|begin_of_text|>", "<|end_of_text|>"], split="gpt2")
    made.template = {"single": ["<|begin_of_text|>", "$A"], "pair": ["<|begin_of_text|>", "$A", "$B:1"]}
    return made


MADE = {
    "char": lambda: train("char", TEXT, special_tokens=SPECIAL),
    "byte": lambda: train("byte", "", special_tokens=SPECIAL),
    "word": lambda: train("word", TEXT, 60, special_tokens=["<unk>", *SPECIAL]),
    "bpe": lambda: train("bpe", TEXT, 320, SPECIAL),
    "bpe, gpt4": lambda: train("bpe", TEXT, 300, SPECIAL, split="gpt4"),
    "bpe, none": lambda: train("bpe", TEXT, 300, split="none"),
    "wordpiece": lambda: train("wordpiece", TEXT, 300),
    "unigram": lambda: train("unigram", TEXT, 300),
    "metaspace": metaspace,
    "qwen": qwen,
    "llama 3": llama3,
}
FAMILIES = {
    "gpt2": {}, "llama": {"norm": "rms", "position": "rotary", "activation": "swiglu", "bias": "none"},
    "qwen2": {"norm": "rms", "position": "rotary", "activation": "swiglu", "bias": "qkv"},
    "mistral": {"norm": "rms", "position": "rotary", "activation": "swiglu", "bias": "none", "window": 5},
    "qwen3": {"norm": "rms", "position": "rotary", "activation": "swiglu", "bias": "none", "qk_norm": True},
    "bert": {"norm_position": "post", "causal": False, "n_token_types": 2},
}  # fmt: skip
OF = dict(zip(MADE, ["gpt2", "llama", "mistral", "gpt2", "qwen3", "bert", "bert", "llama", "llama", "qwen2", "llama"], strict=True))


@functools.cache
def home():
    return tempfile.TemporaryDirectory()


@functools.cache
def out(name, family=None):
    """(ours, theirs): a tokenizer, and what AutoTokenizer makes of it beside a model of a family."""
    ours, folder = MADE[name](), Path(home().name) / f"{name} {family}"
    config = ModelConfig(vocab_size=ours.vocab_size + 2, max_seq_len=64, d_model=8, n_layers=1, n_heads=2, **FAMILIES[family or OF[name]])
    export_pretrained(TinyTransformerLM(config, seed=0), ours, folder)
    return ours, transformers.AutoTokenizer.from_pretrained(folder), folder


def known_part(ours, text):
    """A text without what characters' own tokenizer refuses."""
    return "".join(c for c in text if c in set(ours.symbols)) if hasattr(ours, "symbols") else text


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(text=ANY_TEXT, special=st.lists(st.integers(0, 9), max_size=2))
def test_ids_and_texts_are_the_same(name, text, special):
    ours, theirs, _ = out(name)
    text = known_part(ours, text)
    tokens = list(ours.special_tokens)
    text = text.join(["", *(tokens[i % len(tokens)] for i in special), ""]) if tokens else text
    ids = ours.encode(text)
    assert theirs(text, add_special_tokens=False).input_ids == ids
    assert theirs.decode(ids) == ours.decode(ids)
    assert theirs.backend_tokenizer.decode(ids, skip_special_tokens=False) == ours.decode(ids)


@pytest.mark.parametrize("name", ["bpe", "unigram", "llama 3", "metaspace"])
@pytest.mark.parametrize("family", FAMILIES)
def test_beside_a_model_of_any_family(name, family):
    """Programs put a class of their own in a tokenizer's place for some kinds of models: not for ours."""
    ours, theirs, _ = out(name, family)
    for text in ("To be  or not,\n 12345 don't\r\n", " hello world", "é👍🏽▁ b"):
        assert theirs(text, add_special_tokens=False).input_ids == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == ours.decode(ours.encode(text))


@pytest.mark.parametrize("name", MADE)
def test_it_comes_back_the_same(name):
    ours, _, folder = out(name)
    _, back = load_pretrained(folder)
    assert type(back) is type(ours) and back.special == ours.special
    assert getattr(back, "template", None) == getattr(ours, "template", None)
    for text in ("to be, or not", *(token for token in ours.special_tokens)):
        assert back.encode(text) == ours.encode(text)
    from tiny_transformer.tokenization import from_dict

    again = from_dict(json.loads(json.dumps(back.to_dict())))
    assert getattr(again, "template", None) == getattr(ours, "template", None), "a run keeps it too"


def test_the_older_files_say_the_same():
    ours, _, folder = out("bpe")
    (folder / "tokenizer.json").rename(folder / "aside")
    try:
        _, back = load_pretrained(folder)
        assert back.encode("To be, or not to be!") == ours.encode("To be, or not to be!")
    finally:
        (folder / "aside").rename(folder / "tokenizer.json")
    _, _, bert = out("wordpiece")
    assert (bert / "vocab.txt").read_text(encoding="utf-8").splitlines()[:2] == ["[PAD]", "[UNK]"]


def test_qwen_2_s_own_tokenizer_stays_qwen_2_s_and_others_make_it_a_llama(tmp_path):
    """transformers 5 cuts text for Qwen 2 in one way, whatever tokenizer.json says."""
    config = ModelConfig(vocab_size=400, max_seq_len=64, d_model=8, n_layers=1, n_heads=2, **FAMILIES["qwen2"])
    model = TinyTransformerLM(config, seed=0).eval()
    kinds = {}
    for name, tokenizer in (("own", MADE["qwen"]()), ("none", None), ("other", MADE["bpe"]())):
        export_pretrained(model, tokenizer, tmp_path / name)
        kinds[name] = json.loads((tmp_path / name / "config.json").read_text())["model_type"]
        back, _ = load_pretrained(tmp_path / name)
        assert back.config == config
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name).eval()
        ids = torch.arange(60)[None] + 1
        with torch.no_grad():
            assert (theirs(ids).logits - model(ids)).abs().max() < 1e-4
    assert kinds == {"own": "qwen2", "none": "qwen2", "other": "llama"}


def test_where_a_chat_ends_decides_which_token_ends_a_text(tmp_path):
    """Qwen's <|im_end|> has no conventional name; its template names it."""
    tokenizer, template = MADE["qwen"](), ChatTemplate("{{ messages[0].content }}", "", "<|im_end|>")
    config = ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=64, d_model=8, n_layers=1, n_heads=2, **FAMILIES["qwen2"])
    export_pretrained(TinyTransformerLM(config, seed=0), tokenizer, tmp_path / "out", chat_template=template)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    end = tokenizer.special_tokens["<|im_end|>"]
    assert (theirs.eos_token, theirs.eos_token_id) == ("<|im_end|>", end) and end != tokenizer.special.eos
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == end


def test_what_the_format_cannot_say_is_refused_before_anything_is_written(tmp_path):
    words = train("word", "to be or not to be", style="wikitext")
    model = TinyTransformerLM(ModelConfig(vocab_size=words.vocab_size, d_model=8, n_layers=1, n_heads=2), seed=0)
    with pytest.raises(ConfigError, match=r"wikitext.*--no-tokenizer") as caught:
        export_pretrained(model, words, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    export_pretrained(model, None, tmp_path / "out")
    assert load_pretrained(tmp_path / "out")[1] is None
    small = TinyTransformerLM(ModelConfig(vocab_size=5, d_model=8, n_layers=1, n_heads=2), seed=0)
    with pytest.raises(ConfigError, match="every token must have a place"):
        export_pretrained(small, MADE["byte"](), tmp_path / "small")
