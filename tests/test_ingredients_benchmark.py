"""What each ingredient is worth: that the flags switch off what they say, that nothing is trained twice, and the table's arithmetic."""

import json
import math
import statistics
from dataclasses import asdict

import pytest

from benchmarks import ingredients
from benchmarks.ingredients import ALL, OFF, PLAIN, SAYS, Case, cases, student, table
from tiny_transformer.cli.settings import training_job

FIELDS = {
    "counts": {"counted_share"}, "shuffled": {"windows"}, "muon": {"optimizer"}, "pairs": {"ngram_rows"}, "short": {"short_context"},
    "decay": {"schedule", "min_lr_ratio"}, "rotary": {"position"}, "qk-norm": {"qk_norm"}, "rms": {"norm"}, "relu2": {"activation"},
    "soft-cap": {"logit_softcap"}, "untied": {"tie_weights"}, "bfloat16": {"precision"}, "compile": {"compile"},
}  # fmt: skip


def settings_of(case):
    job = training_job(["--recipe", "speedrun", *Case(case).flags])
    return asdict(job.model) | asdict(job.training)


def changed(case, base):
    found, before = settings_of(case), settings_of(base)
    return {name for name in found if found[name] != before[name]}


@pytest.mark.parametrize("name", OFF)
def test_each_ingredient_is_switched_off_and_nothing_else(name):
    assert changed(f"without {name}", ALL) == FIELDS[name]
    assert changed(f"alone {name}", PLAIN) == FIELDS[name]
    there, alone = settings_of(ALL), settings_of(f"alone {name}")
    assert all(there[field] == alone[field] for field in FIELDS[name])


def test_every_ingredient_has_words_and_the_plain_recipe_has_none():
    assert set(OFF) == set(SAYS) == set(FIELDS)
    assert changed(PLAIN, ALL) == set().union(*FIELDS.values())


def test_what_is_compared_with_comes_too():
    assert [case.name for case in cases(["muon"], ["without"])] == [ALL, "without muon"]
    assert [case.name for case in cases(["muon"], ["alone"])] == [PLAIN, "alone muon"]
    assert len(cases(list(OFF), ["without", "alone"])) == 2 + 2 * len(OFF)


# two-sided 95 % quantiles, from printed tables
@pytest.mark.parametrize(("freedom", "right"), [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (60, 2.000), (1000, 1.962)])
def test_students_quantiles(freedom, right):
    assert math.isclose(student(0.95, freedom), right, abs_tol=1e-3)


def line(case, seed, loss, minutes=2.5):
    return {"case": case, "seed": seed, "minutes": minutes, "steps": 100 + seed, "loss": loss}


def test_the_table():
    lines = [
        *(line(ALL, seed, loss) for seed, loss in enumerate([1.4, 1.42, 1.41])),
        *(line("without muon", seed, loss) for seed, loss in enumerate([1.5, 1.55])),
        line(PLAIN, 0, 1.9), line("alone muon", 0, 1.7),
    ]  # fmt: skip
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table(lines).splitlines()]
    assert [row[:2] for row in rows[2:]] == [["the recipe", ""], ["Muon", "without"], ["none of them", ""], ["Muon", "alone"]]
    by_name = {tuple(row[:2]): row[2:] for row in rows[2:]}
    assert by_name["the recipe", ""] == ["3", "101", "1.410", ""]
    pooled = math.sqrt((2 * statistics.variance([1.4, 1.42, 1.41]) + statistics.variance([1.5, 1.55])) / 3)
    half = 3.182 * pooled * math.sqrt(1 / 2 + 1 / 3)  # t for three degrees of freedom
    assert by_name["Muon", "without"] == ["2", "100", "1.525", f"+0.115 ± {half:.3f}"]
    assert by_name["Muon", "alone"][3].startswith("-0.200 ±")


def test_one_seed_has_no_interval():
    assert "nan" in table([line(ALL, 0, 1.4), line("without muon", 0, 1.5)])


def test_what_is_there_is_not_trained_again(tmp_path, monkeypatch):
    file, trained = tmp_path / "lines.jsonl", []
    file.write_text(json.dumps(line(ALL, 0, 1.4)) + "\n" + json.dumps(line(ALL, 1, 1.4, minutes=1.0)) + "\n")

    def measured(case, seed, minutes, folder):
        trained.append((case.name, seed, minutes))
        return line(case.name, seed, 1.5, minutes) | {"error": 0.01}

    monkeypatch.setattr(ingredients, "measured", measured)
    todo = [(case, seed) for seed in (0, 1) for case in cases(["muon"], ["without"])]
    ingredients.run(todo, 2.5, 2, file)
    assert sorted(trained) == [(ALL, 1, 2.5), ("without muon", 0, 2.5), ("without muon", 1, 2.5)]
    assert len(ingredients.read(file)) == 5
    ingredients.run(todo, 2.5, 2, file)
    assert len(trained) == 3


def test_a_training_that_fails_ends_the_command(monkeypatch, capsys):
    def fails(*_):
        raise ingredients.FailedError("tiny train … ended with exit code 2: why")

    monkeypatch.setattr(ingredients, "measured", fails)
    monkeypatch.setattr(ingredients, "read", lambda *_: [])
    assert ingredients.main(["--only", "muon", "--seeds", "1"]) == 2
    assert "why" in capsys.readouterr().err


def test_one_case_is_the_real_command_and_a_real_measurement(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(ingredients, "train", lambda words: seen.append(words) or 0.0)

    class Found:
        steps, seconds = 3, 4.0
        windows = random = type("Loss", (), {"loss": 1.5, "error": 0.1})

    monkeypatch.setattr(ingredients, "measure", lambda out, begun: Found)
    found = ingredients.measured(Case("without muon"), 7, 2.5, tmp_path)
    assert seen == [["tiny", "train", "--recipe", "speedrun", "--seed", "7", "--out", str(tmp_path / "without-muon-7"), "--minutes", "2.5", "--threads", "1", "--optimizer", "adamw"]]  # noqa: E501
    assert (found["case"], found["seed"], found["steps"], found["loss"]) == ("without muon", 7, 3, 1.5)
