"""`tiny train --minutes` and `tiny law`, on small real runs. The clock is a fake one that goes on a little whenever it is read."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tiny_transformer.cli import law_runs, minutes, settings
from tiny_transformer.cli import main as cli
from tiny_transformer.cli.display import TrainingDisplay
from tiny_transformer.cli.law_runs import Cell
from tiny_transformer.cli.main import main
from tiny_transformer.cli.screen import Screen
from tiny_transformer.config import ConfigError
from tiny_transformer.recipes import RECIPES, Longer
from tiny_transformer.training import size_choice
from tiny_transformer.training.loss_law import Constants, law_for, read
from tiny_transformer.training.time_budget import TimeBudget

TICK = 0.05
TINY = ["--d-model", "32", "--n-layers", "1", "--max-seq-len", "16"]


@pytest.fixture
def clock(monkeypatch):
    """Every reading of time.perf_counter is TICK later than the one before: a step takes the same few readings on every machine."""
    now = [1000.0]

    def read_clock():
        now[0] += TICK
        return now[0]

    monkeypatch.setattr(time, "perf_counter", read_clock)
    return now


@pytest.fixture
def desk(tmp_path, monkeypatch, small_text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tiny_transformer.cli.training.SAMPLE_TOKENS", 5)
    monkeypatch.setattr(size_choice, "BATCHES", (4, 8))  # small ones: on the fake clock large ones would cost nothing
    (tmp_path / "my.txt").write_text(small_text, encoding="utf-8")
    constants = {"floor": 1.3, "repeats": 12.0}
    law = {"constants": constants, "covariance": [[0.0] * 8] * 8, "scatter": 0.01, "runs": 9, "largest": 1e6, "yardstick": 1.0}
    (tmp_path / "law.json").write_text(json.dumps({"laws": {"quick": law}, "runs": []}), encoding="utf-8")
    return tmp_path


def train(*words, law=True):
    return main(["train", "--out", "run", *(["--law", "law.json"] if law else []), *words])


def config(folder="run"):
    return json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_a_run_by_the_clock(desk, clock, capsys, engine):
    assert train("--data", "my.txt", "--minutes", "0.4", "--engine", engine, *TINY) == 0
    out = capsys.readouterr().out
    record = config()
    plan = record["plan"]
    assert record["training"]["minutes"] == 0.4
    assert (record["model"]["d_model"], record["model"]["n_layers"], record["model"]["max_seq_len"]) == (32, 1, 16)
    assert record["model"]["activation"] == "relu2"  # the parts of `quick`
    timed = [size["batch_size"] for size in plan["timed"]]
    assert record["training"]["batch_size"] in timed  # nothing is chosen that was not timed
    assert plan["low"] < plan["loss"] < plan["high"]
    assert plan["chosen"]
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    trained = lines[-1]["trained_seconds"]
    assert trained == pytest.approx(24, abs=1.2)
    interval = rf"{plan['loss']:.3f} \({plan['low']:.3f} to {plan['high']:.3f}"
    how = r"\(best of \d timed sizes, [\d,]+ characters/s here\)"
    assert re.search(rf"^chosen    1 × 32, batches of \d × 16 {how}: reads the text \d", out, re.MULTILINE)
    assert re.search(rf"^expected  loss {interval}, roughly: .*the last step at", out, re.MULTILINE)
    assert "training  0.4 minutes of steps" in out
    assert re.search(r"step +\d+  loss .* tok/s  0:\d\d left", out)
    reached = lines[-1]["final_val_loss"]
    assert f"expected {plan['loss']:.3f} ({plan['low']:.3f} to {plan['high']:.3f}), reached {reached:.3f}: " in out
    assert re.search(r"the last step ended 2[345]\.\d s after the start, [+-]\d\.\d % of 0:24", out)


def test_the_clock_starts_with_the_command(desk, clock, monkeypatch):
    seen = {}
    original = minutes.plan

    def later(job, material):
        clock[0] += 5.0  # a slow import, a slow disk
        job, made = original(job, material)
        seen["before"] = made.before
        return job, made

    monkeypatch.setattr("tiny_transformer.cli.training.plan", later)
    start = clock[0]
    assert train("--data", "my.txt", "--minutes", "0.4", "--batch-size", "4", *TINY) == 0
    assert start < cli.STARTED["train"] < start + 0.2
    assert seen["before"] > 5
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["trained_seconds"] == pytest.approx(24, abs=1.2)
    assert not config()["plan"]["chosen"]  # all sizes were asked for …
    assert config()["training"]["batch_size"] == 4
    assert config()["plan"]["tokens_per_second"] > 0  # … and timed


def test_too_few_minutes_are_refused_before_anything_is_written(desk, clock, capsys, monkeypatch):
    original = minutes.engine
    monkeypatch.setattr(minutes, "engine", lambda name: clock.__setitem__(0, clock[0] + 30) or original(name))
    assert train("--data", "my.txt", "--minutes", "0.1", *TINY) == 2
    err = capsys.readouterr().err
    begin = r"tiny train: --minutes 0\.1 is 6\.0 s, and starting took 3\d\.\d s"
    assert re.fullmatch(begin + r": there must be time to learn\. Try --minutes 1\.\d\n", err)
    assert not Path("run").exists()


@pytest.mark.parametrize("words", [["--minutes", "0"], ["--minutes", "-1"], ["--minutes", "nan"]])
def test_minutes_that_cannot_be(desk, capsys, words):
    assert train("--data", "my.txt", *words) == 2
    assert "it must be positive. Try minutes=3" in capsys.readouterr().err


def test_resuming_a_run_by_the_clock(desk, clock, capsys):
    assert train("--data", "my.txt", "--minutes", "0.2", "--batch-size", "4", *TINY) == 0
    steps = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])["step"]
    capsys.readouterr()
    assert main(["train", "--resume", "run"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"resuming after 0:1[123] of 0:12: run", out)
    assert "this run is complete. To train on: tiny train --resume run --minutes 0.4" in out
    assert main(["train", "--resume", "run", "--minutes", "0.4"]) == 0
    out = capsys.readouterr().out
    more = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert more["step"] > 1.5 * steps
    assert more["trained_seconds"] == pytest.approx(24, abs=1.2)
    assert "expected" not in out  # what was expected was of fewer minutes
    assert main(["train", "--resume", "run", "--minutes", "1", "--max-steps", "5"]) == 2
    assert "--minutes with --max-steps: one of them says when training ends" in capsys.readouterr().err
    assert main(["train", "--resume", "run", "--max-steps", str(more["step"] + 3)]) == 0  # by steps from here
    assert json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])["step"] == more["step"] + 3


# --- what is chosen, and from what ------------------------------------------------------------------------------------


def job(*words):
    return settings.training_job(["--corpus", "pitches", *words])


def test_steps_and_minutes_exclude_each_other(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="--minutes with --max-steps: one of them says when training ends. Leave one out"):
        job("--minutes", "3", "--max-steps", "5")
    timed = replace(RECIPES["demo"], name="timed", training=replace(RECIPES["demo"].training, minutes=2.5))
    monkeypatch.setitem(RECIPES, "timed", timed)
    assert job("--recipe", "timed").training.minutes == 2.5
    assert job("--recipe", "timed", "--max-steps", "7").training.minutes is None  # a flag wins over the recipe
    assert job("--recipe", "timed", "--minutes", "7").training.minutes == 7
    file = tmp_path / "my.toml"
    file.write_text("[training]\nmax_steps = 77\n")
    assert job("--config", str(file), "--minutes", "2").training.minutes == 2  # and over the file
    assert job("--config", str(file)).training.max_steps == 77


def test_minutes_begin_with_the_parts_of_the_usual_recipe():
    decided = job("--minutes", "3")
    assert decided.model == RECIPES["quick"].model
    assert replace(decided.training, minutes=None) == RECIPES["quick"].training
    assert decided.base is None
    assert not decided.notes  # nothing about this machine's usual size
    named = job("--minutes", "3", "--recipe", "lab")
    assert (named.model.activation, named.training.learning_rate) == ("gelu", 1e-3)
    assert job("--minutes", "3", "--preset", "baby-gpt").model.d_model == 384


def test_a_recipe_with_minutes_of_its_own_keeps_its_sizes(desk, clock, monkeypatch, capsys):
    quick = RECIPES["quick"]
    model = replace(quick.model, d_model=32, n_layers=1, n_heads=1, max_seq_len=16)
    own = replace(quick, name="own", model=model, training=replace(quick.training, minutes=0.2, batch_size=4))
    monkeypatch.setitem(RECIPES, "own", own)
    assert train("--recipe", "own", "--data", "my.txt", law=False) == 0
    assert config()["plan"] is None
    assert config()["model"]["d_model"] == 32
    assert "chosen" not in capsys.readouterr().out
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["trained_seconds"] == pytest.approx(12, abs=1.2)


def test_a_recipe_by_the_clock_has_sizes_of_its_own_for_other_minutes_too(desk, clock, monkeypatch):
    quick = RECIPES["quick"]
    model = replace(quick.model, d_model=32, n_layers=1, n_heads=1, max_seq_len=16)
    longer = (Longer(minutes=0.15, d_model=48, n_layers=2, n_heads=2, batch_size=3),)
    own = replace(quick, name="own", model=model, training=replace(quick.training, minutes=0.1, batch_size=4), longer=longer)
    monkeypatch.setitem(RECIPES, "own", own)
    assert train("--recipe", "own", "--data", "my.txt", "--minutes", "0.2", law=False) == 0
    found = config()
    assert found["plan"] is None and (found["model"]["d_model"], found["model"]["n_layers"], found["training"]["batch_size"]) == (48, 2, 3)
    assert job("--recipe", "own", "--minutes", "0.14").model.d_model == 32
    assert job("--recipe", "own", "--minutes", "0.2", "--d-model", "64").model.d_model == 64
    assert not minutes.chooses(job("--recipe", "own", "--minutes", "0.2"))
    assert minutes.chooses(job("--recipe", "own", "--minutes", "0.2", "--law", "law.json"))
    assert not minutes.chooses(job("--recipe", "own", "--law", "law.json"))
    assert minutes.chooses(job("--recipe", "lab", "--minutes", "0.2")) and not minutes.chooses(job("--recipe", "lab"))


class Stopwatch:
    """In place of the timer: an imaginary machine that makes 10¹¹ operations a second, and what it was asked to time."""

    asked = ()

    def __init__(self, used, training, material, seconds):
        self.speed = minutes.Speed()
        Stopwatch.asked = []
        Stopwatch.slice = seconds

    def time(self, candidate):
        Stopwatch.asked.append(candidate)
        self.speed.add(candidate, candidate.flop / 1e11 + 0.002)


@pytest.fixture
def planned(desk, monkeypatch):
    """A function from flags to the decided job and its plan; nothing is trained."""
    monkeypatch.setattr(minutes, "_Timer", Stopwatch)
    monkeypatch.delitem(cli.STARTED, "train", raising=False)  # of another test

    def decide(*words):
        made = settings.training_job(["--data", "my.txt", "--law", "law.json", *words])
        material, _ = law_runs.gather(made.data, made.noise, 0)
        return minutes.plan(made, material)

    return decide


def test_what_is_chosen_was_timed_and_is_no_worse_than_its_rivals(planned):
    decided, plan = planned("--minutes", "2")
    assert Stopwatch.asked[0].model.d_model < Stopwatch.asked[1].model.d_model
    assert (decided.model, decided.training.batch_size) in [(known.model, known.batch_size) for known in Stopwatch.asked]
    assert plan.loss <= min(plan.smaller, plan.larger) * 1.01
    assert pytest.approx(0.96) == Stopwatch.slice
    assert decided.model.head_width == 32
    assert decided.training.learning_rate == pytest.approx(3e-3 * 128 / decided.model.d_model, rel=0.01)
    assert plan.epochs == plan.tokens / 18_009 or plan.epochs == pytest.approx(plan.tokens / 18_000, rel=0.02)


def test_longer_runs_get_larger_models(planned):
    sizes = [planned("--minutes", number)[0].model.n_parameters for number in ("0.3", "3", "100")]
    assert sizes[0] < sizes[1] <= sizes[2]


def test_flags_and_presets_fix_sizes(planned):
    decided, _ = planned("--minutes", "2", "--d-model", "96", "--learning-rate", "0.004", "--eval-every", "9")
    assert (decided.model.d_model, decided.training.learning_rate, decided.training.eval_every) == (96, 0.004, 9)
    decided, _ = planned("--minutes", "2", "--preset", "tiny")
    assert (decided.model.d_model, decided.model.n_layers, decided.model.max_seq_len) == (64, 2, 64)
    decided, _ = planned("--minutes", "2", "--recipe", "lab")
    assert (decided.model.activation, decided.model.dropout, decided.model.head_width) == ("gelu", 0.2, 64)


def test_only_contexts_that_short_ones_divide_are_chosen(planned):
    assert planned("--minutes", "0.3")[0].model.max_seq_len < 256
    assert planned("--minutes", "0.3", "--short-context", "256")[0].model.max_seq_len == 256
    with pytest.raises(ConfigError, match="short_context=47: it must divide a context of 64 or 128"):
        planned("--minutes", "2", "--short-context", "47")


def test_compiling_is_a_choice_only_where_it_was_measured(planned, monkeypatch):
    fast = replace(RECIPES["quick"], name="fast", training=replace(RECIPES["quick"].training, compile=True))
    monkeypatch.setitem(RECIPES, "fast", fast)
    assert planned("--minutes", "1", "--recipe", "fast")[0].training.compile
    content = read("law.json")
    Path("law.json").write_text(json.dumps({**content, "compiling": {"quick": {"gain": 1.5, "seconds": 40}}}))
    assert not planned("--minutes", "1", "--recipe", "fast")[0].training.compile
    assert planned("--minutes", "10", "--recipe", "fast")[0].training.compile
    assert planned("--minutes", "1", "--recipe", "fast", "--compile")[0].training.compile
    assert not planned("--minutes", "10")[0].training.compile


def test_a_text_as_hard_as_the_laws_own_is_not_scaled(planned, desk):
    _, plan = planned("--minutes", "2")
    assert not plan.own_text
    content = read("law.json")
    made = settings.training_job(["--data", "my.txt", "--minutes", "2"])
    material, _ = law_runs.gather(made.data, made.noise, 0)
    yardstick = minutes.ngram_loss(material.train_ids, material.val_ids, material.tokenizer.vocab_size)
    content["laws"]["quick"]["yardstick"] = yardstick * 1.01
    Path("law.json").write_text(json.dumps(content))
    _, own = planned("--minutes", "2")
    assert own.own_text
    assert own.high / own.loss < plan.high / plan.loss
    assert own.loss == pytest.approx(plan.loss / yardstick, rel=0.05)


def test_sizes_that_do_not_fit_the_memory_are_not_chosen(planned, monkeypatch):
    largest = planned("--minutes", "500")[0].model.n_parameters
    monkeypatch.setattr(minutes.hardware, "training_memory_gb", lambda model, batch: 1.0 if model.n_parameters < largest / 4 else 1e6)
    assert planned("--minutes", "500")[0].model.n_parameters < largest / 4


def test_timing_takes_the_median_of_real_steps(desk, clock):
    made = settings.training_job(["--data", "my.txt", "--minutes", "2", *TINY])
    material, _ = law_runs.gather(made.data, made.noise, 0)
    timer = minutes._Timer(minutes.engine("numpy"), made.training, material, seconds=1.0)
    option = minutes.Candidate(replace(made.model, vocab_size=material.tokenizer.vocab_size, n_heads=1), 4)
    timer.time(option)
    assert 2 * TICK <= timer.speed.seconds(option) <= 12 * TICK
    assert timer.speed.knows(option)


def test_the_last_line_compares():
    made = {"loss": 1.5, "low": 1.4, "high": 1.6, "minutes": 3}
    assert minutes.closing_line(made, 1.5, None) == "expected 1.500 (1.400 to 1.600), reached 1.500: as expected"
    assert minutes.closing_line(made, 1.39, None).endswith("better than expected")
    late = minutes.closing_line(made, 1.7, 189.0)
    assert late.endswith("worse than expected; the last step ended 189.0 s after the start, +5.0 % of 3:00")


def test_the_bar_shows_the_time_left(monkeypatch):
    said = []
    display = TrainingDisplay(Screen(), max_steps=10, prompt="")
    monkeypatch.setattr(display.screen, "say", lambda text, style="": said.append(text))
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    display.budget = TimeBudget(200)
    for step in range(1, 101):
        now[0] += 2.0
        display.on_step(step, 1.0, 0.1, 1.0, 1000.0)
    assert len(said) == 20  # every 5 % of the time
    assert said[0] == "step      5  loss 1.0000  lr 1.00e-01  grad 1.00  1,000 tok/s  3:10 left"
    assert said[-1].endswith("0:00 left")


# --- tiny law ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_grid(monkeypatch, desk, small_text):
    """A grid of five runs of a moment each, on a small text in place of Tiny Shakespeare."""
    cells = [Cell(32, 1, 16, 4, 1), Cell(32, 1, 16, 4, 2), Cell(64, 1, 16, 4, 2), Cell(32, 1, 8, 4, 1), Cell(32, 1, 16, 4, 2, part=0.2)]
    monkeypatch.setattr(law_runs, "GRID", tuple(cells))
    monkeypatch.setattr(law_runs, "LEAST_STEPS", 3)
    (desk / "corpora").mkdir()
    (desk / "corpora" / "shakespeare.txt").write_text(small_text, encoding="utf-8")
    monkeypatch.setenv("TINY_CORPORA", str(desk / "corpora"))
    Path("law.json").unlink()
    return cells


def test_measuring_fitting_and_drawing_a_law_of_ones_own(small_grid, clock, capsys):
    measured = ["law", "measure", "--minutes", "0.4"]
    assert main([*measured, "--runs", "2"]) == 0
    assert "(2 of 5)" in capsys.readouterr().out
    assert main(["law", "fit"]) == 2
    assert "2 runs: a law needs 4 or more" in capsys.readouterr().err
    assert main([*measured, "--json"]) == 0  # goes on where it stopped
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert main(measured) == 0
    assert "0 runs made, 5 in law.json" in capsys.readouterr().out
    content = read("law.json")
    first, repeated = content["runs"][0], content["runs"][-1]
    assert repeated["unique"] == pytest.approx(0.2 * first["unique"], rel=0.01)
    assert law_runs.part_of(np.arange(100), 0.4).tolist() == [i for i in range(100) if i % 5 < 2]  # from all over the text
    assert (repeated["part"], first["part"]) == (0.2, 1.0)
    assert first["tokens"] == first["steps"] * 4 * 16
    assert 0 < first["val_loss"] < 4.5
    assert set(first) >= {"date", "hardware", "command", "recipe", "engine", "corpus"}
    assert content["yardsticks"]["shakespeare"] > 0
    assert main(["law", "fit"]) == 0
    out = capsys.readouterr().out
    assert "recipe quick" in out
    assert "5 runs, off by" in out
    law, name = law_for("quick", "quick", "law.json")
    assert (law.runs, name) == (5, "quick")
    assert law.largest == max(run["parameters"] for run in content["runs"])
    assert main(["law", "plot", "--file", "law.json", "--out", "pictures/law"]) == 0
    assert Path("pictures/law.png").stat().st_size > 10_000
    capsys.readouterr()
    assert main(["law", "--file", "law.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 5


def test_runs_that_are_too_short_or_elsewhere_are_not_fitted_to(small_grid, clock, capsys):
    main(["law", "measure", "--minutes", "1", "--gflops", "0.01"])
    content = read("law.json")
    hurried = {**content["runs"][0], "steps": 2, "val_loss": 9.0}
    assert content["runs"][0]["gflops"] == 0.01
    model = size_choice.resized(replace(RECIPES["quick"].model, vocab_size=30), 32, 1, 1, 16)
    operations = size_choice.Candidate(model, 4).flop
    assert content["runs"][0]["steps"] == pytest.approx(content["runs"][0]["seconds"] * 1e7 / operations, abs=3)
    elsewhere = {**content["runs"][0], "corpus": "pitches", "val_loss": 0.7}
    content["yardsticks"]["pitches"] = 0.5
    content["runs"] += [hurried, elsewhere]
    laws = law_runs.fit_all(content)
    assert laws["quick"].runs == 5
    law_runs.save_file(Path("law.json"), content)
    capsys.readouterr()
    assert main(["law", "show", "--file", "law.json"]) == 0
    assert "on pitches: " in capsys.readouterr().out


def test_every_run_of_the_grid_is_told_from_every_other():
    setting = law_runs.setting_of("quick", None, 18, "torch")
    cells = list(setting.cells())
    assert sum(seconds for _, seconds in cells) == pytest.approx(0.85 * 18 * 60, rel=0.01)
    names = ("d_model", "n_layers", "max_seq_len", "batch_size")
    same = {"recipe": "quick", "corpus": "shakespeare", "engine": "torch", "gflops": None}
    runs = [dict(zip(names, cell[:4], strict=True)) | {"part": cell.part, "seconds": seconds} | same for cell, seconds in cells]
    for i, run in enumerate(runs):
        assert [law_runs._is_of(run, *cell, setting) for cell in cells] == [i == j for j in range(len(cells))]


def test_the_packages_law_is_shown(capsys):
    assert main(["law"]) == 0
    out = capsys.readouterr().out
    assert "recipe quick: L = E + A (N / 10⁶)^-a + B (D' / 10⁶)^-r + C / T" in out
    assert set(law_for("quick", "quick")[0].uncertainty()) == set(vars(Constants()))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["sohw"], "there is no action 'sohw'. Did you mean show?"),
        (["show", "--file", "none.json"], "there is no law file none.json"),
        (["measure", "--minutes", "0"], "--minutes 0: it must be positive"),
        (["measure", "--recipe", "nonsense"], "it must be one of"),
    ],
)
def test_what_tiny_law_refuses(desk, capsys, words, complaint):
    assert main(["law", *words]) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1
