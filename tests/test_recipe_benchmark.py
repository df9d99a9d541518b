"""Measuring a recipe: a real, tiny run in the command's place, and every figure beside one that was had another way."""

import json
import math
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import catalogue, harness, recipe, report
from benchmarks.history import lines, read
from benchmarks.recipe import FailedError, Measurement, command, measure, result_of, seconds_of, spread, table
from tiny_transformer import run as runs
from tiny_transformer.cli.main import main as tiny
from tiny_transformer.corpora.counting_loss import ngram_loss
from tiny_transformer.evaluation.validation_loss import Measured
from tiny_transformer.run import Run
from tiny_transformer.training.dataset import batch_at

VERSE = "ROMEO:\nBut soft, what light?\n\nJULIET:\nThe night; I hear thee not!\n\n"
SIZES = {"d-model": 32, "n-layers": 1, "n-heads": 2, "max-seq-len": 16, "batch-size": 4, "eval-tokens": 100, "warmup-steps": 1}
SMALL = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text that differs from place to place, so that windows have different losses."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(VERSE[place % 11 :] for place in range(40)), encoding="utf-8")
    return path


def trained(out, text, *more):
    assert tiny(["train", "--data", str(text), "--out", str(out), *SMALL, *more]) == 0


@pytest.fixture(scope="module")
def by_steps(tmp_path_factory, text):
    """(a run of five steps, when its command began, when it had ended)"""
    out, begun = tmp_path_factory.mktemp("steps") / "run", time.time()
    trained(out, text, "--max-steps", "5", "--seed", "7")
    return out, begun, time.time()


def val_ids_of(text, tokenizer):
    whole = text.read_text(encoding="utf-8")
    return np.array(tokenizer.encode(whole[int(len(whole) * 0.9) :]))


# ---------------------------------------------------------------- one run


def test_the_whole_text_is_measured_in_the_trainings_windows(by_steps, text):
    found = measure(by_steps[0], by_steps[1])
    model, tokenizer = runs.load(by_steps[0])
    ids = val_ids_of(text, tokenizer)
    losses = []
    for start in range(0, len(ids) - 1, 16):
        window = torch.from_numpy(ids[start : start + 17])
        losses += F.cross_entropy(model(window[None, :-1])[0], window[1:], reduction="none").tolist()
    assert found.windows.loss == pytest.approx(np.mean(losses), abs=1e-5) and found.windows.tokens == len(ids) - 1 == len(losses)
    assert 0 < found.windows.error < math.inf
    final = Run.open(by_steps[0]).metrics()[-1]["final_val_loss"]  # what the trainer said of it
    assert found.windows.loss == pytest.approx(final, abs=1e-4)


def test_random_batches_are_two_hundred_of_the_runs_own_size(by_steps, text):
    found = measure(by_steps[0], by_steps[1])
    model, tokenizer = runs.load(by_steps[0])
    ids, means = val_ids_of(text, tokenizer), []
    for number in range(200):
        inputs, targets = (torch.from_numpy(np.asarray(part)).long() for part in batch_at(ids, 4, 16, 1337, number))
        means.append(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).item())
    assert found.random.loss == pytest.approx(np.mean(means), abs=1e-5) and found.random_batch == 4
    assert found.random.error == pytest.approx(np.std(means, ddof=1) / math.sqrt(200), rel=1e-3)


def test_steps_tokens_and_seed_are_those_of_the_run(by_steps):
    found = measure(by_steps[0], by_steps[1], others=0.03)
    assert (found.seed, found.steps, found.tokens, found.others) == (7, 5, 5 * 4 * 16, 0.03)


def test_a_run_by_steps_ends_with_its_last_checkpoint(by_steps):
    out, begun, ended = by_steps
    seconds = seconds_of(Run.open(out), begun)
    assert 0 < seconds <= ended - begun and seconds == (out / "last.pt").stat().st_mtime - begun


def test_a_run_by_the_clock_says_itself_how_long_it_trained(tmp_path, text):
    run = Run.create(tmp_path / "run", {"note": "nothing was trained"})
    run.log(10, loss=2.0, seconds_used=3.25)
    run.log(12, final_val_loss=1.9, trained_seconds=4.5)
    assert seconds_of(run, begun=0.0) == 4.5


def test_counting_has_read_the_training_text_only(by_steps, text):
    tokenizer = runs.load(by_steps[0])[1]
    ids = np.array(tokenizer.encode(text.read_text(encoding="utf-8")))
    val = val_ids_of(text, tokenizer)
    expected = ngram_loss(ids[: len(ids) - len(val)], val, tokenizer.vocab_size)
    assert measure(by_steps[0], by_steps[1]).counting == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------- the command


def test_the_words_of_the_command(tmp_path):
    words = command("speedrun", 5, tmp_path)
    assert words == ["tiny", "train", "--recipe", "speedrun", "--seed", "5", "--out", str(tmp_path)]
    assert command("demo", 5, tmp_path, 0.5)[-2:] == ["--minutes", "0.5"]


def test_a_training_that_fails_is_one_line_and_nothing_is_kept(capsys, monkeypatch):
    monkeypatch.setattr(recipe, "keep", lambda *_, **__: pytest.fail("there is nothing to keep"))
    monkeypatch.setattr(recipe, "warn_if_busy", lambda: None)
    assert recipe.main(["--recipe", "demo", "--seeds", "1", "--minutes", "-1"]) == 2  # the real command refuses it
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "exit code 2" in said and "minutes" in said


def test_a_child_that_says_nothing_is_named_too(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(FailedError, match="tiny train ended with exit code 1: it said nothing"):
        recipe.train(["tiny", "train"])


# ---------------------------------------------------------------- several seeds


def made_up(seed, loss, random, seconds, others=0.0):
    return Measurement(seed, 100, 6400, seconds, Measured(loss, 0.012, 999), Measured(random, 0.001, 200 * 64), 1.75, 4, others)


THREE = [made_up(1, 1.50, 1.60, 150.0), made_up(2, 1.56, 1.63, 151.0, 0.4), made_up(3, 1.53, 1.60, 149.0)]


def test_mean_and_spread():
    values = [1.5, 1.56, 1.53]
    assert spread(values).mean == pytest.approx(np.mean(values)) and spread(values).deviation == pytest.approx(np.std(values, ddof=1))
    assert str(spread(values)) == "1.5300 (standard deviation 0.0300)" and str(spread([1.5])) == "1.5000"


def test_the_table_says_all_of_it():
    said = table(THREE).splitlines()
    assert "999 tokens" in said[0] and "200 batches of 4, drawn with seed 1337" in said[0]
    assert said[2].split() == ["1", "100", "6,400", "150.0", "1.5000", "±", "0.0120", "1.6000", "±", "0.0010"]
    assert said[3].endswith("others used 40% of the machine") and "others" not in said[2]
    assert "mean over 3 seeds: whole text 1.5300 (standard deviation 0.0300), random 1.6100" in said[-1] and "150.0 s" in said[-1]
    assert "mean over 1 seed: whole text 1.5000, random 1.6000;" in table(THREE[:1])


def test_the_result_is_a_cost_beside_counting():
    result = result_of("recipe speedrun", THREE)
    assert result.lower_is_better and result.reached and (result.group, result.unit) == ("recipe", "nats")
    assert (result.ours, result.peer) == (pytest.approx(1.53), 1.75) and result.ratio == pytest.approx(1.53 / 1.75)
    assert (result.low, result.high) == (1.50 / 1.75, 1.56 / 1.75) and result.others == 0.4
    assert result.extra["loss_of_seed_2"] == 1.56 and result.extra["random_loss"] == pytest.approx(1.61)
    assert "seeds 1, 2, 3" in result.notes and "150.0 s" in result.notes and "0.01 M tokens" in result.notes
    assert result_of("recipe x", [replace(THREE[0], others=None)]).others is None


def test_the_page_shows_it_when_the_history_has_it(tmp_path):
    path = tmp_path / "history.jsonl"
    harness.keep([result_of("recipe speedrun", THREE)], path, seconds={"recipe": 480.0})
    history = read(path)
    page = report.page(history, lines(history))
    assert "## Recipes" in page and "Again: `python -m benchmarks.recipe`." in page and "loss 1.5300 (standard deviation 0.0300)" in page
    assert "| recipe speedrun | 1.53 nats | 4-gram counts 1.75 | **0.87** (0.86 to 0.89) ᵈ |" in page
    assert catalogue.means("recipe speedrun").startswith("The loss of `tiny train --recipe`") and "No figures yet" not in page
    assert "## Recipes" in report.page([], {}) and "No figures yet: `python -m benchmarks.recipe`" in report.page([], {})


# ---------------------------------------------------------------- all of it


@pytest.fixture
def stand_in(monkeypatch, text):
    """A training of three small steps in this process in the command's place; returns the words that were asked for."""
    asked = []

    def train(words):
        asked.append(list(words))
        begun = time.time()
        trained(words[words.index("--out") + 1], text, "--max-steps", "3", "--seed", words[words.index("--seed") + 1])
        return begun

    monkeypatch.setattr(recipe, "train", train)
    monkeypatch.setattr(recipe, "warn_if_busy", lambda: 0.25)
    monkeypatch.setattr(report, "write", lambda: asked.append("written"))
    return asked


def test_every_seed_is_trained_measured_kept_and_reported(stand_in, monkeypatch, tmp_path, capsys):
    kept = tmp_path / "history.jsonl"
    monkeypatch.setattr(recipe, "keep", lambda results, **more: harness.keep(results, kept, **more))
    assert recipe.main(["--recipe", "laptop", "--seeds", "2", "--keep", str(tmp_path / "runs")]) == 0
    assert stand_in == [command("laptop", seed, tmp_path / "runs" / f"seed-{seed}") for seed in (1337, 1338)] + ["written"]
    record = json.loads(kept.read_text(encoding="utf-8"))
    (result,) = record["results"]
    assert result["name"] == "recipe laptop" and record["others_before"] == 0.25 and record["seconds"]["recipe"] > 0
    losses = [measure(tmp_path / "runs" / f"seed-{seed}", 0.0).windows.loss for seed in (1337, 1338)]
    assert result["ours"] == pytest.approx(np.mean(losses)) and losses[0] != losses[1]
    said = capsys.readouterr().out
    assert "mean over 2 seeds" in said and "tiny train --recipe laptop --seed 1338" in said


def test_without_history_nothing_is_kept_and_nothing_is_left(stand_in, monkeypatch):
    monkeypatch.setattr(recipe, "keep", lambda *_, **__: pytest.fail("it was not to be kept"))
    assert recipe.main(["--seeds", "1", "--first-seed", "7", "--no-history", "--minutes", "2"]) == 0
    (words,) = stand_in
    assert words[words.index("--seed") + 1] == "7"
    assert words[words.index("--minutes") + 1] == "2" and not recipe.Path(words[words.index("--out") + 1]).exists()


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--seeds", "x"], ["--recipe", "nonsense"]])
def test_what_makes_no_sense_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        recipe.main(words)
    assert stop.value.code == 2 and words[0] in capsys.readouterr().err
