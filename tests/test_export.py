"""The way out: what transformers opens has the same logits, what comes back is the same, what no family can say is refused."""

import json
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from tests.hugging_face import CASES, make, stored, transformers
from tiny_transformer.config import Activation, Bias, ConfigError, ModelConfig, Norm, SampleConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.pretrained import export_pretrained, load_pretrained
from tiny_transformer.pretrained.chat_template import ChatTemplate
from tiny_transformer.pretrained.expressing import express
from tiny_transformer.pretrained.families import FAMILIES
from tiny_transformer.sampling.generator import TextGenerator
from tiny_transformer.tokenization import train

SMALL = {"vocab_size": 61, "max_seq_len": 24, "d_model": 24, "n_layers": 2, "n_heads": 3, "d_ff": 40}
LLAMA = {**SMALL, "norm": "rms", "position": "rotary", "activation": "swiglu"}
LLAMA3 = {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8}


def random_model(config, seed=0):
    """Every weight random, norms and biases too: nothing can hide in a 0 or a 1."""
    model, generator = TinyTransformerLM(config, seed=0).eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            weight.copy_(around + torch.randn(weight.shape, generator=generator) * (0.1 if name.startswith("embeddings") else 0.25))
    return model


def opened(folder, causal=True):
    """The directory as transformers opens it, which must find every weight and use each one."""
    cls = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMaskedLM
    theirs, info = cls.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return theirs.eval()


def ids_for(config, rows=2):
    return torch.randint(1, config.vocab_size, (rows, config.max_seq_len), generator=torch.Generator().manual_seed(config.vocab_size))


def assert_same_logits(theirs, ours):
    ids = ids_for(ours.config) if ours.config.vocab_size > 1 else torch.zeros(2, ours.config.max_seq_len, dtype=torch.long)
    with torch.no_grad():
        wanted = ours(ids)
        assert (theirs(ids).logits - wanted).abs().max() < 1e-4
        assert ours.config.vocab_size < 3 or wanted.std() > 0.01, "logits that are all alike would prove nothing"


# --- theirs, in and out again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_in_and_out_again_is_the_identity(name, tmp_path):
    theirs, folder = stored(name)
    ours, _ = load_pretrained(folder)
    export_pretrained(ours, None, tmp_path / "out")
    again = opened(tmp_path / "out", ours.config.causal)
    assert type(again) is (transformers.LlamaForCausalLM if name == "mistral, no window" else type(theirs)), "the simplest family"
    wanted, found = theirs.state_dict(), again.state_dict()
    assert set(found) == set(wanted)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted), "bit by bit"
    assert_same_logits(again, ours)
    back, tokenizer = load_pretrained(tmp_path / "out")
    assert tokenizer is None and back.config == ours.config
    assert all(torch.equal(weight, ours.weights()[key]) for key, weight in back.weights().items())


def test_an_untied_bert(tmp_path):
    """Both of its output biases are there, as its program has it."""
    theirs = make("bert", tie_word_embeddings=False)
    with torch.no_grad():
        theirs.cls.predictions.decoder.bias.copy_(theirs.cls.predictions.bias)
    theirs.save_pretrained(tmp_path / "in")
    ours, _ = load_pretrained(tmp_path / "in")
    export_pretrained(ours, None, tmp_path / "out")
    again = opened(tmp_path / "out", causal=False)
    assert all(torch.equal(again.state_dict()[key], weight) for key, weight in theirs.state_dict().items())
    assert_same_logits(again, ours)


# --- ours, out and in again -------------------------------------------------------------------------------------------

SIZES = {
    "vocab_size": st.integers(1, 70), "max_seq_len": st.integers(1, 20), "d_model": st.integers(1, 12).map(lambda n: 2 * n),
    "n_layers": st.integers(1, 2), "n_heads": st.integers(1, 4), "d_ff": st.none() | st.integers(1, 30),
    "norm_eps": st.sampled_from([1e-5, 1e-6, 1e-3]), "tie_weights": st.booleans(), "dropout": st.sampled_from([0.0, 0.1]),
}  # fmt: skip


@st.composite
def configs(draw, kind):
    """Configs that a family has the parts of, in every combination, of any size."""
    values = {name: draw(values) for name, values in SIZES.items()}
    heads = values["n_heads"]
    bias = draw(st.sampled_from(get_args(Bias)))
    if kind == "llama":
        window = None if bias == "all" else draw(st.none() | st.integers(1, 25))
        scaling = draw(st.none() | st.just({"type": "linear", "factor": 4.0}) | st.just(LLAMA3))
        more = {
            "norm": "rms", "position": "rotary", "activation": "swiglu", "window": window, "rope_scaling": scaling,
            "n_kv_heads": draw(st.sampled_from([None, *(n for n in range(1, heads + 1) if heads % n == 0)])),
            "d_head": draw(st.integers(1, 5)) * 2, "qk_norm": bias == "none" and draw(st.booleans()),
            "rope_theta": draw(st.sampled_from([10_000.0, 500.0])),
        }  # fmt: skip
        if bias == "all" and values["d_model"] % heads:
            more["n_heads"], more["n_kv_heads"] = 1, None
    else:
        values["d_model"] *= heads
        more = {"norm": "layer", "activation": draw(st.sampled_from([a for a in get_args(Activation) if a != "swiglu"]))}
        more |= {"rope_theta": 77.0, "window": draw(st.sampled_from([None, 20]))}  # neither does anything
        if kind == "bert":
            more |= {"n_token_types": draw(st.integers(1, 3)), "causal": False, "norm_position": "post"}
    return ModelConfig(**{**values, **more, "bias": bias})


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_our_models_go_out_and_come_back(kind, data, tmp_path_factory):
    config = data.draw(configs(kind))
    ours, folder = random_model(config, seed=1), tmp_path_factory.mktemp("out")
    export_pretrained(ours, None, folder)
    assert_same_logits(opened(folder, config.causal), ours)
    back, _ = load_pretrained(folder)
    assert back.config == config
    assert set(back.weights()) == set(ours.weights())
    assert all(torch.equal(back.weights()[name], weight) for name, weight in ours.weights().items())
    values = json.loads((folder / "config.json").read_text())
    del values["tiny_transformer"]  # another program need not keep it
    (folder / "config.json").write_text(json.dumps(values))
    plain, _ = load_pretrained(folder)
    assert same_but_for_the_documented(config, plain.config)
    assert all(torch.equal(plain.weights()[name], weight) for name, weight in ours.weights().items())
    assert all(name.endswith(".bias") and not weight.any() for name, weight in plain.weights().items() if name not in ours.weights())
    ids = ids_for(config) if config.vocab_size > 1 else torch.zeros(1, 1, dtype=torch.long)
    with torch.no_grad():
        assert torch.equal(plain(ids), ours(ids)), "biases of 0 change no bit"


def same_but_for_the_documented(config, back):
    """Equal, but for sizes that were left to their defaults, dropout, settings that do nothing here, and biases of 0."""
    idle = {"rope_theta": back.rope_theta, "rope_scaling": back.rope_scaling} if config.position != "rotary" else {}
    window = None if config.window is not None and config.window >= config.max_seq_len else config.window
    filled = {"n_kv_heads": config.kv_heads, "d_head": config.head_width, "d_ff": config.ff_width}
    known = replace(config, window=window, dropout=0.0, bias=back.bias, **idle, **filled)
    grown = (config.bias, back.bias) in {(config.bias, config.bias), ("none", "all"), ("qkv", "all")}
    return grown and known == replace(back, dropout=0.0, n_kv_heads=back.kv_heads, d_head=back.head_width, d_ff=back.ff_width)


def test_biases_that_another_program_has_trained_come_back(tmp_path):
    """They went out as 0. What our own words say is used only where it is still so."""
    ours = random_model(ModelConfig(**SMALL, bias="none"))
    export_pretrained(ours, None, tmp_path / "out")
    theirs = opened(tmp_path / "out")
    with torch.no_grad():
        theirs.transformer.h[1].mlp.c_fc.bias[3] = 0.5
    theirs.save_pretrained(tmp_path / "trained")
    assert json.loads((tmp_path / "trained" / "config.json").read_text())["tiny_transformer"]["bias"] == "none"
    back, _ = load_pretrained(tmp_path / "trained")
    assert back.config == replace(ours.config, bias="all")
    assert_same_logits(theirs, back)


@pytest.mark.parametrize(
    "own", [None, [], {"wings": 2}, {"d_model": 25}, {"n_layers": 3}, {**ModelConfig(**SMALL).to_dict(), "activation": "relu"}]
)
def test_our_own_words_do_not_count_where_they_say_something_else(own, tmp_path):
    export_pretrained(random_model(ModelConfig(**SMALL)), None, tmp_path / "out")
    file = tmp_path / "out" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tiny_transformer": own}))
    back, _ = load_pretrained(tmp_path / "out")
    assert back.config == ModelConfig(**SMALL)


@pytest.mark.parametrize(
    ("more", "family"),
    [
        (SMALL, "gpt2"), ({**SMALL, "activation": "gelu_tanh", "tie_weights": False}, "gpt2"), ({**SMALL, "activation": "relu2"}, "gpt2"),
        ({**LLAMA, "bias": "none"}, "llama"), ({**LLAMA, "bias": "all"}, "llama"), ({**LLAMA, "bias": "qkv"}, "qwen2"),
        ({**LLAMA, "bias": "none", "window": 8}, "mistral"), ({**LLAMA, "bias": "qkv", "window": 8}, "qwen2"),
        ({**LLAMA, "bias": "none", "qk_norm": True}, "qwen3"), ({**LLAMA, "bias": "none", "qk_norm": True, "window": 3}, "qwen3"),
        ({**LLAMA, "bias": "none", "n_heads": 5, "d_head": 6}, "mistral"),  # Llama's own program refuses heads that do not divide the width
        ({**LLAMA, "bias": "none", "window": 24}, "llama"),  # as long as the context
        ({**SMALL, "n_token_types": 2, "causal": False, "norm_position": "post"}, "bert"),
    ],
)  # fmt: skip
def test_the_simplest_family_is_taken(more, family):
    assert express(ModelConfig(**more)).family is FAMILIES[family]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"ngram_rows": (900,)}, ["ngram_rows=(900,)", "GPT-2", "ngram_rows=()"]),
        ({"logit_softcap": 15.0}, ["logit_softcap=15.0", "logit_softcap=None"]),
        ({"position": "sinusoidal"}, ["position='sinusoidal'", "position='learned'"]),
        ({"position": "alibi"}, ["position='alibi'"]),
        ({"position": "none"}, ["position='none'"]),
        ({"norm_position": "post"}, ["norm_position='post'", "norm_position='pre'"]),
        ({"n_kv_heads": 1}, ["n_kv_heads=1", "GPT-2", "n_kv_heads=3"]),
        ({"d_head": 10}, ["d_head=10", "d_head=8"]),
        ({"d_head": 7, "n_heads": 5}, ["n_heads=5", "n_heads=4", "d_head=7"]),
        ({"window": 5}, ["window=5", "window=None"]),
        ({"norm": "rms", "position": "rotary", "bias": "none", "activation": "relu2"}, ["activation='relu2'", "Llama", "'swiglu'"]),
        ({"norm": "rms", "position": "rotary", "activation": "swiglu", "qk_norm": True, "bias": "qkv"}, ["qk_norm=True", "qk_norm=False"]),
        ({"n_token_types": 2, "causal": False, "norm_position": "post", "activation": "swiglu"}, ["BERT", "activation='swiglu'"]),
        ({"causal": False, "norm_position": "post"}, ["n_token_types=0", "BERT", "n_token_types=1"]),
        ({"n_token_types": 2}, ["n_token_types=2"]),
    ],
)
def test_what_no_family_has_is_refused_by_name_with_what_it_would_have_to_be(more, words, tmp_path):
    config = ModelConfig(**{**SMALL, **more})
    with pytest.raises(ConfigError) as caught:
        export_pretrained(TinyTransformerLM(config, seed=0), None, tmp_path / "out")
    line = str(caught.value)
    assert all(word in line for word in words), line
    assert "\n" not in line and not (tmp_path / "out").exists()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_every_field_is_accounted_for(data):
    """Whatever is said in a config: it goes out and says the same when read back, or it is refused. Nothing is dropped in silence."""
    values = {
        "activation": data.draw(st.sampled_from(get_args(Activation))), "norm": data.draw(st.sampled_from(get_args(Norm))),
        "position": data.draw(st.sampled_from(["learned", "rotary", "learned", "rotary", "sinusoidal", "alibi", "none"])),
        "bias": data.draw(st.sampled_from(get_args(Bias))), "norm_position": data.draw(st.sampled_from(["pre", "pre", "post"])),
        "causal": data.draw(st.booleans()), "n_token_types": data.draw(st.sampled_from([0, 0, 2])), "qk_norm": data.draw(st.booleans()),
        "window": data.draw(st.sampled_from([None, None, 7])), "logit_softcap": data.draw(st.sampled_from([None, None, 2.0])),
        "ngram_rows": data.draw(st.sampled_from([(), (), (50,)])), "tie_weights": data.draw(st.booleans()),
        "n_kv_heads": data.draw(st.sampled_from([None, 1])), "d_head": data.draw(st.sampled_from([None, 8, 6])),
        "rope_scaling": data.draw(st.sampled_from([None, LLAMA3])),
    }  # fmt: skip
    config = ModelConfig(**{**SMALL, **values})
    try:
        found = express(config)
    except ConfigError as error:
        assert "no family has that" in str(error)
        return
    assert same_but_for_the_documented(config, found.config)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_numbers_are_rounded_as_pytorch_rounds(dtype, tmp_path):
    ours = random_model(ModelConfig(**LLAMA, bias="none"))
    export_pretrained(ours, None, tmp_path / "out", dtype=dtype)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {str(tensor.dtype) for tensor in stored.values()} == {f"torch.{dtype}"}
    wanted = ours.weights()["blocks.1.attention.W_key.weight"].to(getattr(torch, dtype))
    assert torch.equal(stored["model.layers.1.self_attn.k_proj.weight"], wanted)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.dtype == getattr(torch, dtype), "config.json says it"
    back, _ = load_pretrained(tmp_path / "out")
    assert torch.equal(back.weights()["blocks.1.attention.W_key.weight"], wanted.float())


def test_a_model_in_bfloat16_goes_out_as_it_is(tmp_path):
    export_pretrained(random_model(ModelConfig(**SMALL)), None, tmp_path / "a", dtype="bfloat16")
    half, _ = load_pretrained(tmp_path / "a", torch.bfloat16)
    export_pretrained(half, None, tmp_path / "b")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_float16_that_would_overflow_is_refused_and_nothing_is_left(tmp_path):
    ours = random_model(ModelConfig(**SMALL))
    with torch.no_grad():
        ours.get_parameter("blocks.1.feedforward.up.weight")[3, 4] = -70000.0
    with pytest.raises(ConfigError, match=r"transformer.h.1.mlp.c_fc.weight holds 70000.*bfloat16"):
        export_pretrained(ours, None, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("most", [1, 3000, 10_000])
def test_several_files_and_their_index(most, tmp_path):
    ours = random_model(ModelConfig(**LLAMA, bias="all"))
    files = export_pretrained(ours, None, tmp_path / "out", shard_size=most)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    shards = [file for file in files if file.suffix == ".safetensors"]
    assert len(shards) > 1 and not (tmp_path / "out" / "model.safetensors").exists()
    assert [file.name for file in shards] == [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    sizes = {}
    for file in shards:
        with safe_open(file, "np") as content:
            held = {name: content.get_tensor(name).nbytes for name in content.keys()}  # noqa: SIM118
        assert {name for name, home in index["weight_map"].items() if home == file.name} == set(held)
        assert sum(held.values()) <= most or len(held) == 1
        sizes |= held
    assert index["metadata"]["total_size"] == sum(sizes.values()) == 4 * ours.config.n_parameters
    assert_same_logits(opened(tmp_path / "out"), ours)


def test_a_directory_that_holds_something_is_refused_or_kept_under_another_name(tmp_path):
    ours, out = random_model(ModelConfig(**SMALL)), tmp_path / "out"
    out.mkdir()
    export_pretrained(ours, None, out)  # an empty one is welcome
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    other = random_model(ModelConfig(**LLAMA), seed=5)
    with pytest.raises(ConfigError, match="is not empty.*--overwrite") as caught:
        export_pretrained(other, None, out)
    assert "\n" not in str(caught.value)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    export_pretrained(other, None, out, overwrite=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out-1").iterdir()} == before, "nothing is lost"
    assert_same_logits(opened(out), other)
    with pytest.raises(ConfigError, match="is a file"):
        export_pretrained(ours, None, out / "config.json")


@pytest.mark.parametrize("broken", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_failure_in_the_middle_leaves_what_was_there(broken, tmp_path, monkeypatch):
    from tiny_transformer.pretrained import exporting
    from tiny_transformer.utils import safetensors_writing

    ours, out, letters = random_model(ModelConfig(**SMALL)), tmp_path / "out", train("char", "to be")
    export_pretrained(ours, None, out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    real = exporting.atomic_save

    def failing(path, write):
        if path.name == broken:
            assert not (path.parent / "config.json").exists(), "config.json is the last one"
            raise OSError(28, "No space left on device", str(path))
        real(path, write)

    monkeypatch.setattr(exporting, "atomic_save", failing)
    monkeypatch.setattr(safetensors_writing, "atomic_save", failing)
    (tmp_path / "empty").mkdir()
    for place, kept in ((out, before), (tmp_path / "new", None), (tmp_path / "empty", {})):
        with pytest.raises(OSError, match="No space left"):
            export_pretrained(random_model(ModelConfig(**SMALL), seed=3), letters, place, overwrite=True)
        assert (None if kept is None else {file.name: file.read_bytes() for file in place.iterdir()}) == kept
        assert place.exists() is (kept is not None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "out"]


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_without_special_tokens_none_is_claimed(tmp_path):
    """Their defaults are ids: Llama's programs would end a text at our third character."""
    letters = train("char", "to be or not to be")
    for name, more in (("a", SMALL), ("b", {**LLAMA, "bias": "none"})):
        export_pretrained(random_model(ModelConfig(**{**more, "vocab_size": letters.vocab_size})), letters, tmp_path / name)
        theirs = opened(tmp_path / name)
        for told in (theirs.config, theirs.generation_config):
            assert (told.bos_token_id, told.eos_token_id, told.pad_token_id) == (None, None, None)


def test_special_tokens_are_named_by_their_ids(tmp_path):
    words = train("word", "to be or not to be", special_tokens=["<unk>", "<s>", "</s>", "<pad>"])
    config = ModelConfig(**{**SMALL, "vocab_size": words.vocab_size + 3})
    template = ChatTemplate("{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}", "<s>", "to")
    export_pretrained(random_model(config), words, tmp_path / "a")
    theirs = opened(tmp_path / "a")
    special = words.special
    assert (theirs.config.bos_token_id, theirs.config.eos_token_id) == (special.bos, special.eos)
    assert theirs.generation_config.eos_token_id == special.eos and theirs.generation_config.pad_token_id == special.pad
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "a")
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("</s>", special.eos)
    assert (tokenizer.unk_token_id, tokenizer.pad_token_id) == (special.unk, special.pad)
    assert tokenizer.model_max_length == config.max_seq_len
    export_pretrained(random_model(config), words, tmp_path / "b", chat_template=template)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "to be"}], tokenize=False) == "<s>to be"


@pytest.mark.parametrize("more", [SMALL, {**LLAMA, "bias": "none"}, {**LLAMA, "bias": "none", "window": 6}, {**LLAMA, "bias": "qkv"}])
def test_greedy_text_is_ours_in_transformers(more, tmp_path):
    text = "to be or not to be, that is the question"
    letters = train("char", text)
    ours = random_model(ModelConfig(**{**more, "vocab_size": letters.vocab_size, "max_seq_len": 64}), seed=2)
    export_pretrained(ours, letters, tmp_path / "out")
    theirs, tokenizer = opened(tmp_path / "out"), transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    prompt = tokenizer("to be or", return_tensors="pt").input_ids
    assert prompt[0].tolist() == letters.encode("to be or")
    written = theirs.generate(prompt, max_new_tokens=40, do_sample=False)[0]
    greedy = SampleConfig(temperature=0, top_k=None, max_tokens=40)
    mine = TextGenerator(ours, letters).generate("to be or", greedy)
    assert tokenizer.decode(written).endswith(str(getattr(mine, "text", mine)))
    assert len(set(written.tolist())) > 5


def test_rows_that_stand_for_no_token_are_not_written_there_either(tmp_path):
    text = "to be or not to be, that is the question"
    letters = train("char", text)
    ours = random_model(ModelConfig(**{**SMALL, "vocab_size": letters.vocab_size + 5, "max_seq_len": 64, "tie_weights": False}))
    with torch.no_grad():
        ours.unembed.weight[letters.vocab_size :] = ours.unembed.weight[: 5] * 3  # often the largest of all
    export_pretrained(ours, letters, tmp_path / "out")
    theirs = opened(tmp_path / "out")
    prompt = torch.tensor([letters.encode("to be or")])
    assert theirs(torch.tensor([letters.encode(text)])).logits.argmax(-1).max() >= letters.vocab_size, "they would win"
    written = theirs.generate(prompt, max_new_tokens=40, do_sample=False)[0]
    mine = TextGenerator(ours, letters).generate("to be or", SampleConfig(temperature=0, top_k=None, max_tokens=40))
    assert letters.decode(written.tolist()).endswith(str(getattr(mine, "text", mine)))


@pytest.mark.parametrize("name", ["blocks.1.attention.W_key.weight", "blocks.0.norm1.bias", "embeddings.position.weight"])
def test_weights_that_are_not_the_config_s_are_refused(name, tmp_path):
    """A bias that is missing is no bias of 0."""
    from tiny_transformer.pretrained.exporting import write_directory
    from tiny_transformer.pretrained.outgoing_model import Model

    config = ModelConfig(**SMALL)
    weights = TinyTransformerLM(config, seed=0).weights()
    fewer, wider = {**weights}, {**weights, name: torch.zeros(3, 3)}
    del fewer[name]
    for odd, what in ((fewer, name), (wider, name), ({**weights, "unembed.weight": torch.zeros(61, 24)}, "unembed.weight")):
        with pytest.raises(ConfigError, match=rf"{what} missing, unexpected or misshapen"):
            write_directory(Model(config, odd), tmp_path / "out")
        assert not (tmp_path / "out").exists()
