"""What each ingredient is worth: that the flags switch off what they say, that nothing is trained twice, and the table's arithmetic."""

import json
import math
import statistics
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import ingredients
from benchmarks.ingredients import ALL, OFF, PLAIN, SAYS, Case, cases, student, table
from tiny_transformer.cli.settings import training_job
from tiny_transformer.evaluation.validation_loss import Measured

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
    assert [case.name for case in cases(["muon"], ["without"])] == [ALL, "all more", "without muon"]
    assert [case.name for case in cases(["muon"], ["alone"])] == [PLAIN, "none more", "alone muon"]
    assert len(cases(list(OFF), ["without", "alone"])) == 4 + 2 * len(OFF)
    assert Case("all more").flags == [] and Case("none more").flags == Case(PLAIN).flags


@pytest.mark.parametrize(
    ("case", "steps"), [(ALL, 140), ("without muon", 140), ("all more", 175), (PLAIN, 260), ("alone muon", 260), ("none more", 325)]
)
def test_a_case_has_the_steps_of_what_it_is_compared_with(case, steps):
    known = {ALL: ingredients.Pace(10, 1), PLAIN: ingredients.Pace(20, 2), "without muon": ingredients.Pace(5, 9)}
    assert Case(case).steps(known, 2.5) == steps


# two-sided 95 % quantiles, from printed tables
@pytest.mark.parametrize(("freedom", "right"), [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (60, 2.000), (1000, 1.962)])
def test_students_quantiles(freedom, right):
    assert math.isclose(student(0.95, freedom), right, abs_tol=1e-3)


def pace(case, start=10.0, rate=1.0):
    return {"pace": case, "start": start, "rate": rate}


def line(case, seed, loss, steps=140):
    return {"case": case, "seed": seed, "steps": steps, "loss": loss, "error": 0.01}


def test_how_fast_a_case_is():
    """The first step begins at 12.5 s; 0.25 s a step up to 30, 0.5 s a step from there on; 12 s of evaluation in between."""
    lines = [
        {"step": 0, "val_loss": 4.2}, {"step": 10, "loss": 3.0, "seconds_used": 15.0}, {"step": 20, "loss": 3.0, "seconds_used": 17.5},
        {"step": 30, "loss": 2.9, "seconds_used": 20.0}, {"step": 40, "loss": 2.8, "seconds_used": 37.0},
        {"step": 40, "final_val_loss": 2.8, "trained_seconds": 37.5},
    ]  # fmt: skip
    found = ingredients.pace_of(lines)
    assert found.start == 12.5 and found.rate == 40 / 25
    assert found.steps(2.5) == 220 and found.steps(0.5) == 28


def test_a_pace_is_the_mean_of_two_rounds():
    lines = [pace(ALL, 10, 1), line(ALL, 0, 1.4), pace("alone muon"), pace(ALL, 20, 2)]
    assert ingredients.paces(lines) == {ALL: ingredients.Pace(15, 1.5)}, "one round says too little"


def test_the_table():
    lines = [
        *(pace(name) for name in (ALL, "alone muon") * 2), pace(PLAIN, 80, 2), pace(PLAIN, 80, 2),
        pace("without muon", 30, 1.5), pace("without muon", 30, 1.34),
        *(line(ALL, seed, loss) for seed, loss in enumerate([1.4, 1.42, 1.41])), line(ALL, 3, 9.0, steps=90),  # of another pace
        *(line("without muon", seed, loss) for seed, loss in enumerate([1.5, 1.55])), line("all more", 0, 1.35, 175),
        line(PLAIN, 0, 1.9), line(PLAIN, 1, 2.1), line("alone muon", 0, 1.7),
    ]  # fmt: skip
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table(lines, 2.5).splitlines()]
    names = [["the recipe", ""], ["a quarter more steps", ""], ["Muon", "without"], ["none of them", ""], ["Muon", "alone"]]
    assert [row[:2] for row in rows[2:]] == names
    by_name = {tuple(row[:2]): row[2:] for row in rows[2:]}
    assert by_name["the recipe", ""] == ["3", "140", "1.4100", "", "1.0 a second"]
    pooled = math.sqrt((2 * statistics.variance([1.4, 1.42, 1.41]) + statistics.variance([1.5, 1.55])) / 3)
    half = 3.182 * pooled * math.sqrt(1 / 2 + 1 / 3)  # t for three degrees of freedom
    assert by_name["Muon", "without"] == ["2", "140", "1.5250", f"+0.1150 ± {half:.4f}", "1.42"]
    assert by_name["a quarter more steps", ""][:3] == ["1", "175", "1.3500"] and by_name["a quarter more steps", ""][4] == ""
    wide = student(0.95, 1) * statistics.stdev([1.9, 2.1]) * math.sqrt(1 + 1 / 2)  # the plain one has a deviation of its own
    assert by_name["Muon", "alone"][3] == f"-0.3000 ± {wide:.4f}" and by_name["Muon", "alone"][4] == "0.50"


def test_the_best_stands_first_and_the_recipe_before_all():
    names = [ALL, "without muon", "without counts", "without rms"]
    lines = [*map(pace, 2 * names), *(line(name, 0, loss) for name, loss in zip(names, (1.5, 1.6, 1.4, 1.55), strict=True))]
    assert [row.split("|")[1].strip() for row in table(lines, 2.5).splitlines()[2:]] == ["the recipe", SAYS["counts"], SAYS["rms"], "Muon"]


def test_one_seed_has_no_interval():
    assert "nan" in table([pace(ALL), pace(ALL), line(ALL, 0, 1.4), line("without muon", 0, 1.5)], 2.5)


def test_what_is_there_is_not_trained_again(tmp_path, monkeypatch):
    file, trained = tmp_path / "lines.jsonl", []
    known = [pace(ALL), pace(ALL), line(ALL, 0, 1.4), line(ALL, 1, 1.4, steps=99)]
    file.write_text("".join(json.dumps(one) + "\n" for one in known))

    def measured(case, seed, steps, folder):
        trained.append((case.name, seed, steps))
        return line(case.name, seed, 1.5, steps)

    monkeypatch.setattr(ingredients, "measured", measured)
    todo = [(case, seed) for seed in (0, 1) for case in cases(["muon"], ["without"])]
    ingredients.run(todo, 2.5, file)
    more = [("all more", 0, 175), ("all more", 1, 175)]
    assert sorted(trained) == [(ALL, 1, 140), *more, ("without muon", 0, 140), ("without muon", 1, 140)]
    assert len(ingredients.read(file)) == 9
    ingredients.run(todo, 2.5, file)
    assert len(trained) == 5


def test_paces_are_measured_twice_and_after_everything_was_compiled(tmp_path, monkeypatch):
    file, done = tmp_path / "lines.jsonl", []
    file.write_text("".join(json.dumps(one) + "\n" for one in [pace(ALL), pace(ALL), pace("without rms")]))
    monkeypatch.setattr(ingredients, "warm", lambda case, folder: done.append(("warm", case.name)))
    monkeypatch.setattr(ingredients, "paced", lambda case, folder: done.append(("pace", case.name)) or pace(case.name))
    todo = [Case(name) for name in (ALL, "without muon", "without rms")]
    ingredients.run_paces(todo, file)
    assert {kind for kind, _ in done[:2]} == {"warm"}
    assert sorted(done[2:]) == [("pace", "without muon"), ("pace", "without muon"), ("pace", "without rms")]
    assert set(ingredients.paces(ingredients.read(file))) == {ALL, "without muon", "without rms"}


@pytest.mark.parametrize(
    ("words", "paced", "trained"),
    [
        (["--pace", "--only", "rms"], {ALL, PLAIN, "without rms", "alone rms"}, 0), (["--table"], set(), 0),
        (["--only", "rms"], {ALL, PLAIN}, 6), (["--only", "rms", "--kinds", "alone"], set(), 3),
    ],
)  # fmt: skip
def test_what_the_command_does(words, paced, trained, monkeypatch, capsys):
    done = []
    lines = [pace(PLAIN), pace(PLAIN), line(PLAIN, 0, 1.9), line("alone rms", 0, 1.8)]
    monkeypatch.setattr(ingredients, "read", lambda *_: lines)
    monkeypatch.setattr(ingredients, "run_paces", lambda todo: done.append({case.name for case in todo}))
    monkeypatch.setattr(ingredients, "run", lambda todo, minutes: done.append(("train", len(todo), minutes)))
    assert ingredients.main(words) == 0
    assert done == [paced] * bool(paced) + [("train", 3 * trained, 2.5)] * bool(trained)
    assert ("RMS norm" in capsys.readouterr().out) == (words[0] != "--pace")


def test_a_training_that_fails_ends_the_command(monkeypatch, capsys):
    def fails(*_):
        raise ingredients.FailedError("tiny train … ended with exit code 2: why")

    monkeypatch.setattr(ingredients, "measured", fails)
    monkeypatch.setattr(ingredients, "read", lambda *_: [pace(name) for name in (ALL, PLAIN) * 2])
    assert ingredients.main(["--only", "muon", "--seeds", "1"]) == 2
    assert "why" in capsys.readouterr().err


def test_one_case_is_the_real_command_and_a_real_measurement(monkeypatch, tmp_path):
    seen = []

    def train(words):
        seen.append(words)
        (tmp_path / "without-muon-7").mkdir()
        return 0.0

    monkeypatch.setattr(ingredients, "train", train)
    monkeypatch.setattr(ingredients, "opened", lambda out: ("run", "model", "training ids", "validation ids"))
    losses = {("model", "validation ids"): Measured(1.5, 0.1, 900)}
    monkeypatch.setattr(ingredients, "loss_in_windows", lambda *given: losses[given])
    found = ingredients.measured(Case("without muon"), 7, 120, tmp_path)
    out = str(tmp_path / "without-muon-7")
    start = ["tiny", "train", "--recipe", "speedrun", "--seed", "7", "--out", out]
    assert seen == [[*start, "--threads", "1", "--optimizer", "adamw", "--max-steps", "120"]]
    assert (found["case"], found["seed"], found["steps"], found["loss"], found["error"]) == ("without muon", 7, 120, 1.5, 0.1)
    assert not any(tmp_path.iterdir())  # a run takes 10 MB, and there are ninety


def test_a_pace_comes_from_a_run_by_the_clock(monkeypatch, tmp_path):
    seen = []
    lines = [{"step": 10, "seconds_used": 12.0}, {"step": 20, "seconds_used": 14.0}, {"step": 100, "trained_seconds": 45.0}]
    monkeypatch.setattr(ingredients, "train", lambda words: seen.append(words) or Path(words[7]).mkdir())
    monkeypatch.setattr(ingredients.Run, "open", lambda out: type("Run", (), {"metrics": lambda self: lines})())
    found = ingredients.paced(Case("alone muon"), tmp_path)
    assert seen[0][-2:] == ["--minutes", "0.75"] and "--max-steps" not in seen[0]
    assert (found["pace"], found["start"], found["rate"]) == ("alone muon", 10.0, 100 / 35)
    assert not any(tmp_path.iterdir())
    ingredients.warm(Case("alone muon"), tmp_path)
    assert seen[1][-2:] == ["--max-steps", "10"] and seen[1][6:8] != seen[0][6:8]
