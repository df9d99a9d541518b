"""The three bugs of docs/honest_loss.md: each turns 4.6 into 0.384, the same model measured rightly says so, and a check finds it."""

import math
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
HONEST = runpy.run_path(str(ROOT / "examples/honest_loss.py"))
ENTROPY = math.log(100)


@pytest.fixture(scope="module")
def stories() -> dict:
    return {tell.__name__: tell() for tell in HONEST["STORIES"]}


def test_the_text_cannot_be_predicted_by_what_came_before():
    ids = HONEST["unpredictable"](200_000, 7)
    pairs = np.bincount(ids[:-1] * 100 + ids[1:], minlength=10_000)
    chi_square = float((np.square(pairs - 20.0) / 20).sum())
    assert abs(chi_square - 9_999) < 5 * math.sqrt(2 * 9_999)


def test_without_a_bug_nobody_gets_below_the_entropy(stories):
    story = stories["honest"]
    assert all(loss > ENTROPY - 0.02 for _, loss in story.reported)
    assert 4.58 < story.loss < 4.75
    assert story.caught == "6,400 targets for 6,400 words; no place sees its future"


@pytest.mark.parametrize("name", ["padded", "shifted", "overlapping"])
def test_each_bug_reports_0_384_and_lies(stories, name):
    story = stories[name]
    assert story.reported[0][1] > 4, "before it learns, each is as bad as it should be"
    assert story.loss <= 0.384, "then it reports what was claimed"
    assert story.honest > ENTROPY - 0.1, "and the same model, measured rightly, has learned nothing"


def test_each_bug_is_caught(stories):
    assert stories["padded"].caught == "20,000 targets for 1,533 words".replace("20,000", f"{200 * (HONEST['width_for'](lengths()) - 1):,}")
    asked, words = (int(part.replace(",", "")) for part in stories["padded"].caught.split() if part[0].isdigit())
    assert asked > 10 * words
    assert "that is its target. Look at the mask" in stories["shifted"].caught
    assert "of the validation text also stands in the training text, word for word" in stories["overlapping"].caught
    assert float(stories["overlapping"].caught.split("%")[0]) > 50


def lengths() -> np.ndarray:
    return np.random.default_rng(3).integers(5, 14, size=1200)


def test_the_width_is_that_of_the_arithmetic():
    width = HONEST["width_for"](np.array([9, 9, 9]), loss=4.6, claimed=0.384, room=1.0)
    assert 8 * 4.6 / (width - 1) <= 0.384 < 8 * 4.6 / (width - 2)


def test_a_mask_shifted_by_one_is_the_only_thing_wrong_with_that_model():
    model = HONEST["new_model"](8, HONEST["ShiftedMask"], causal=False).eval()
    ids = torch.arange(8)[None]
    own = torch.ones(8, 8, dtype=torch.bool).tril(1)
    plain = HONEST["TinyTransformerLM"](model.config, weights=model.weights()).eval()
    assert torch.equal(model(ids), plain(ids, own)) and not torch.equal(model(ids), plain(ids, own.tril(0)))


def test_padding_of_a_real_text(tmp_path, capsys):
    (tmp_path / "t.txt").write_text(" a b c \n\n = d = \n" * 10)  # 4 tokens a line with their ends
    assert HONEST["main"](["--text", str(tmp_path / "t.txt")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("20 lines of 4.0 words, the longest of 4. Filled up to 37, an honest 4.6 is reported as 0.384")
    assert f"1024: {3 * 4.6 / 1023:.3f}" in out
    assert HONEST["main"](["--text", str(tmp_path / "none.txt")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_wikitexts_lines_filled_up_to_1024_are_enough(corpora_dir, capsys):
    assert HONEST["main"](["--text", str(corpora_dir / "wikitext2-valid.txt")]) == 0
    assert "2,461 lines of 87.9 words, the longest of 430. Filled up to 1043" in capsys.readouterr().out


def test_table_and_drawing(stories, capsys):
    HONEST["show"](list(stories.values()))
    out = capsys.readouterr().out
    for story in stories.values():
        assert f"{story.name:30} {story.loss:8.3f}" in out and f"{story.name}: {story.caught}" in out
    drawing = ET.fromstring(HONEST["drawing"](list(stories.values())))
    assert drawing.tag.endswith("svg") and all(story.name in "".join(drawing.itertext()) for story in stories.values())
    kept = (ROOT / "docs/images/honest_loss.svg").read_text(encoding="utf-8")
    for story in stories.values():
        assert story.name in kept
