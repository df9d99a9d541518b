"""The generator against the naive loop: cache, context edge, batches, stopping, streaming."""

import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.opinionated import opinionated
from tiny_transformer.config import ConfigError, SampleConfig
from tiny_transformer.sampling.decoder import Decoder
from tiny_transformer.sampling.generator import TextGenerator, naive_generate, naive_logits, window_start
from tiny_transformer.sampling.packed import applied, pack
from tiny_transformer.tokenization.base import SpecialTokens
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.tokenization.incremental_text import IncrementalText, find_stop

SYMBOLS = "\n abcdefghijklmno"  # 17, as many as the small model has
EDGE = 12  # the small model's context
PLACES = ["gpt2", "sinusoidal", "rotary", "alibi", "no positions"]
OPTIONS = [*PLACES, "grouped", "one kv head", "window", "window alibi", "window rotary grouped", "post", "modern"]
GREEDY = SampleConfig(temperature=0)
SAMPLED = SampleConfig(temperature=1, top_k=None, seed=7)
FILTERED = SampleConfig(temperature=1.3, top_k=9, top_p=0.95, min_p=0.01, repetition_penalty=1.3, seed=3)


def make(option="gpt2", seed=0, **more):
    return TextGenerator(opinionated(option, seed, **more), CharTokenizer(SYMBOLS))


def ids_of(text):
    return [SYMBOLS.index(character) for character in text]


def text_of(ids):
    return "".join(SYMBOLS[i] for i in ids)


# the window rule


def test_window_start_is_the_smallest_multiple_that_fits():
    for limit in range(1, 14):
        step = max(1, limit // 2)
        for n in range(1, 80):
            start = window_start(n, limit)
            fitting = [s for s in range(0, n, step) if n - s <= limit]
            assert start == (0 if n <= limit else min(fitting))
            assert n - start >= min(n, limit // 2)  # at least half the context is seen


@pytest.mark.parametrize("option", OPTIONS)
def test_logits_equal_the_uncached_ones_past_the_edge(option):
    generator = make(option)
    ids = [3, 1, 4, 1, 5]
    for step in generator.steps([ids], replace(SAMPLED, max_tokens=45)):
        expected = naive_logits(generator.model, torch.tensor([ids]))
        torch.testing.assert_close(step.logits, expected, atol=1e-5, rtol=0)
        ids.append(step.tokens.item())
    assert len(ids) == 50 > 4 * EDGE
    assert len(set(ids)) > 5


@pytest.mark.parametrize("option", OPTIONS)
def test_padded_rows_have_the_logits_of_their_solo_runs(option):
    generator = make(option, seed=1)
    rows = [ids_of("abc"), ids_of("\n"), ids_of("a long golf climb and a fake one"), ids_of("odd one")]
    assert len(rows[2]) > 2 * EDGE
    for step in generator.steps(rows, replace(SAMPLED, max_tokens=30)):
        for row, logits, token in zip(rows, step.logits, step.tokens.tolist(), strict=True):
            torch.testing.assert_close(logits, naive_logits(generator.model, torch.tensor([row]))[0], atol=1e-5, rtol=0)
            row.append(token)


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
@pytest.mark.parametrize("option", PLACES)
def test_tiny_contexts(option, limit):
    generator = make(option, max_seq_len=limit)
    prompts = [ids_of("a"), ids_of("bcdef"), ids_of("no")]
    config = replace(SAMPLED, max_tokens=17)
    together = generator.generate_ids(prompts, config)
    assert together == [naive_generate(generator.model, p, replace(config, seed=7 + i)) for i, p in enumerate(prompts)]


def test_only_new_tokens_are_fed_and_memory_is_taken_once(monkeypatch):
    generator = make()
    fed, places = [], set()
    hidden = generator.model.hidden

    def spy(ids, mask=None, *, cache):
        fed.append(ids.size(1))
        places.update(layer.keys.data_ptr() for layer in cache.layers)
        return hidden(ids, mask, cache=cache)

    monkeypatch.setattr(generator.model, "hidden", spy)
    generator.generate("abc", replace(GREEDY, max_tokens=25))
    # The prompt; one by one up to 12; then 7 tokens are read again (12 + 1 - 6), five times one, and so on.
    assert fed == [3, *[1] * 9, 7, *[1] * 5, 7, *[1] * 5, 7, 1, 1]
    assert len(places) == generator.model.config.n_layers


def test_packed_layers_give_the_same_and_leave_nothing_behind():
    model = opinionated("grouped", bias="qkv")
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    for layer in layers:
        if layer.bias is not None:
            torch.nn.init.normal_(layer.bias)
    forwards = pack(model, rows=5, tokens=100)
    assert set(forwards) in (set(layers), set())  # none on a build of PyTorch that can't
    x = torch.randn(5, 1, 24)
    with torch.inference_mode():
        plain = model.blocks[0].attention(x)
        with applied(forwards):
            packed = model.blocks[0].attention(x)
            assert all(("forward" in layer.__dict__) == bool(forwards) for layer in layers)
    torch.testing.assert_close(packed, plain, atol=1e-5, rtol=1e-5)
    assert not any("forward" in layer.__dict__ for layer in layers)
    assert pack(model, rows=5, tokens=1) == pack(model.double(), rows=5, tokens=100) == {}


def test_packed_layers_see_the_weights_of_today():
    generator = make()
    config = replace(GREEDY, max_tokens=30)
    before = generator.generate_batch(["abc"] * 5, config)
    with torch.no_grad():
        for parameter in generator.model.parameters():
            parameter.copy_(parameter.flip(0))
    after = generator.generate_batch(["abc"] * 5, config)
    assert before != after
    assert ids_of(after[4][3:]) == naive_generate(generator.model, ids_of("abc"), config)


def test_a_short_text_takes_a_short_cache():
    model = opinionated("rotary", max_seq_len=100_000)
    decoder = Decoder(model, [[1, 2, 3]], max_new=7)
    assert decoder.cache.max_len == 10


def test_texts_grow_beyond_the_reserve(monkeypatch):
    monkeypatch.setattr("tiny_transformer.sampling.decoder.RESERVE", 8)
    generator = make(max_seq_len=4)
    config = replace(SAMPLED, max_tokens=50)
    text = generator.generate("ab", config)
    assert text == "ab" + text_of(naive_generate(generator.model, ids_of("ab"), config))


# the same text, whichever way it is asked for


@pytest.mark.parametrize("config", [GREEDY, SAMPLED, FILTERED], ids=["greedy", "sampled", "filtered"])
@pytest.mark.parametrize("option", ["gpt2", "rotary", "alibi", "window rotary grouped"])
def test_every_way_of_writing_equals_the_naive_loop(option, config):
    generator = make(option, seed=2)
    config = replace(config, max_tokens=40)
    prompts = ["abc", "a", "he made a long golf climb and a fake one", "\n\n", "mmmmmmmmmmmm"]
    batch = generator.generate_batch(prompts, config)
    for i, (prompt, text) in enumerate(zip(prompts, batch, strict=True)):
        alone = replace(config, seed=None if config.seed is None else config.seed + i)
        assert text == prompt + text_of(naive_generate(generator.model, ids_of(prompt), alone))
        assert text == generator.generate(prompt, alone)
        assert text == prompt + "".join(generator.stream(prompt, alone))
        assert [ids_of(text[len(prompt) :])] == generator.generate_ids([ids_of(prompt)], alone)


def test_the_seed_decides():
    generator = make()
    config = SampleConfig(max_tokens=60, temperature=1.5, top_k=None)
    write = lambda seed: generator.generate("a", replace(config, seed=seed))  # noqa: E731
    assert write(5) == write(5)
    assert len({write(seed) for seed in range(8)}) == 8
    assert len({write(None) for _ in range(4)}) == 4
    assert len(set(generator.generate_batch(["a"] * 4, config))) == 4
    torch.manual_seed(0)
    first = write(5)
    torch.manual_seed(1)
    assert write(5) == first


def test_rows_of_a_batch_have_neighbouring_seeds():
    generator = make()
    config = replace(SAMPLED, max_tokens=70)  # more than one block of random numbers
    assert generator.generate_batch(["ab"] * 3, config) == [generator.generate("ab", replace(config, seed=7 + i)) for i in range(3)]


def test_sampling_follows_the_models_probabilities():
    generator = make()
    (step,) = generator.steps([ids_of("cab")] * 4000, replace(SAMPLED, max_tokens=1))
    shares = torch.bincount(step.tokens, minlength=17) / 4000
    assert (shares - step.logits[0].softmax(-1)).abs().max() < 0.03


def test_the_repetition_penalty_sees_prompt_and_text_but_no_padding():
    generator = make()
    config = SampleConfig(temperature=0, repetition_penalty=1e6, max_tokens=12)
    for text in generator.generate_batch(["abc", "defg"], config):
        # So strong a penalty sets used tokens with positive logits to zero and drives those with negative ones away.
        assert len(set(text)) >= 12
    texts = generator.generate_batch(["a", "abcdefgh"], config)
    assert texts == [generator.generate("a", config), generator.generate("abcdefgh", config)]


# prompts


def test_an_empty_prompt_starts_from_a_token_that_is_not_shown():
    generator = make()
    config = replace(SAMPLED, max_tokens=20)
    text = generator.generate("", config)
    assert text == generator.generate("\n", config)[1:] and len(text) == 20
    assert text == "".join(generator.stream("", config))
    generator.tokenizer.special = SpecialTokens(bos=5)
    assert generator.generate("", config) == text_of(naive_generate(generator.model, [5], config))
    other = TextGenerator(opinionated(vocab_size=4), CharTokenizer("wxyz"))
    ids = naive_generate(other.model, [0], config)
    assert other.generate("", config) == "".join("wxyz"[i] for i in ids)


def test_a_long_prompt_is_read_by_its_end_and_returned_whole():
    generator = make("rotary")
    prompt = "abcdefghijklmno" * 4
    start = window_start(len(prompt), EDGE)
    assert generator.generate(prompt, replace(GREEDY, max_tokens=1)) == prompt + generator.generate(
        prompt[start:], replace(GREEDY, max_tokens=1)
    ).removeprefix(prompt[start:])


def test_nothing_to_write():
    generator = make()
    none = replace(SAMPLED, max_tokens=0)
    assert generator.generate("abc", none) == "abc"
    assert [*generator.stream("abc", none)] == []
    assert generator.generate_batch([], SAMPLED) == [] == generator.generate_ids([], SAMPLED)


def test_what_can_not_be_read_is_an_error_before_anything_is_written():
    generator = make()
    for write in (generator.generate, generator.stream):
        with pytest.raises(ValueError, match=r"character 'é'.* at position 2"):
            write("abé")
    with pytest.raises(ValueError, match="'Q'"):
        generator.generate_batch(["ab", "Q"])
    for write in (generator.generate, generator.stream):
        with pytest.raises(ConfigError, match="seed=-1"):
            write("ab", SampleConfig(seed=-1))


def test_a_model_that_sees_the_future_is_refused():
    with pytest.raises(ConfigError, match="causal=False"):
        make(causal=False)


@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_damaged_model_is_an_error(config):
    generator = make()
    with torch.no_grad():
        generator.model.norm.weight[0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        generator.generate("abc", config)


def test_tokens_that_the_tokenizer_lacks_are_never_chosen():
    generator = TextGenerator(opinionated(), CharTokenizer("abc"))
    text = generator.generate("a", replace(SAMPLED, temperature=5, max_tokens=100))
    assert set(text) == set("abc")


# the model is left as it was


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_comes_back(training):
    generator = make(dropout=0.5)
    quiet = generator.generate("abc", replace(GREEDY, max_tokens=20))
    generator.model.train(training)
    stream = generator.stream("abc", replace(GREEDY, max_tokens=20))
    pieces = []
    for piece in stream:
        pieces.append(piece)
        assert generator.model.training is training
        assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    assert "abc" + "".join(pieces) == quiet
    assert all(parameter.grad is None and parameter.requires_grad for parameter in generator.model.parameters())
    stream = generator.stream("abc", GREEDY)
    next(stream)
    stream.close()
    assert generator.model.training is training
    loss = generator.model(torch.tensor([[1, 2, 3]])).sum()
    loss.backward()  # no inference tensors have got into the model


def test_two_streams_at_once_do_not_disturb_each_other():
    generator = make()
    config = replace(SAMPLED, max_tokens=30)
    both = zip(generator.stream("abc", config), generator.stream("nom", replace(config, seed=9)), strict=True)
    first, second = zip(*both, strict=True)
    assert "abc" + "".join(first) == generator.generate("abc", config)
    assert "nom" + "".join(second) == generator.generate("nom", replace(config, seed=9))


# stopping


def cut(text, stop):
    """Read character by character; stop at the first moment that the text ends with a stop string (the longest one)."""
    for end in range(len(text) + 1):
        endings = [word for word in stop if text[:end].endswith(word)]
        if endings:
            return text[: end - max(map(len, endings))]
    return text


words = st.text("abc", min_size=1, max_size=4)


@given(st.text("abc", max_size=25), st.lists(words, max_size=3))
def test_find_stop_by_reading_along(text, stop):
    at = find_stop(text, stop)
    assert (text if at is None else text[:at]) == cut(text, stop)
    assert (at is not None) == any(word in text for word in stop)


class PieceTokenizer:
    """Every id is a piece of text of its own."""

    def __init__(self, pieces):
        self.pieces, self.special, self.vocab_size = pieces, SpecialTokens(), len(pieces)

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids)


@given(st.lists(st.text("abc", max_size=5), max_size=8), st.lists(words, max_size=3))
def test_text_in_any_lumps_is_cut_at_the_same_place(pieces, stop):
    text = IncrementalText(PieceTokenizer(pieces), (), stop)
    whole, shown = cut("".join(pieces), stop), ""
    for i in range(len(pieces)):
        shown += text.push(i)
        assert whole.startswith(shown)  # what has been shown is never taken back
        rest = "".join(pieces[: i + 1])[len(shown) :]
        assert text.stopped or rest == "" or any(word.startswith(rest) for word in stop)  # no more is held than must be
    assert shown + text.finish() == whole
    assert text.stopped == any(word in "".join(pieces) for word in stop)
    assert text.finish() == text.push(0) == "" if text.stopped else True


@pytest.mark.parametrize("length", [1, 2, 3])
def test_stop_strings_cut_every_way_of_writing_alike(length):
    generator = make(seed=4)
    config = replace(SAMPLED, max_tokens=40)
    prompts = ["abc", "k", "a long golf climb", "\n"]
    free = [text[len(prompt) :] for text, prompt in zip(generator.generate_batch(prompts, config), prompts, strict=True)]
    stop = (free[0][9 : 9 + length], free[2][20 : 20 + length], "nn\nn\nn")
    stopping = replace(config, stop=stop)
    expected = [cut(text, stop) for text in free]
    assert len(set(map(len, expected))) > 1  # rows end at different steps
    assert [t.removeprefix(p) for t, p in zip(generator.generate_batch(prompts, stopping), prompts, strict=True)] == expected
    for i, (prompt, text) in enumerate(zip(prompts, expected, strict=True)):
        alone = replace(stopping, seed=7 + i)
        pieces = [*generator.stream(prompt, alone)]
        assert "".join(pieces) == text and all(pieces)
        (ids,) = generator.generate_ids([ids_of(prompt)], alone)
        ended = [word for word in stop if text_of(ids).endswith(word)]
        assert text_of(ids) == text + (max(ended, key=len) if ended else "")  # the stop string is in the ids, not in the text


def test_a_stop_string_of_the_prompt_does_not_stop():
    generator = make()
    config = replace(SAMPLED, max_tokens=10, stop=("abc",))
    assert len(generator.generate("abcab", config)) > 5


def test_the_end_token_ends_a_row_and_is_not_shown():
    generator = make(seed=5)
    config = replace(SAMPLED, max_tokens=40)
    prompts = ["abc", "no", "a"]
    free = generator.generate_ids([ids_of(p) for p in prompts], config)
    eos = free[0][6]
    generator.tokenizer.special = SpecialTokens(eos=eos)
    expected = [ids[: ids.index(eos)] if eos in ids else ids for ids in free]
    assert len({len(ids) for ids in expected}) > 1
    assert generator.generate_ids([ids_of(p) for p in prompts], config) == expected
    assert generator.generate_batch(prompts, config) == [p + text_of(ids) for p, ids in zip(prompts, expected, strict=True)]


def test_writing_ends_when_all_rows_have():
    generator = make(seed=4)
    first = generator.generate("abc", replace(SAMPLED, max_tokens=1))[-1]
    steps = generator.steps

    def few_steps(prompts, config):
        for i, step in enumerate(steps(prompts, config)):
            assert i == 0
            yield step

    generator.steps = few_steps
    assert generator.generate("abc", replace(SAMPLED, max_tokens=10**6, stop=(first,))) == "abc"


# whole characters


class ByteTokenizer:
    """Ids are bytes: what byte-level vocabularies come down to."""

    def __init__(self):
        self.special, self.vocab_size = SpecialTokens(), 256

    def encode(self, text):
        return [*text.encode()]

    def decode(self, ids):
        return bytes(ids).decode("utf-8", "replace")


class WordTokenizer(PieceTokenizer):
    """A space before every word but the first of a text, as in SentencePiece."""

    def decode(self, ids):
        return " ".join(self.pieces[i] for i in ids)


@given(st.text(max_size=8), st.text(max_size=12))
def test_only_whole_characters_come_out(prompt, new):
    tokenizer = ByteTokenizer()
    text = IncrementalText(tokenizer, tokenizer.encode(prompt))
    shown = ""
    for token in tokenizer.encode(new):
        shown += text.push(token)
        assert new.startswith(shown)
    assert shown + text.finish() == new


@given(st.binary(max_size=20), st.lists(st.sampled_from(["€", "�", "a", "b�"]), max_size=2))
def test_broken_bytes_come_out_as_the_decoder_shows_them(data, stop):
    tokenizer = ByteTokenizer()
    text = IncrementalText(tokenizer, [], stop)
    shown = "".join(text.push(byte) for byte in data) + text.finish()
    assert shown == cut(tokenizer.decode(data), stop)


def test_a_prompt_cut_within_a_character_is_completed():
    tokenizer = ByteTokenizer()
    euro = tokenizer.encode("€")
    text = IncrementalText(tokenizer, tokenizer.encode("abcdefgh") + euro[:2])
    assert (text.push(euro[2]), text.push(ord("x"))) == ("€", "x")


def test_tokens_are_decoded_in_the_context_of_those_before():
    tokenizer = WordTokenizer(["to", "be", "or", "not"])
    text = IncrementalText(tokenizer, [0, 1])
    assert [text.push(token) for token in (2, 3, 0, 1)] == [" or", " not", " to", " be"]
    assert [IncrementalText(tokenizer).push(0), IncrementalText(tokenizer, [0] * 50).push(1)] == ["to", " be"]


def test_the_cost_of_a_token_does_not_grow():
    class Counting(ByteTokenizer):
        most = 0

        def decode(self, ids):
            Counting.most = max(Counting.most, len(ids))
            return super().decode(ids)

    tokenizer = Counting()
    text = IncrementalText(tokenizer, tokenizer.encode("x" * 1000))
    for token in tokenizer.encode("zwölf Boxkämpfer €€€ " * 20):
        text.push(token)
    assert Counting.most <= 16


def test_bytes_through_the_whole_generator():
    generator = TextGenerator(opinionated(vocab_size=256, seed=6), ByteTokenizer())
    config = replace(SAMPLED, max_tokens=60)
    text = generator.generate("é", config)
    ids = naive_generate(generator.model, [*"é".encode()], config)
    assert text == "é" + bytes(ids).decode("utf-8", "replace") == "é" + "".join(generator.stream("é", config))


def test_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().generate("abc", SAMPLED)


def test_one_string_is_no_list_of_prompts():
    with pytest.raises(ConfigError, match="one string.*generate"):
        make().generate_batch("abc", GREEDY)
