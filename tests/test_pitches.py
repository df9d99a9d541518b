"""Grammars and the pitches: exact entropy against enumeration and sampling, one derivation per text, and texts that stay what they are."""

import hashlib
import itertools
import math
import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_transformer.config import ConfigError
from tiny_transformer.corpora import pitches
from tiny_transformer.corpora.grammar import Grammar, Symbol, bind, show, split
from tiny_transformer.corpora.pitch_rules import COMPANIES, RULES

TINY = Grammar(
    {
        "text": [(2, "<who> sees <who>. "), "So <who> naps<how>. ", "The end. "],
        "who": [(3, "a cat"), "the <size> dog"],
        "size": ["big", "small", (2, "very <shade>")],
        "shade": ["old", "new"],
        "how": [" well", "!", " on <who>"],
    },
    start="text",
)


def enumerate_texts(grammar, parts):
    """Every text of `parts` with its probability, by brute force."""
    if not parts:
        yield "", 1.0
        return
    head, *rest = parts
    heads = [(head, 1.0)]
    if isinstance(head, Symbol):
        heads = [(text, p * q) for p, inner in grammar.rules[head] for text, q in enumerate_texts(grammar, inner)]
    tails = list(enumerate_texts(grammar, rest))
    for text, p in heads:
        for tail, q in tails:
            yield text + tail, p * q


def test_entropy_and_length_equal_enumeration():
    texts = list(enumerate_texts(TINY, (TINY.start,)))
    assert len({text for text, _ in texts}) == len(texts) > 40
    assert math.isclose(sum(p for _, p in texts), 1)
    assert math.isclose(TINY.entropy, -sum(p * math.log(p) for _, p in texts))
    assert math.isclose(TINY.mean_length, sum(p * len(text) for text, p in texts))
    assert math.isclose(TINY.entropy_rate, TINY.entropy / TINY.mean_length)


def test_parser_gives_each_text_its_enumerated_probability():
    for text, p in enumerate_texts(TINY, (TINY.start,)):
        found = TINY.parse(text)
        assert found.derivations == 1
        assert math.isclose(found.log_probability, math.log(p))
    for wrong in ("a cat sees a cat.", "a cat sees a dog. ", "The end. x", "the very dog"):
        assert TINY.parse(wrong) == (0, -math.inf)


def test_streams_multiply():
    one, other = "The end. ", "a cat sees a cat. "
    assert math.isclose(TINY.log_probability(one + other + one), 2 * TINY.log_probability(one) + TINY.log_probability(other))
    assert TINY.log_probability("") == 0


def test_sampling_follows_the_weights():
    rng = random.Random(3)
    n = 20_000
    counts = Counter(TINY.sample(rng)[0] for _ in range(n))
    for text, p in enumerate_texts(TINY, (TINY.start,)):
        assert abs(counts[text] - n * p) < 5 * math.sqrt(n * p * (1 - p)) + 1, text


def test_ambiguity_is_counted_and_refused():
    for rules, derivations, text in [
        ({"s": ["<a><b>"], "a": ["x", "xy"], "b": ["z", "yz"]}, 2, "xyz"),  # a begins a longer a
        ({"s": ["<a>", "x"], "a": ["x", "y"]}, 2, "x"),  # equal texts
        ({"s": ["one<tail>", "on<other>"], "tail": [" cat", " dog"], "other": ["e dog", "e cow"]}, 2, "one dog"),  # hidden two symbols deep
        ({"s": ["<a> <b>", "<a> <c>"], "a": ["p", "q"], "b": ["x", "y"], "c": ["y", "z"]}, 2, "p y"),  # after a shared symbol
    ]:
        grammar = Grammar(rules, "s")
        found = grammar.parse(text)
        assert found.derivations == derivations
        probability = sum(p for found_text, p in enumerate_texts(grammar, (grammar.start,)) if found_text == text)
        assert math.isclose(found.log_probability, math.log(probability))
        with pytest.raises(ConfigError, match="can begin the other"):
            grammar.check_prefix_free()
    TINY.check_prefix_free()


@st.composite
def small_grammars(draw):
    """Three levels of symbols over the letters a and b, which clash often."""
    word = st.text("ab", min_size=1, max_size=3)
    rules = {
        "x": draw(st.lists(word, min_size=1, max_size=3)),
        "y": draw(st.lists(st.one_of(word, st.sampled_from(["<x>", "a<x>", "<x>b"])), min_size=1, max_size=3)),
        "s": draw(st.lists(st.one_of(word, st.sampled_from(["<y><x>", "<x><y>", "<x>a", "b<y>", "<y>"])), min_size=1, max_size=3)),
    }
    return Grammar(rules, "s")


@settings(max_examples=300, deadline=None)
@given(small_grammars())
def test_prefix_check_agrees_with_enumeration(grammar):
    clash = False
    for symbol in grammar._order:
        texts = [[text for text, _ in enumerate_texts(grammar, parts)] for _, parts in grammar.rules[symbol]]
        pairs = itertools.combinations(texts, 2)
        clash |= any(a.startswith(b) or b.startswith(a) for one, other in pairs for a in one for b in other)
    try:
        grammar.check_prefix_free()
        refused = False
    except ConfigError:
        refused = True
    assert refused == clash


@settings(max_examples=100, deadline=None)
@given(small_grammars(), st.integers(0, 2**32))
def test_samples_parse(grammar, seed):
    text, log_probability = grammar.sample(random.Random(seed))
    found = grammar.parse(text)
    assert found.derivations >= 1
    assert found.log_probability >= log_probability - 1e-9  # a stream of shorter texts may give the same letters


def test_unknown_and_circular_symbols_are_refused():
    with pytest.raises(ConfigError, match=r"<cat> in <s>: every symbol needs a rule"):
        Grammar({"s": ["a <cat>"]}, "s")
    with pytest.raises(ConfigError, match="<a> contains itself"):
        Grammar({"s": ["<a>"], "a": ["x<b>"], "b": ["<a>", "y"]}, "s")


def test_bind_keeps_one_choice_throughout():
    rules = bind(
        {"s": ["<who> likes <thing>. "], "thing": ["<adj> <what>", "tea"], "adj": ["old", "new"]},
        "s",
        [{"who": "Ann", "what": "hats"}, {"who": "Bob", "what": "cats"}],
    )
    grammar = Grammar(rules, "s")
    texts = {text for text, _ in enumerate_texts(grammar, (grammar.start,))}
    assert texts == {
        f"{who} likes {thing}. " for who, what in (("Ann", "hats"), ("Bob", "cats")) for thing in (f"old {what}", f"new {what}", "tea")
    }
    assert math.isclose(grammar.entropy, math.log(2) + math.log(2) + 0.5 * math.log(2))


@given(st.lists(st.sampled_from(["a ", "<b>", "<c@2>", "x>", "<", "1"]), max_size=6).map("".join))
def test_split_and_show_are_inverse(text):
    assert show(split(text)) == text


# -- the pitches -----------------------------------------------------------------------------------------------------


def test_pitches_are_unambiguous():
    pitches.check_unambiguous()
    Grammar(bind(RULES, "scene", COMPANIES[:2]), "scene").check_prefix_free()  # the copies themselves, for two companies


def test_a_word_that_begins_another_is_found():
    broken = {**RULES, "object": [*RULES["object"], "cam"], "name": ["Brolly"], "goods": ["umbrellas"]}
    with pytest.raises(ConfigError, match="<object> can be 'cam' or 'camera'"):
        Grammar(broken, "scene").check_prefix_free()


def test_every_text_has_exactly_one_parse_with_the_sampled_probability():
    rng = random.Random(11)
    made = [pitches.grammar().sample(rng) for _ in range(12)]
    for text, log_probability in made:
        found = pitches.grammar().parse(text)
        assert found.derivations == 1
        assert math.isclose(found.log_probability, log_probability, rel_tol=1e-12)
    stream = "".join(text for text, _ in made)
    assert pitches.grammar().parse(stream).derivations == 1
    assert math.isclose(pitches.log_probability(stream), sum(log_probability for _, log_probability in made), rel_tol=1e-12)
    assert pitches.log_probability(stream[:-1]) == -math.inf
    assert pitches.log_probability(stream.replace("FOUNDER", "FLOUNDER", 1)) == -math.inf


def test_monte_carlo_converges_to_the_exact_entropy():
    grammar, rng = pitches.grammar(), random.Random(7)
    made = [grammar.sample(rng) for _ in range(6000)]
    nats = [-log_probability for _, log_probability in made]
    lengths = [len(text) for text, _ in made]
    n = len(made)

    def error(values):
        mean = sum(values) / n
        return math.sqrt(sum((value - mean) ** 2 for value in values) / n / n)

    assert abs(sum(nats) / n - grammar.entropy) < 4 * error(nats)
    assert abs(sum(lengths) / n - grammar.mean_length) < 4 * error(lengths)
    rest = [h - pitches.entropy() * length for h, length in zip(nats, lengths, strict=True)]  # 0 on average
    assert abs(sum(nats) / sum(lengths) - pitches.entropy()) < 4 * error(rest) / grammar.mean_length
    assert error(rest) / grammar.mean_length < 0.002 * pitches.entropy()  # the test above is a sharp one


def test_entropy_is_in_the_interesting_range():
    assert 0.45 < pitches.entropy() < 0.9
    assert 500 < pitches.grammar().mean_length < 1200


def test_texts_are_scenes_with_speakers():
    text = pitches.text(200_000)
    assert 200_000 <= len(text) < 203_000
    assert text.startswith("NARRATOR:\n")
    assert text.endswith("\n\n")
    speeches = [speech.split(":\n", 1) for speech in text.removesuffix("\n\n").split("\n\n")]
    assert all(len(speech) == 2 and "\n" not in speech[1] and speech[1][-1] in ".!?" for speech in speeches)
    speakers = Counter(name for name, _ in speeches)
    assert set(speakers) == {
        "NARRATOR",
        "FOUNDER",
        "INVESTOR",
        "ENGINEER",
        "DESIGNER",
        "LAWYER",
        "CUSTOMER",
        "INTERN",
        "ADVISER",
        "ACCOUNTANT",
    }
    assert len(set(text)) < 80
    assert text.isascii()
    assert len(set(text.split())) > 2000
    assert not [word for word in (" a a", " a e", " a i", " a o", " a u", " A a", " A e", " A o") if word in text]  # articles fit
    assert "<" not in text and "@" not in text


def test_the_same_text_everywhere():
    expected = hashlib.sha256(pitches.text(50_000).encode()).hexdigest()
    code = "import hashlib; from tiny_transformer.corpora import pitches; print(hashlib.sha256(pitches.text(50_000).encode()).hexdigest())"
    for seed in ("0", "4242"):
        run = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == expected
    assert pitches.text(20_000) == pitches.text(50_000)[: len(pitches.text(20_000))]
    assert pitches.text(20_000, seed=2) != pitches.text(20_000)


def test_scenes_stay_with_their_company():
    names = [company["name"] for company in COMPANIES]
    for scene in itertools.islice(pitches.scenes(), 200):
        assert sum(name in scene for name in names) == 1, scene


def test_demo():
    run = subprocess.run([sys.executable, "tiny_transformer/corpora/pitches.py"], capture_output=True, text=True, check=True)
    assert "FOUNDER:" in run.stdout
    assert f"= {pitches.entropy():.6f} nats per character, exactly" in run.stdout
    assert "1 derivation\n" in run.stdout
