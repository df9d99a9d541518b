"""Other people's weights: the same logits, gradients, parameter counts and texts as transformers, for every family."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.hugging_face import BERT, CASES, CAUSAL, make, rounded, stored, transformers
from tiny_transformer import pretrained
from tiny_transformer.config import PRESETS, SampleConfig
from tiny_transformer.numpy_engine.model import TinyTransformerLM as NumpyModel
from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.pretrained.accounting import open_source
from tiny_transformer.pretrained.families import FAMILIES
from tiny_transformer.pretrained.family import to_hugging_face, to_model_config
from tiny_transformer.pretrained.names import rules_of
from tiny_transformer.sampling.generator import TextGenerator, naive_generate
from tiny_transformer.training.dataset import Batch
from tiny_transformer.utils.reference import reference_path


def ids_for(model, rows=3, seq=41):
    """Random ids; never 0, which is BERT's padding, and gets no gradient as an input there."""
    return torch.randint(1, model.config.vocab_size, (rows, seq), generator=torch.Generator().manual_seed(seq))


def load(name):
    theirs, folder = stored(name)
    ours, tokenizer = pretrained.load_pretrained(folder)
    assert tokenizer is None
    return theirs, ours


@pytest.mark.parametrize("name", CASES)
def test_logits_and_parameter_counts_are_theirs(name):
    theirs, ours = load(name)
    ids = ids_for(ours)
    with torch.no_grad():
        wanted, found = theirs(ids).logits, ours(ids)
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() < 1e-4
        assert wanted.std() > 0.1, "logits that are all alike would prove nothing"
        with reference_path():
            assert (ours(ids) - wanted).abs().max() < 1e-4
    assert not ours.training
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters()) == ours.config.n_parameters


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_theirs(name):
    theirs, ours = load(name)
    ids, targets = ids_for(ours, seq=23), ids_for(ours, seq=24)[:, 1:]
    for model in (theirs, ours):
        model.zero_grad()
    F.cross_entropy(theirs(ids).logits.flatten(0, 1), targets.flatten()).backward()
    F.cross_entropy(ours(ids).flatten(0, 1), targets.flatten()).backward()
    wanted = {key: weight.grad.numpy() for key, weight in theirs.named_parameters()}
    mine = {key: weight.grad.numpy() for key, weight in ours.named_parameters()}
    rules = rules_of(FAMILIES[theirs.config.model_type].table, ours.config)
    assert {one.theirs for one in rules} == set(wanted)
    for one in rules:
        limit = 2e-5 * max(1.0, np.abs(wanted[one.theirs]).max())
        np.testing.assert_allclose(one.join(mine), wanted[one.theirs], atol=limit, err_msg=one.theirs)


class Alphabet:
    """As much of a tokenizer as writing ids needs."""

    def __init__(self, size):
        self.vocab_size = size


@pytest.mark.parametrize("name", CAUSAL)
def test_sixty_four_greedy_tokens_are_theirs_with_and_without_cache(name):
    theirs, ours = load(name)
    prompt, greedy = ids_for(ours, rows=1, seq=11), SampleConfig(temperature=0, top_k=None, max_tokens=64)
    with torch.no_grad():
        theirs.generation_config.eos_token_id = None  # no token ends a text
        cached = theirs.generate(prompt, max_new_tokens=64, do_sample=False, use_cache=True)[0, 11:].tolist()
        assert len(cached) == 64
        whole = theirs(torch.cat((prompt[0], torch.tensor(cached)))[None]).logits[0]
        assert whole[10:-1].argmax(-1).tolist() == cached, "their cache changes nothing either"
        steps = TextGenerator(ours, Alphabet(ours.config.vocab_size)).steps([prompt[0].tolist()], greedy)
        assert [step.tokens.item() for step in steps] == cached
        assert naive_generate(ours, prompt[0].tolist(), greedy) == cached
    assert len(set(cached)) > 3, "one token again and again would prove little"


@pytest.mark.parametrize("name", ["gpt2", "llama 3", "mistral, window", "qwen2", "qwen3", "bert, three types, relu"])
def test_the_numpy_engine_gives_the_same(name):
    theirs, ours = load(name)
    twin = NumpyModel(ours.config, {key: tensor.numpy() for key, tensor in ours.weights().items()})
    ids = ids_for(ours, seq=19)
    wanted = theirs(ids).logits.detach().numpy()
    assert np.abs(twin.forward(ids.numpy()) - wanted).max() < 1e-4
    loss, gradients = twin.loss_and_gradients(Batch(ids.numpy(), ids.numpy()))
    theirs.zero_grad()
    expected = F.cross_entropy(theirs(ids).logits.flatten(0, 1), ids.flatten())
    expected.backward()
    assert abs(loss - expected.item()) < 1e-4
    for one in rules_of(FAMILIES[theirs.config.model_type].table, ours.config):
        wanted = theirs.get_parameter(one.theirs).grad.numpy()
        np.testing.assert_allclose(one.join(gradients), wanted, atol=1e-4 * max(1.0, np.abs(wanted).max()), err_msg=one.theirs)


def test_bert_with_token_types_and_padding_gives_their_logits_and_hidden_states():
    theirs, ours = load("bert, three types, relu")
    ids, types = ids_for(ours, seq=13), torch.arange(39).view(3, 13) % 3
    there = torch.arange(13) < torch.tensor([[13], [7], [10]])  # (batch, seq), True = a token
    with torch.no_grad():
        wanted = theirs(ids, attention_mask=there.long(), token_type_ids=types, output_hidden_states=True)
        hidden = ours.hidden(ids, there[:, None, :], token_types=types)
        assert (hidden - wanted.hidden_states[-1])[there].abs().max() < 1e-4
        assert (ours.unembed(hidden) - wanted.logits)[there].abs().max() < 1e-4


@pytest.mark.parametrize(("cls", "kept"), [("BertModel", False), ("BertForPreTraining", True)])
def test_other_berts(cls, kept, tmp_path):
    """A BERT that was saved without its head has the same hidden states; pooler and next-sentence layer stay behind, and it says so."""
    made = getattr(transformers, cls)
    theirs = made(made.config_class(**BERT)).eval()
    theirs.save_pretrained(tmp_path)
    source = open_source(tmp_path)
    ours, _ = pretrained.load_pretrained(tmp_path)
    ids = ids_for(ours, seq=9)
    with torch.no_grad():
        trunk = theirs.bert if kept else theirs
        assert (ours.hidden(ids) - trunk(ids).last_hidden_state).abs().max() < 1e-4
        if kept:
            assert (ours(ids) - theirs(ids).prediction_logits).abs().max() < 1e-4
    notes = " ".join(source.notes)
    assert "pooler.dense.weight" in notes
    assert ("unembed.dense.weight" in notes) is not kept
    assert ("cls.seq_relationship.weight" in notes) is kept


@pytest.mark.parametrize("cls", ["GPT2Model", "LlamaModel"])
def test_saved_without_an_output_layer(cls, tmp_path):
    """Tied, nothing is lacking; untied, the output layer is missed by name."""
    made = getattr(transformers, cls)
    settings = CASES["gpt2" if cls == "GPT2Model" else "llama, grouped"][1]
    theirs = made(made.config_class(**settings, **({} if cls == "GPT2Model" else {"tie_word_embeddings": True}))).eval()
    theirs.save_pretrained(tmp_path)
    ours, _ = pretrained.load_pretrained(tmp_path)
    ids = ids_for(ours)
    with torch.no_grad():
        assert (ours.hidden(ids) - theirs(ids).last_hidden_state).abs().max() < 1e-4


# --- kinds of files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "bert"])
def test_several_files_are_one_model(name, tmp_path):
    theirs, folder = stored(name)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    one, several = pretrained.load_pretrained(folder)[0].weights(), pretrained.load_pretrained(tmp_path)[0].weights()
    assert all(torch.equal(one[key], several[key]) for key in one)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["gpt2", "llama, grouped"])
def test_other_number_formats_are_widened_exactly(name, dtype, tmp_path):
    make(name).to(dtype).save_pretrained(tmp_path)
    theirs = rounded(name, dtype)
    ours, _ = pretrained.load_pretrained(tmp_path)
    rules = rules_of(FAMILIES[theirs.config.model_type].table, ours.config)
    mine = {key: weight.numpy() for key, weight in ours.weights().items()}
    for one in rules:
        wanted = theirs.get_parameter(one.theirs).detach().numpy()
        assert one.join(mine).dtype == np.float32
        assert (one.join(mine) == wanted).all(), one.theirs
    ids = ids_for(ours)
    with torch.no_grad():
        assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-4


def test_weights_may_stay_bfloat16(tmp_path):
    make("llama, grouped").to(torch.bfloat16).save_pretrained(tmp_path)
    ours, _ = pretrained.load_pretrained(tmp_path, torch.bfloat16)
    wide, _ = pretrained.load_pretrained(tmp_path)
    assert {weight.dtype for weight in ours.weights().values()} == {torch.bfloat16}
    assert all(torch.equal(weight.float(), wide.weights()[key]) for key, weight in ours.weights().items())
    assert ours.cosines.dtype == torch.float32


@pytest.mark.parametrize("old_form", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pickled_files_of_tensors(old_form, dtype, tmp_path):
    theirs = rounded("qwen2", dtype)
    theirs.config.save_pretrained(tmp_path)
    stored_weights = {key: weight.to(dtype) for key, weight in theirs.state_dict().items()}
    torch.save(stored_weights, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not old_form)
    ours, _ = pretrained.load_pretrained(tmp_path)
    ids = ids_for(ours)
    with torch.no_grad():
        assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-4


def test_a_loaded_model_is_like_any_other(tmp_path):
    """It trains, moves between types, is tied where it should be, and goes through a checkpoint."""
    from tiny_transformer import run
    from tiny_transformer.utils.checkpoint import Checkpoint

    _, ours = load("llama, one kv head, tied, odd width")
    assert ours.unembed.weight is ours.embeddings.token.weight
    assert all(weight.requires_grad for weight in ours.parameters())
    assert list(ours.weights()) == list(weight_shapes(ours.config))
    ids = ids_for(ours)
    created = run.Run.create(tmp_path / "imported", {})
    created.save(Checkpoint(ours.config, None, ours.weights()))
    again, _ = run.load(tmp_path / "imported")
    assert torch.equal(again(ids), ours(ids))


# --- sizes of the real models -----------------------------------------------------------------------------------------

MISTRAL = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_key_value_heads": 8}
LLAMA3 = {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_key_value_heads": 8, "rope_theta": 500000.0}
SIZES = {
    "GPT-2": ("gpt2", {}, 124_439_808),
    "GPT-2 medium": ("gpt2", {"n_layer": 24, "n_head": 16, "n_embd": 1024}, 354_823_168),
    "GPT-2 large": ("gpt2", {"n_layer": 36, "n_head": 20, "n_embd": 1280}, 774_030_080),
    "GPT-2 XL": ("gpt2", {"n_layer": 48, "n_head": 25, "n_embd": 1600}, 1_557_611_200),
    "Llama 2 7B": ("llama", {"max_position_embeddings": 4096}, 6_738_415_616),
    "Llama 3 8B": ("llama", LLAMA3, 8_030_261_248),
    "Llama 3.2 1B": (
        "llama",
        {
            **LLAMA3, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64, "tie_word_embeddings": True,
            "rope_scaling": {
                "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
        1_235_814_400,
    ),
    "Mistral 7B": ("mistral", MISTRAL, 7_241_732_096),
    "Qwen 2.5 0.5B": (
        "qwen2",
        {
            "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        494_032_768,
    ),
    "Qwen 3 0.6B": (
        "qwen3",
        {
            "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
            "head_dim": 128, "tie_word_embeddings": True,
        },
        596_049_920,
    ),
    "BERT base": ("bert", {}, 109_514_298),
    "BERT large": (
        "bert", {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}, 335_174_458,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_real_models_have_exactly_their_parameters(name):
    """Ours by counting, transformers' without memory, and the number that is published."""
    kind, settings, published = SIZES[name]
    config = to_model_config(FAMILIES[kind], {"model_type": kind, **settings})
    assert config.n_parameters == published
    assert sum(int(np.prod(shape)) for shape in weight_shapes(config).values()) == published
    cls = getattr(transformers, FAMILIES[kind].architecture)
    with torch.device("meta"):
        theirs = cls(cls.config_class(**settings))
    assert sum(p.numel() for p in theirs.parameters()) == published
    shapes = weight_shapes(config)
    assert {one.theirs: one.their_shape(shapes) for one in rules_of(FAMILIES[kind].table, config)} == {
        key: tuple(p.shape) for key, p in theirs.named_parameters()
    }


PRESETS_OF = {"gpt2": "gpt2", "gpt2-xl": "gpt2", "llama2-7b": "llama", "llama3.2-1b": "llama", "bert-base": "bert"}


@pytest.mark.parametrize(("preset", "kind"), PRESETS_OF.items())
def test_presets_are_what_config_json_gives(preset, kind):
    family, config = FAMILIES[kind], PRESETS[preset]
    again = to_model_config(family, to_hugging_face(family, config))
    config = replace(config, d_ff=config.ff_width, n_kv_heads=config.kv_heads, d_head=config.head_width)
    assert replace(again, dropout=config.dropout, n_kv_heads=again.kv_heads, d_head=again.head_width) == config


# --- the real weights -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_gpt2():
    folder = os.environ.get("TINY_GPT2_WEIGHTS")
    if not folder:
        pytest.skip("TINY_GPT2_WEIGHTS is not set: it must name a folder with GPT-2's config, weights and tokenizer")
    return Path(folder)


def test_the_real_gpt2(real_gpt2):
    theirs = transformers.GPT2LMHeadModel.from_pretrained(real_gpt2).eval()
    ours, tokenizer = pretrained.load_pretrained(real_gpt2)
    assert ours.config.n_parameters == 124_439_808
    ids = torch.tensor([tokenizer.encode("Hello, I'm a language model,")])
    with torch.no_grad():
        assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-3  # its logits are around -100
        wanted = theirs.generate(ids, max_new_tokens=64, do_sample=False)[0, ids.size(1) :].tolist()
        steps = TextGenerator(ours, tokenizer).steps([ids[0].tolist()], SampleConfig(temperature=0, max_tokens=64))
        assert [step.tokens.item() for step in steps] == wanted
