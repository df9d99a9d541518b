"""The whole model: shapes, the two paths, causality, other people's implementation, and clear errors."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from tests.options import OPTIONS, small_config
from tiny_transformer.attention import create_causal_mask, record_weights
from tiny_transformer.config import ModelConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.utils.reference import reference_path


def make(option="gpt2", seed=0, **more):
    """A small model whose weights are large enough that every part matters."""
    model = TinyTransformerLM(small_config(option, **more), seed=seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            generator = torch.Generator().manual_seed(len(name) + seed)
            noise = torch.randn(weight.shape, generator=generator)
            weight.add_(noise, alpha=0.3 if "norm" in name or name.endswith("bias") else 0.2)
    return model


def random_ids(batch=2, seq=12, seed=0):
    return torch.randint(17, (batch, seq), generator=torch.Generator().manual_seed(seed))


def test_forward_pass():
    config = ModelConfig(vocab_size=65, max_seq_len=32, d_model=64, n_layers=2, n_heads=4)
    model = TinyTransformerLM(config)
    ids = torch.randint(65, (2, 16))
    logits = model(ids)
    assert logits.shape == (2, 16, 65)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert model.hidden(ids).shape == (2, 16, 64)
    torch.testing.assert_close(model.unembed(model.hidden(ids)), logits)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("option", OPTIONS)
def test_fused_equals_readable_in_values_and_gradients(option, causal):
    model = make(option, causal=causal).double()
    ids = random_ids()
    results = []
    for readable in (False, True):
        model.zero_grad()
        if readable:
            with reference_path():
                logits = model(ids)
        else:
            logits = model(ids)
        F.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
        results.append({"logits": logits} | {name: p.grad.clone() for name, p in model.named_parameters()})
    for name, fused in results[0].items():
        torch.testing.assert_close(fused, results[1][name], rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("option", OPTIONS)
def test_both_paths_agree_in_training_with_dropout(option):
    model = make(option, dropout=0.3)
    logits = []
    for readable in (False, True):
        torch.manual_seed(7)
        if readable:
            with reference_path():
                logits.append(model(random_ids()))
        else:
            logits.append(model(random_ids()))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("option", OPTIONS)
@torch.no_grad()
def test_a_changed_future_leaves_the_past_bit_equal(option):
    model = make(option).eval()
    ids = random_ids()
    before = model(ids)
    for position in range(1, 12):
        changed = ids.clone()
        changed[:, position] = (changed[:, position] + 1) % 17
        after = model(changed)
        assert torch.equal(after[:, :position], before[:, :position])
        assert not torch.equal(after[:, position], before[:, position])


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("causal", [True, False])
def test_what_influences_what(option, causal):
    """The support of d logits / d embedding, after all layers: the lower triangle (or all), within the windows' reach."""
    model = make(option, causal=causal).double().eval()
    rows = torch.randn(1, 8, 24, dtype=torch.float64)
    model.embeddings.token.register_forward_hook(lambda *_: rows)

    def logits(x):
        nonlocal rows
        rows = x
        return model(torch.zeros(1, 8, dtype=torch.long))[0, :, :3].sum(-1)

    jacobian = torch.autograd.functional.jacobian(logits, rows.clone())[:, 0].abs().sum(-1)  # (out, in)
    distance = torch.arange(8)[:, None] - torch.arange(8)[None, :]
    reach = 8 if model.config.window is None else 2 * (model.config.window - 1)  # two layers
    expected = distance.abs() <= reach
    if causal:
        expected &= distance >= 0
    assert torch.equal(jacobian > 0, expected)


@torch.no_grad()
def test_without_positions_a_bidirectional_model_commutes_with_permutations():
    model = make("no positions", causal=False).eval()
    ids, order = random_ids(), torch.randperm(12)
    torch.testing.assert_close(model(ids[:, order]), model(ids)[:, order], rtol=1e-4, atol=1e-5)
    for option in ("gpt2", "sinusoidal", "rotary", "alibi"):
        other = make(option, causal=False).eval()
        assert not torch.allclose(other(ids[:, order]), other(ids)[:, order], atol=1e-2)


@torch.no_grad()
def test_equals_transformers_gpt2():
    transformers = pytest.importorskip("transformers", reason="the peer that is compared with")
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=17, n_positions=12, n_embd=24, n_layer=2, n_head=4, attn_implementation="eager")
    ).eval()
    ours = TinyTransformerLM(small_config(activation="gelu_tanh")).eval()
    state, weights = theirs.transformer.state_dict(), {}
    weights["embeddings.token.weight"], weights["embeddings.position.weight"] = state["wte.weight"], state["wpe.weight"]
    for i in range(2):
        for which in ("weight", "bias"):
            parts = state[f"h.{i}.attn.c_attn.{which}"].T.chunk(3) if which == "weight" else state[f"h.{i}.attn.c_attn.bias"].chunk(3)
            for name, part in zip(("W_query", "W_key", "W_value"), parts, strict=True):
                weights[f"blocks.{i}.attention.{name}.{which}"] = part
            for mine, other in (("attention.out_proj", "attn.c_proj"), ("feedforward.up", "mlp.c_fc"), ("feedforward.down", "mlp.c_proj")):
                tensor = state[f"h.{i}.{other}.{which}"]
                weights[f"blocks.{i}.{mine}.{which}"] = tensor.T if which == "weight" else tensor
            weights[f"blocks.{i}.norm1.{which}"], weights[f"blocks.{i}.norm2.{which}"] = (
                state[f"h.{i}.ln_1.{which}"],
                state[f"h.{i}.ln_2.{which}"],
            )
    weights["norm.weight"], weights["norm.bias"] = state["ln_f.weight"], state["ln_f.bias"]
    ours.load_weights(weights)
    torch.testing.assert_close(ours(random_ids()), theirs(random_ids()).logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_equals_transformers_rotary_families(family):
    """Rotary positions, RMS norm, SwiGLU, grouped keys (and QK-norm) as in Llama (and Qwen 3)."""
    transformers = pytest.importorskip("transformers", reason="the peer that is compared with")
    sizes = {"vocab_size": 17, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "max_position_embeddings": 12, "rms_norm_eps": 1e-5, "head_dim": 6,
             "attn_implementation": "eager"}  # fmt: skip
    if family == "llama":
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
    else:
        theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**sizes)).eval()
    config = small_config(
        norm="rms", position="rotary", activation="swiglu", bias="none", tie_weights=False, n_kv_heads=2, d_ff=40, qk_norm=family == "qwen3"
    )
    names = {"embed_tokens": "embeddings.token", "self_attn.q_proj": "attention.W_query", "self_attn.k_proj": "attention.W_key",
             "self_attn.v_proj": "attention.W_value", "self_attn.o_proj": "attention.out_proj", "self_attn.q_norm": "attention.q_norm",
             "self_attn.k_norm": "attention.k_norm", "mlp.gate_proj": "feedforward.gate", "mlp.up_proj": "feedforward.up",
             "mlp.down_proj": "feedforward.down", "input_layernorm": "norm1", "post_attention_layernorm": "norm2",
             "model.": "", "layers.": "blocks.", "lm_head": "unembed"}  # fmt: skip
    weights = {}
    for name, tensor in theirs.state_dict().items():
        for other, mine in names.items():
            name = name.replace(other, mine)
        weights[name] = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name))) * 0.3
        tensor.copy_(weights[name])
    ours = TinyTransformerLM(config).eval()
    ours.load_weights(weights)
    torch.testing.assert_close(ours(random_ids()), theirs(random_ids()).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_weight_learns(option):
    model = make(option)
    F.cross_entropy(model(random_ids()).flatten(0, 1), random_ids(seed=1).flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_tied_weights_are_one_tensor_and_named_once():
    tied, untied = make(), make("untied")
    assert tied.unembed.weight is tied.embeddings.token.weight
    assert "unembed.weight" not in tied.weights() and "unembed.weight" in untied.weights()
    copied = copy.deepcopy(tied)
    assert copied.unembed.weight is copied.embeddings.token.weight


def test_weight_names_are_the_public_schema():
    names = set(make("modern", activation="swiglu", tie_weights=False).weights())
    block = [
        "norm1.weight", "attention.W_query.weight", "attention.W_key.weight", "attention.W_value.weight", "attention.out_proj.weight",
        "attention.q_norm.weight", "attention.k_norm.weight", "norm2.weight",
        "feedforward.up.weight", "feedforward.gate.weight", "feedforward.down.weight",
    ]  # fmt: skip
    expected = {"embeddings.token.weight", "norm.weight", "unembed.weight"} | {f"blocks.{i}.{name}" for i in range(2) for name in block}
    assert names == expected


def test_softcap_bounds_the_logits_and_keeps_their_order():
    capped, plain = make("softcap"), make()
    capped.load_weights(plain.weights())
    with torch.no_grad():
        logits, raw = capped(random_ids()), plain(random_ids())
    assert logits.abs().max() < 2.0 < raw.abs().max()
    torch.testing.assert_close(logits, 2 * torch.tanh(raw / 2))


def test_loading_reports_every_difference_at_once():
    model = make()
    before = {name: tensor.clone() for name, tensor in model.weights().items()}
    weights = dict(before)
    del weights["norm.weight"]
    weights["extra"] = torch.zeros(3)
    weights["norm.bias"] = torch.zeros(5)
    with pytest.raises(
        ValueError, match=r"3 differences.*missing norm\.weight.*unexpected extra.*norm\.bias has shape \(5,\), must be \(24,\)"
    ):
        model.load_weights(weights)
    assert all(torch.equal(model.weights()[name], before[name]) for name in before)


@torch.no_grad()
def test_attention_weights_can_be_had_from_any_model():
    for option in OPTIONS:
        model = make(option).eval()
        expected = model(random_ids())
        with record_weights() as weights:
            logits = model(random_ids())
        assert [tuple(w.shape) for w in weights] == [(2, 4, 12, 12)] * 2
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        for layer in weights:
            torch.testing.assert_close(layer.sum(-1), torch.ones(2, 4, 12))
            assert (layer[..., ~create_causal_mask(12)] == 0).all()


def test_an_extra_mask_hides_tokens():
    model = make().eval()
    ids, mask = random_ids(), torch.ones(2, 12, 12, dtype=torch.bool)
    mask[:, :, 0] = False
    mask[:, 0, 0] = True
    with torch.no_grad():
        masked, changed = model(ids, mask), ids.clone()
        changed[:, 0] = (changed[:, 0] + 1) % 17
        torch.testing.assert_close(model(changed, mask)[:, 1:], masked[:, 1:])
        with pytest.raises(ValueError, match=r"torch\.bool"):
            model(ids, mask.float())


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (torch.zeros(5, dtype=torch.long), r"must be \(batch, seq\)"),
        (torch.zeros(1, 13, dtype=torch.long), "max_seq_len=12"),
        (torch.tensor([[1, 17]]), "0 to 16"),
        (torch.tensor([[-1, 3]]), "0 to 16"),
    ],
)
def test_bad_ids_are_explained(ids, words):
    with pytest.raises(ValueError, match=words):
        make()(ids)


def test_rotary_and_alibi_run_beyond_the_context():
    for option in ("rotary", "alibi", "no positions"):
        assert make(option)(random_ids(1, 30)).shape == (1, 30, 17)


@pytest.mark.parametrize("option", ["gpt2", "modern", "window alibi"])
def test_ten_steps_learn(option):
    model, ids = make(option), random_ids(4, 13)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("option", ["gpt2", "sinusoidal", "rotary", "alibi", "untied"])
class TestMoves:
    """What `.to(…)` and its kin must leave as it was: the constants, and the tie of the output."""

    def test_positions_keep_their_precision(self, option):
        model = make(option, max_seq_len=300).eval()
        rounded = copy.deepcopy(model).bfloat16().float()
        fresh = TinyTransformerLM(model.config, weights=rounded.weights()).eval()
        ids = random_ids(seq=300)
        torch.testing.assert_close(rounded(ids), fresh(ids))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_every_type_runs_in_both_paths(self, option, dtype):
        model, ids = make(option).to(dtype).eval(), random_ids()
        fused = model(ids)
        with reference_path():
            readable = model(ids)
        assert fused.dtype == readable.dtype == dtype
        tolerance = 0.08 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(fused, readable, atol=tolerance, rtol=tolerance)

    @pytest.mark.parametrize("assign", [False, True])
    def test_from_the_meta_device(self, option, assign):
        model, ids = make(option).eval(), random_ids()
        with torch.device("meta"):
            empty = TinyTransformerLM(model.config)
        if assign:
            empty.load_state_dict(model.state_dict(), assign=True)
        else:
            empty.to_empty(device="cpu")
            empty.load_weights(model.weights())
        assert sum(p.numel() for p in empty.parameters()) == model.config.n_parameters
        torch.testing.assert_close(empty.eval()(ids), model(ids))

    def test_copies_and_pickles(self, option):
        model, ids = make(option).eval(), random_ids()
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(ids), model(ids))
            assert (other.unembed.weight is other.embeddings.token.weight) == model.config.tie_weights

    def test_a_state_dict_is_taken_too(self, option):
        model, other, ids = make(option).eval(), make(option, seed=1).eval(), random_ids()
        other.load_weights(model.state_dict())
        assert torch.equal(other(ids), model(ids))


def test_a_tied_output_that_says_something_else_is_refused():
    model = make()
    weights = {**model.weights(), "unembed.weight": torch.zeros_like(model.embeddings.token.weight)}
    with pytest.raises(ValueError, match=r"unexpected unembed\.weight"):
        model.load_weights(weights)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_ids_of_any_whole_number_type(dtype):
    model, ids = make().eval(), random_ids()
    assert torch.equal(model(ids.to(dtype)), model(ids))


@pytest.mark.parametrize("ids", [random_ids().float(), random_ids().bool(), random_ids().numpy(), random_ids().tolist()])
def test_what_is_no_tensor_of_ids_says_so(ids):
    with pytest.raises(ValueError, match=r"ids (have dtype|are a) .*: they must be .*\. Pass "):
        make()(ids)
