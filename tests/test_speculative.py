"""Speculative decoding against the model alone: the same text at temperature 0, the same distribution otherwise."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.compiler import needs_compiler
from tests.opinionated import opinionated
from tiny_transformer.cli.main import main
from tiny_transformer.config import ConfigError, ModelConfig, SampleConfig
from tiny_transformer.context_window import window_start
from tiny_transformer.kv_cache import KVCache
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.run import Run
from tiny_transformer.sampling import acceptance
from tiny_transformer.sampling.generator import TextGenerator, naive_generate, naive_logits
from tiny_transformer.sampling.ngram_draft import NgramDraft
from tiny_transformer.sampling.rewinding import RewindingReader, common_start, room
from tiny_transformer.sampling.speculative import SpeculativeGenerator, speculative_step
from tiny_transformer.sampling.strategies import next_token_distribution
from tiny_transformer.tokenization.base import SpecialTokens
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.utils.checkpoint import Checkpoint

SYMBOLS = "\n abcdefghijklmno"  # 17, as many as the small model has
EDGE = 12  # the small model's context
OPTIONS = [
    "gpt2", "sinusoidal", "rotary", "alibi", "no positions", "grouped", "one kv head", "window", "window alibi", "window rotary grouped",
    "post", "modern",
]  # fmt: skip
GREEDY = SampleConfig(temperature=0, max_tokens=45)
SAMPLED = SampleConfig(temperature=1, top_k=None, seed=7, max_tokens=30)


def shaken(model, amount=0.1):
    """A model much like another one: a draft that is right about half the time."""
    copy = TinyTransformerLM(model.config, weights=model.weights()).eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * parameter.std(unbiased=False) * amount)
    return copy


def make(option="gpt2", draft=None, draft_tokens=4, **more):
    model = opinionated(option, **more)
    return SpeculativeGenerator(model, CharTokenizer(SYMBOLS), shaken(model) if draft is None else draft, draft_tokens)


# --- greedy: the very same text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft_tokens", [1, 4])
@pytest.mark.parametrize("option", OPTIONS)
def test_greedy_equals_the_naive_loop_past_the_edge(option, draft_tokens):
    generator = make(option, draft_tokens=draft_tokens)
    prompt = [3, 1, 4, 1, 5]
    assert generator.generate_ids([prompt], GREEDY) == [naive_generate(generator.model, prompt, GREEDY)]
    assert generator.tally.accepted > 0


@pytest.mark.parametrize("limit", [1, 2, 3, 5, EDGE])
@pytest.mark.parametrize("prompt", [1, 11, 12, 13, 30])
def test_greedy_for_contexts_and_prompts_of_many_lengths(limit, prompt):
    generator = make("alibi", max_seq_len=limit)
    ids = [(5 * i) % 17 for i in range(prompt)]
    assert generator.generate_ids([ids], GREEDY) == [naive_generate(generator.model, ids, GREEDY)]


DRAFTS = {
    "itself": lambda model: model,
    "a stranger": lambda model: opinionated("rotary", seed=5),
    "one with a short context": lambda model: opinionated("gpt2", seed=5, max_seq_len=5, n_layers=1),
    "one with a larger vocabulary": lambda model: opinionated("alibi", seed=5, vocab_size=23),
    "n-grams": lambda model: NgramDraft(17, [1, 2, 3, 4] * 20),
    "the text so far": lambda model: NgramDraft(17),
}


@pytest.mark.parametrize("name", DRAFTS)
def test_no_draft_changes_the_greedy_text(name):
    model = opinionated("rotary")
    generator = SpeculativeGenerator(model, CharTokenizer(SYMBOLS), DRAFTS[name](model), 3)
    for config in (GREEDY, replace(GREEDY, repetition_penalty=1.4)):
        assert generator.generate_ids([[3, 1, 4]], config) == [naive_generate(model, [3, 1, 4], config)]


def test_tokens_that_the_tokenizer_does_not_have_are_never_written():
    model = opinionated("rotary")
    with torch.no_grad():
        model.unembed.weight[9:] *= 3  # the likeliest
    generator = SpeculativeGenerator(model, CharTokenizer(SYMBOLS[:9]), shaken(model))
    for config in (GREEDY, SAMPLED):
        assert max(generator.generate_ids([[3, 1, 4]], config)[0]) < 9


# --- sampled: the same distribution -------------------------------------------------------------------------------------

FEW = 3  # tokens in the vocabulary of these
LENGTH = 3
RULES = {
    "as learned": SampleConfig(temperature=1, top_k=None, max_tokens=LENGTH),
    "all rules": SampleConfig(temperature=1.4, top_k=2, top_p=0.97, min_p=0.01, repetition_penalty=1.5, max_tokens=LENGTH),
}


class Memory:
    """A model's logits without any cache, each computed once: thousands of short texts have few beginnings."""

    def __init__(self, model):
        self.model, self.known = model, {}

    def logits(self, ids, last=1):
        key = (*ids, last)
        if key not in self.known:
            beginnings = [ids[:n] for n in range(len(ids) - last + 1, len(ids) + 1)]
            self.known[key] = torch.cat([naive_logits(self.model, torch.tensor([text])) for text in beginnings])
        return self.known[key]


def few_tokens(seed):
    return opinionated("gpt2", seed=seed, vocab_size=FEW)


def exact(model, prompt, config):
    """The probability of every continuation of LENGTH tokens, by the chain rule and no cache."""
    found, memory = {}, Memory(model)
    for text in itertools.product(range(FEW), repeat=LENGTH):
        found[text] = 1.0
        for i, token in enumerate(text):
            before = [*prompt, *text[:i]]
            found[text] *= float(next_token_distribution(memory.logits(before).double(), [before], config)[0, token])
    return found


def deviation(texts, expected):
    """Pearson's chi-square as standard deviations from what is to be expected of it; infinite for a text that can't be."""
    counts = Counter(map(tuple, texts))
    possible = {text: p * len(texts) for text, p in expected.items() if p > 0}
    if counts.keys() - possible.keys():
        return math.inf
    rare = [text for text, number in possible.items() if number < 5]
    cells = [(counts[text], number) for text, number in possible.items() if number >= 5]
    if rare:  # together they make one cell
        cells.append((sum(counts[text] for text in rare), sum(possible[text] for text in rare)))
    freedom = len(cells) - 1
    return (sum((seen - number) ** 2 / number for seen, number in cells) - freedom) / math.sqrt(2 * freedom)


def steps_write(model, draft, prompt, config, n, guesses=2):
    """n continuations by `speculative_step` alone, one seed for all."""
    random, draft, target, known = np.random.default_rng(0), Memory(draft), Memory(model), {}

    def rules(logits, texts):
        if id(logits) not in known:
            known[id(logits)] = next_token_distribution(logits.double(), texts, config)
        return known[id(logits)]

    for _ in range(n):
        ids = list(prompt)
        while len(ids) < len(prompt) + LENGTH:
            ids += speculative_step(ids, guesses, draft, target, rules, random.random(2 * guesses + 1).tolist()).tokens
        yield ids[len(prompt) : len(prompt) + LENGTH]


@pytest.mark.parametrize("name", RULES)
def test_the_distribution_of_texts_is_the_models(name):
    model, config = few_tokens(0), RULES[name]
    texts = list(steps_write(model, few_tokens(3), [1, 0], config, 3000))
    assert abs(deviation(texts, exact(model, [1, 0], config))) < 4


def test_the_generators_texts_too():
    model, config = few_tokens(0), RULES["as learned"]
    generator = SpeculativeGenerator(model, CharTokenizer("abc"), few_tokens(3), 2)
    texts = generator.generate_ids([[1, 0]] * 600, replace(config, seed=0))
    assert abs(deviation(texts, exact(model, [1, 0], config))) < 4
    assert 0.1 < generator.tally.rate < 0.9


@pytest.mark.parametrize("wrong", [lambda p, q: p, lambda p, q: (p - q).abs() / (p - q).abs().sum()])
def test_a_wrong_residual_shows_in_the_texts(wrong, monkeypatch):
    model, config = few_tokens(0), RULES["as learned"]
    monkeypatch.setattr(acceptance, "residual", wrong)
    texts = list(steps_write(model, few_tokens(3), [1, 0], config, 2000))
    assert deviation(texts, exact(model, [1, 0], config)) > 20


# --- the ways of writing ------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_text_again_and_belongs_to_the_row():
    generator = make()
    first = generator.generate("abc", SAMPLED)
    assert generator.generate("abc", SAMPLED) == first != generator.generate("abc", replace(SAMPLED, seed=8))
    assert generator.generate_batch(["no", "abc"], replace(SAMPLED, seed=6))[1] == first
    assert "abc" + "".join(generator.stream("abc", SAMPLED)) == first
    steps = list(generator.choices([[12, 13], [2, 3, 4]], replace(SAMPLED, seed=6)))
    assert "abc" + "".join(SYMBOLS[row[1]] for row in steps) == first and len(steps) == SAMPLED.max_tokens
    assert generator.generate("abc", replace(SAMPLED, seed=None)) != generator.generate("abc", replace(SAMPLED, seed=None))


@pytest.mark.parametrize("n", [0, 1, 2, 5, 6, 13])
def test_max_tokens_is_exact(n):
    generator = make(draft=opinionated("gpt2"))  # the model itself: every guess is right, the longest steps there are
    for config in (replace(GREEDY, max_tokens=n), replace(SAMPLED, max_tokens=n)):
        assert len(generator.generate_ids([[2, 3]], config)[0]) == n
        assert sum(len(step.tokens) for step in generator.passes([2, 3], config)) == n


def test_stop_strings_end_the_text():
    generator = make("rotary")
    whole = generator.generate("abc", SAMPLED)[3:]
    for stop in (whole[7:9], whole[4], whole[11:15]):
        config = replace(SAMPLED, stop=(stop,))
        assert generator.generate("abc", config) == "abc" + whole[: whole.index(stop)]
        assert "".join(generator.stream("abc", config)) == whole[: whole.index(stop)]


def test_the_end_token_ends_the_text_and_the_work():
    model = opinionated("rotary")
    whole = naive_generate(model, [2, 3], GREEDY)

    generator = SpeculativeGenerator(model, CharTokenizer(SYMBOLS), model, 4)
    generator.tokenizer.special = SpecialTokens(eos=whole[6])
    assert generator.generate_ids([[2, 3]], GREEDY) == [whole[: whole.index(whole[6])]]
    assert generator.tally.passes <= 2


def test_guessing_like_the_model_takes_the_fewest_passes():
    generator = make("rotary", draft=opinionated("rotary", max_seq_len=64), max_seq_len=64)
    generator.generate("ab", replace(SAMPLED, max_tokens=20))
    assert (generator.tally.passes, generator.tally.guessed, generator.tally.accepted) == (4, 16, 16)
    assert (generator.tally.rate, generator.tally.tokens_per_pass) == (1.0, 5.0)
    assert str(generator.tally) == "100% of the guesses accepted, 5.00 tokens a pass"


def test_the_tally_counts_what_was_judged():
    class Wrong:
        def logits(self, ids):
            return torch.full((1, 17), -1e9).index_fill(1, torch.tensor([self.token(ids)]), 0.0)

        def token(self, ids):
            return (naive_logits(model, torch.tensor([ids])).argmax().item() + 1) % 17

    model = opinionated("rotary")
    generator = make("rotary", draft=Wrong(), draft_tokens=3)
    assert (generator.tally.rate, generator.tally.tokens_per_pass) == (0.0, 0.0)  # nothing yet
    generator.generate("ab", replace(GREEDY, max_tokens=5))
    tally = generator.tally
    assert (tally.passes, tally.guessed, tally.accepted, tally.rejected) == (5, 9, 0, 4)  # 3 + 3 + 2 + 1 + 0 guesses, for 5 tokens
    assert (tally.rate, tally.tokens_per_pass) == (0.0, 1.0)


def test_the_models_are_left_as_they_were():
    generator = make()
    generator.model.train()
    generator.draft.train()
    generator.generate("ab", SAMPLED)
    assert generator.model.training and generator.draft.training


def test_broken_models_are_an_error_never_a_text():
    for config in (GREEDY, SAMPLED):
        for part in ("model", "draft"):
            generator = make()
            with torch.no_grad():
                getattr(generator, part).norm.weight[0] = math.nan
            with pytest.raises(ValueError, match="damaged"):
                generator.generate("ab", config)


def test_what_does_not_go_together_is_one_line():
    model, tokenizer = opinionated(), CharTokenizer(SYMBOLS)
    for draft, guesses, words in (
        (model, 0, "draft_tokens=0: it must be at least 1"),
        (opinionated(causal=False), 4, "a draft with causal=False"),
        (opinionated(vocab_size=16), 4, "vocab_size=16 and the tokenizer 17 tokens"),
    ):
        with pytest.raises(ConfigError, match=words):
            SpeculativeGenerator(model, tokenizer, draft, guesses)
    with pytest.raises(ConfigError, match="causal=False"):
        SpeculativeGenerator(opinionated(causal=False), tokenizer, model)
    with pytest.raises(ConfigError, match="beams=3 with a draft"):
        make().generate("ab", replace(SAMPLED, beams=3))


# --- reading a text that grows and shrinks ------------------------------------------------------------------------------


def test_room_is_how_far_the_window_stays():
    for limit in range(1, 12):
        for n in range(1, 60):
            fitting = [more for more in range(limit + 1) if window_start(n + more, limit) == window_start(n, limit)]
            assert room(n, limit) == max(fitting)


@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), max_size=8))
def test_common_start(first, second):
    expected = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    assert common_start(first, second) == expected


@pytest.mark.parametrize("option", ["gpt2", "window rotary grouped", "alibi"])
def test_logits_of_any_texts_in_any_order(option):
    model = opinionated(option)
    reader = RewindingReader(model, at_once=4, max_new=100)
    random, text = np.random.default_rng(0), [1]
    for _ in range(60):
        text = text[: max(1, len(text) - int(random.integers(5)))] + random.integers(0, 17, int(random.integers(7))).tolist()
        last = min(1 + int(random.integers(5)), len(text) - window_start(len(text), EDGE))
        while window_start(len(text) - last + 1, EDGE) != window_start(len(text), EDGE):
            last -= 1
        expected = [naive_logits(model, torch.tensor([text[: len(text) - back]])) for back in reversed(range(last))]
        torch.testing.assert_close(reader.logits(text, last), torch.cat(expected), atol=1e-5, rtol=1e-5)


@needs_compiler
@pytest.mark.parametrize("option", ["gpt2", "modern", "pairs and triples, shared"])
def test_the_prepared_step_reads_guesses_too(option, monkeypatch):
    model = opinionated(option, max_seq_len=40)
    reader = RewindingReader(model, at_once=4, max_new=100)
    reader.logits([1, 2, 3])
    monkeypatch.setattr(model, "hidden", None)  # from here on only the step may read
    for text, last in (([1, 2, 3, 4, 5, 6], 3), ([1, 2, 3, 4, 9], 1), ([1, 2, 3, 4, 9, 7, 8, 1, 1], 4), ([1, 2, 5, 5], 2)):
        expected = [logits_behind(model, text[: len(text) - back]) for back in reversed(range(last))]
        torch.testing.assert_close(reader.logits(text, last), torch.cat(expected), atol=2e-5, rtol=1e-5)


@torch.inference_mode()
def logits_behind(model, text):
    """(1, vocab), by the class's own `hidden`, whatever stands in the model's place."""
    return model.unembed(type(model).hidden(model, torch.tensor([text])))[:, -1]


def test_checking_guesses_and_writing_one_by_one_agree_to_the_last_bit():
    """A tie or a near tie would be decided otherwise somewhere in a few hundred tokens, were the two not the same numbers."""
    model = opinionated("rotary", max_seq_len=256)
    with torch.no_grad():
        model.unembed.weight[3] = model.unembed.weight[8]  # two tokens that are always equally likely
    greedy = replace(GREEDY, max_tokens=200)
    generator = SpeculativeGenerator(model, CharTokenizer(SYMBOLS), shaken(model))
    assert generator.generate_ids([[2, 3]], greedy) == TextGenerator(model, generator.tokenizer).generate_ids([[2, 3]], greedy)


def test_only_what_is_new_is_read(monkeypatch):
    model = opinionated()
    reader, read, hidden = RewindingReader(model), [], model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, **more: (read.append(ids[0].tolist()), hidden(ids, **more))[1])
    reader.logits([1, 2, 3])
    reader.logits([1, 2, 3, 4, 5, 6], last=4)  # the 3 again: its logits are wanted
    reader.logits([1, 2, 3, 4, 9], last=1)
    reader.logits([1, 2, 3, 4, 9, 7, 8])
    assert read == [[1, 2, 3], [3, 4, 5, 6], [9], [7, 8]]


def test_windows_that_jump_within_a_pass_are_refused():
    reader = RewindingReader(opinionated())
    with pytest.raises(ValueError, match="ask for fewer"):
        reader.logits(list(range(13)), last=2)
    assert reader.logits(list(range(13)), last=1).shape == (1, 17)


def test_an_interrupted_pass_leaves_no_trace(monkeypatch):
    model = opinionated()
    reader, block = RewindingReader(model), model.blocks[1]
    reader.logits([1, 2, 3])

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(block, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reader.logits([1, 9, 9, 9])
    torch.testing.assert_close(reader.logits([1, 9, 9, 4]), naive_logits(model, torch.tensor([[1, 9, 9, 4]])), atol=1e-5, rtol=0)


def test_memory_grows_with_the_text(monkeypatch):
    monkeypatch.setattr("tiny_transformer.sampling.rewinding.RESERVE", 4)
    generator = make("rotary", max_seq_len=40)
    config = replace(GREEDY, max_tokens=60)
    assert generator.generate_ids([[1, 2]], config) == [naive_generate(generator.model, [1, 2], config)]


def test_a_cache_goes_back():
    model = opinionated()
    cache = KVCache(model.config, 1)
    with torch.inference_mode():
        model(torch.tensor([[1, 2, 3, 4]]), cache=cache)
        cache.rewind(2)
        logits = model(torch.tensor([[5]]), cache=cache)
        torch.testing.assert_close(logits, model(torch.tensor([[1, 2, 5]]))[:, -1:], atol=1e-5, rtol=0)
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match="holds 3 positions"):
            cache.rewind(wrong)


# --- n-grams ------------------------------------------------------------------------------------------------------------


def witten_bell(text, so_far, context, vocab):
    """The mixture by its definition, one context after the other, counted with a dictionary."""
    mixed = [1 / vocab] * vocab
    for m in range(len(context) + 1):
        wanted = tuple(context[len(context) - m :])
        counts = Counter(s[i] for s in (text, so_far) for i in range(m, len(s)) if tuple(s[i - m : i]) == wanted)
        total, kinds = sum(counts.values()), len(counts)
        if not total:
            break
        mixed = [(counts[w] + kinds * mixed[w]) / (total + kinds) for w in range(vocab)]
    return mixed


@hypothesis_settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 4))
def test_n_grams_are_counted_and_mixed_by_the_rule(text, so_far, order):
    draft = NgramDraft(4, text, order)
    probabilities = draft.probabilities(so_far)
    np.testing.assert_allclose(probabilities, witten_bell(text, so_far, so_far[max(0, len(so_far) - order) :], 4), atol=1e-12)
    assert abs(probabilities.sum() - 1) < 1e-12 and probabilities.min() > 0
    torch.testing.assert_close(draft.logits(so_far).exp()[0], torch.from_numpy(probabilities))


def test_large_vocabularies_take_shorter_n_grams():
    draft = NgramDraft(50_257, [50_256, 50_255, 50_254, 50_253] * 3)
    assert draft.order == 3
    assert draft.probabilities([50_256, 50_255, 50_254]).argmax() == 50_253
    assert NgramDraft(1 << 62, order=0).order == 0
    with pytest.raises(ConfigError, match="order=-1"):
        NgramDraft(5, order=-1)


def test_a_text_that_repeats_itself_is_looked_up():
    sentence = [3, 1, 4, 1, 5, 9, 2, 6]
    assert [NgramDraft(17).probabilities([*sentence, *sentence[:n]]).argmax() for n in range(3, 8)] == sentence[3:]


# --- the command line ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs with one alphabet, and one with another."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text("a cab can bake a bad cake, and a dad can fake a face. " * 20)
    record = {"data": {"data": str(folder / "text.txt")}}
    for name, symbols, layers in (("large", " ,.abcdefkn", 2), ("small", " ,.abcdefkn", 1), ("other", " ,.abcdefgk", 1)):
        tokenizer = CharTokenizer(symbols)
        config = ModelConfig(vocab_size=11, max_seq_len=32, d_model=32, n_layers=layers, n_heads=2)
        weights = TinyTransformerLM(config, seed=layers).weights()
        Run.create(folder / name, record).save(Checkpoint(config, tokenizer.to_dict(), weights), "best")
    return folder


def said(capsys, *argv):
    code = main([str(word) for word in argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_generate_with_a_draft_says_how_it_fared(runs, capsys):
    plain = said(capsys, "generate", runs / "large", "--prompt", "a cab", "--temperature", 0, "--max-tokens", 50)
    for draft in (runs / "small", "ngram"):
        code, out, err = said(
            capsys, "generate", runs / "large", "--prompt", "a cab", "--temperature", 0, "--max-tokens", 50, "--draft", draft
        )
        assert code == 0 and out == plain[1]
        assert f"draft {draft}: " in err and "of the guesses accepted" in err and "tokens a pass" in err
    assert "draft" not in plain[2]


def test_generate_many_with_a_draft(runs, capsys):
    code, out, err = said(
        capsys, "generate", runs / "large", "--prompt", "a", "--n", 3, "--seed", 5, "--max-tokens", 9, "--draft", "ngram", "--json"
    )
    assert code == 0 and out.count('"text"') == 3 and "tokens a pass" in err


def test_chat_with_a_draft(runs, capsys, monkeypatch):
    lines = iter(["a bad", "/settings", "/quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    code, out, _ = said(capsys, "chat", runs / "large", "--draft", runs / "small", "--draft-tokens", 2, "--max-tokens", 20)
    assert code == 0 and "the draft so far: " in out and "tokens a pass" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--draft", "other"], "another tokenizer"),
        (["--draft", "nowhere"], "there is no checkpoint at"),
        (["--draft", "small", "--beams", "2"], "--draft with --beams 2"),
        (["--draft", "small", "--draft-tokens", "0"], "draft_tokens=0"),
        (["--draft-tokens", "3"], "--draft-tokens without --draft"),
        (["--draft", "small", "--engine", "numpy"], "--draft with --engine numpy"),
        (["--draft", "small", "--compare"], "--draft with --compare"),
    ],
)
def test_mistakes_are_one_line(runs, capsys, monkeypatch, flags, words):
    monkeypatch.chdir(runs)
    code, out, err = said(capsys, "generate", "large", *flags)
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1


def test_plain_generation_is_the_oracle_of_the_command(runs):
    """The generator of a writer is the plain one unless a draft is named."""
    from tiny_transformer.cli.writing import open_writer

    assert type(open_writer(str(runs / "large")).generator) is TextGenerator
