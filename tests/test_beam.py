"""Beam search against trying every sequence, against greedy decoding, and past the context's edge."""

from itertools import product

import pytest
import torch

from tests.opinionated import opinionated
from tiny_transformer.config import SampleConfig
from tiny_transformer.sampling.beam import beam_search
from tiny_transformer.sampling.decoder import naive_logits
from tiny_transformer.sampling.generator import TextGenerator, naive_generate
from tiny_transformer.tokenization.base import SpecialTokens
from tiny_transformer.tokenization.char import CharTokenizer

PENALTIES = [-0.5, 0.0, 0.6, 1.0, 2.0]


def log_probability(model, prompt, tokens):
    """One naive forward per token."""
    total, ids = 0.0, list(prompt)
    for token in tokens:
        total += naive_logits(model, torch.tensor([ids]))[0].double().log_softmax(-1)[token].item()
        ids.append(token)
    return total


def all_continuations(vocab_size, length, is_end):
    """Every sequence that ends exactly at its last token, or is `length` long and never ends before."""
    for n in range(1, length + 1):
        for tokens in product(range(vocab_size), repeat=n):
            ends_earlier = any(is_end(tokens[:i]) for i in range(1, n))
            if not ends_earlier and (n == length or is_end(tokens)):
                yield tokens


def exhaustive(model, prompt, length, length_penalty, is_end):
    scored = [(log_probability(model, prompt, t), t) for t in all_continuations(model.config.vocab_size, length, is_end)]
    return max(((total / len(tokens) ** length_penalty, tokens) for total, tokens in scored))


ENDS = {"no end": lambda tokens: False, "end token": lambda tokens: tokens[-1] == 2, "end string": lambda tokens: tokens[-2:] == (0, 1)}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_enough_beams_equal_trying_everything(end, seed):
    model, prompt, length = opinionated(seed=seed, vocab_size=3), [seed, 1], 4
    scored = {t: log_probability(model, prompt, t) for t in all_continuations(3, length, ENDS[end])}
    for penalty in PENALTIES:
        found = beam_search(model, prompt, beams=3**length, max_tokens=length, length_penalty=penalty, is_end=ENDS[end])
        expected = sorted(scored, key=lambda tokens: -scored[tokens] / len(tokens) ** penalty)
        assert [h.tokens for h in found] == expected  # all of them, in order
        assert [h.log_probability for h in found] == pytest.approx([scored[t] for t in expected], abs=1e-4)
        assert [h.ended for h in found] == [bool(ENDS[end](t)) for t in expected]


def test_length_penalties_make_a_difference():
    model = opinionated(seed=1, vocab_size=3)
    found = [beam_search(model, [1, 1], beams=81, max_tokens=4, length_penalty=p, is_end=ENDS["end token"])[0] for p in (-0.5, 2.0)]
    assert len(found[0].tokens) < len(found[1].tokens)


@pytest.mark.parametrize("option", ["gpt2", "rotary", "alibi", "grouped"])
@pytest.mark.parametrize("end", ["no end", "end token"])
def test_one_beam_is_greedy_past_the_edge_too(option, end):
    model = opinionated(option, seed=3, vocab_size=7)
    prompt = [1, 5, 3]
    greedy = naive_generate(model, prompt, SampleConfig(temperature=0, max_tokens=30))
    ends = [i for i in range(30) if ENDS[end](tuple(greedy[: i + 1]))]
    greedy = greedy[: ends[0] + 1] if ends else greedy
    (found,) = beam_search(model, prompt, beams=1, max_tokens=30, is_end=ENDS[end])
    assert list(found.tokens) == greedy
    assert found.log_probability == pytest.approx(log_probability(model, prompt, greedy), abs=1e-3)


@pytest.mark.parametrize("option", ["gpt2", "sinusoidal", "rotary", "alibi", "no positions", "window rotary grouped"])
def test_rows_of_the_cache_follow_their_beams(option):
    model = opinionated(option, seed=4, vocab_size=9)
    found = beam_search(model, [2, 0, 5, 5], beams=5, max_tokens=25)  # the context is 12: two edges are crossed
    assert len({h.tokens for h in found}) == 5
    for hypothesis in found:
        assert len(hypothesis.tokens) == 25
        assert hypothesis.log_probability == pytest.approx(log_probability(model, [2, 0, 5, 5], hypothesis.tokens), abs=1e-3)
    scores = [h.score(1.0) for h in found]
    assert scores == sorted(scores, reverse=True)


def test_a_plain_beam_search_written_again():
    """The textbook's loop without ends: keep the best few of all extensions, by full recomputation."""
    model, prompt, beams = opinionated(seed=5, vocab_size=6), [3], 3
    kept = [((), 0.0)]
    for _ in range(8):
        longer = [((*tokens, t), log_probability(model, prompt, (*tokens, t))) for tokens, _ in kept for t in range(6)]
        kept = sorted(longer, key=lambda pair: -pair[1])[:beams]
    found = beam_search(model, prompt, beams=beams, max_tokens=8)
    assert [h.tokens for h in found] == [tokens for tokens, _ in kept]


def test_a_good_ended_text_is_not_lost():
    """Here an ended text falls out of the beam, and what pushed it out turns bad afterwards: it is still the answer."""
    model, is_end = opinionated(seed=49, vocab_size=6), ENDS["end token"]
    ended = [h for n in range(1, 10) for h in beam_search(model, [0], beams=2, max_tokens=n, is_end=is_end) if h.ended]
    best = max(ended, key=lambda h: h.score(1.0))
    found = beam_search(model, [0], beams=2, max_tokens=10, is_end=is_end)
    assert found[0].tokens == best.tokens
    assert not found[1].ended and len(found) == 2


def test_nothing_to_write():
    (found,) = beam_search(opinionated(), [1], beams=3, max_tokens=0)
    assert (found.tokens, found.log_probability) == ((), 0.0)


def test_ties_go_to_the_lower_id():
    model = opinionated()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert [h.tokens for h in beam_search(model, [1], beams=3, max_tokens=2)] == [(0, 0), (0, 1), (0, 2)]


# through the generator


@pytest.fixture
def generator():
    tokenizer = CharTokenizer("\nabcdefgh")
    return TextGenerator(opinionated("rotary", seed=7, vocab_size=9), tokenizer)


def test_the_generator_takes_the_best_beam_and_ignores_what_is_for_sampling(generator):
    config = SampleConfig(beams=4, max_tokens=15)
    best = beam_search(generator.model, generator.tokenizer.encode("abc"), beams=4, max_tokens=15)[0]
    text = generator.generate("abc", config)
    assert text == "abc" + generator.tokenizer.decode(best.tokens)
    other = SampleConfig(beams=4, max_tokens=15, temperature=0, top_k=1, top_p=0.1, min_p=1, repetition_penalty=9, seed=5)
    assert generator.generate("abc", other) == text
    assert "".join(generator.stream("abc", config)) == text[3:]
    assert generator.generate_batch(["abc", "h"], config) == [text, generator.generate("h", config)]
    assert generator.generate_ids([generator.tokenizer.encode("abc")], config) == [list(best.tokens)]
    assert generator.generate("abc", SampleConfig(beams=2, max_tokens=0)) == "abc"


def test_beams_stop_at_strings_and_end_tokens(generator):
    free = generator.generate("abc", SampleConfig(beams=3, max_tokens=12))[3:]
    stop = free[4:6]
    config = SampleConfig(beams=3, max_tokens=12, stop=(stop,), length_penalty=-3)  # short texts win
    text = generator.generate("abc", config)[3:]
    assert stop not in text and len(text) < 12
    eos = generator.tokenizer.encode(free[3])[0]
    generator.tokenizer.special = SpecialTokens(eos=eos)
    ended = generator.generate("abc", SampleConfig(beams=3, max_tokens=12, length_penalty=-3))[3:]
    assert free[3] not in ended and len(ended) < 12


def test_tokens_that_the_tokenizer_lacks_are_never_taken():
    model = opinionated(seed=8)
    tokenizer = CharTokenizer("abc")
    for beams in (1, 4):
        text = TextGenerator(model, tokenizer).generate("a", SampleConfig(beams=beams, max_tokens=30))
        assert set(text) <= set("abc")
