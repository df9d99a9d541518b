"""The command line: settings from many places, what is shown, and every command on a real, very small run."""

import contextlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given as for_all
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tiny_transformer.cli import main as cli
from tiny_transformer.cli import plots, report, screen, settings
from tiny_transformer.cli.main import COMMANDS, main
from tiny_transformer.config import PRESETS, ConfigError, DataConfig, ModelConfig, TrainConfig
from tiny_transformer.recipes import RECIPES

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


# --- the dispatcher ---------------------------------------------------------------------------------------------------


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out and summary in out for name, (_, summary) in COMMANDS.items())


def test_no_arguments_and_help_are_the_same(capsys):
    main([])
    first = capsys.readouterr().out
    main(["help"])
    assert capsys.readouterr().out == first


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from tiny_transformer.cli.main import main; main(['--help']); main(['nonsense']); "
        "sys.exit(bool({'torch', 'numpy', 'tyro', 'rich', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_version(capsys):
    from tiny_transformer import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tiny {__version__}\n"


def test_an_unknown_command_suggests_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "tiny: there is no command 'trian'. Did you mean train?\n"
    assert main(["xyzzy"]) == 2
    err = capsys.readouterr().err
    assert all(name in err for name in COMMANDS)


class FakeCommand:
    """A command module whose main raises or returns what it was made with."""

    def __init__(self, outcome):
        self.outcome = outcome

    def main(self, argv):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def run_fake(monkeypatch, outcome):
    monkeypatch.setattr(cli.importlib, "import_module", lambda _: FakeCommand(outcome))
    return main(["train"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("got 3: must be 4. Try 4"), "got 3: must be 4. Try 4"),
        (ConfigError("two\nlines"), "two lines"),
        (OSError(28, "No space left on device", "run/last.pt"), "the disk is full: run/last.pt. Free some space"),
        (PermissionError(13, "Permission denied", "/etc/x"), "permission denied: /etc/x. "),
        (FileNotFoundError(2, "No such file", "x"), "no such file or directory: x. "),
        (OSError("the host is silent"), "the host is silent"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "the Python package 'torch' is missing. Try: pip install -e ."),
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "out of memory. Try a smaller --batch-size"),
    ],
)
def test_what_a_person_can_mend_is_one_line(monkeypatch, capsys, error, line):
    assert run_fake(monkeypatch, error) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"tiny train: {line}") and err.count("\n") == 1


def test_a_full_disk_behind_another_error_is_still_named(monkeypatch, capsys):
    error = RuntimeError("writer failed")
    error.__cause__ = OSError(28, "No space left on device")
    assert run_fake(monkeypatch, error) == 2
    assert "the disk is full" in capsys.readouterr().err


@pytest.mark.parametrize("bug", [RuntimeError("shapes differ"), KeyError("x"), ModuleNotFoundError("x", name="tiny_transformer.x")])
def test_our_own_bugs_keep_their_traceback(monkeypatch, bug):
    with pytest.raises(type(bug)):
        run_fake(monkeypatch, bug)


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("TINY_DEBUG", "1")
    with pytest.raises(ValueError, match="x"):
        run_fake(monkeypatch, ValueError("x"))


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(0, 0), (143, 143), (KeyboardInterrupt(), 130), (SystemExit(0), 0), (SystemExit(143), 143), (SystemExit("x"), 1)],
)
def test_exit_codes(monkeypatch, outcome, code):
    assert run_fake(monkeypatch, outcome) == code


def test_a_closed_pipe_is_quiet(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from tiny_transformer.cli.main import run, COMMANDS\n"
         "import tiny_transformer.cli.recipes as r\n"
         "def f(argv):\n    import os, sys\n    print('x'); sys.stdout.flush()\n    raise BrokenPipeError\n"
         "r.main = f\nimport sys; sys.exit(run('recipes', []))"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, "")


# --- settings ---------------------------------------------------------------------------------------------------------


def job(*argv):
    return settings.training_job(list(argv))


def test_precedence_defaults_recipe_file_flags(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text('max_steps = 7\nseed = 5\nprompt = "KING"\n[model]\nn_layers = 3\ntie-weights = false\n[training]\nbatch_size = 9\n')
    made = job("--recipe", "lab", "--config", str(file), "--seed", "6", "--n-layers=2")
    lab = RECIPES["lab"]
    assert made.training == TrainConfig(**{**vars(lab.training), "max_steps": 7, "batch_size": 9, "seed": 6})
    assert (made.model.n_layers, made.model.tie_weights, made.model.dropout) == (2, False, lab.model.dropout)
    assert (made.prompt, made.out) == ("KING", lab.out)


def test_a_recipe_may_stand_in_the_file(tmp_path):
    (tmp_path / "s.toml").write_text('recipe = "laptop"\nmax_steps = 3\n')
    made = job("--config", str(tmp_path / "s.toml"))
    assert made.base is RECIPES["laptop"] and made.training.max_steps == 3


@pytest.mark.parametrize("spelling", [("--d-model", "96"), ("--d_model", "96"), ("--d-model=96",), ("--d_model=96",)])
def test_spellings_of_a_flag(spelling):
    assert job("--recipe", "lab", *spelling).model.d_model == 96


def test_the_last_one_counts():
    assert job("--recipe", "lab", "--max-steps", "3", "--max-steps", "4").training.max_steps == 4


def test_booleans_and_none():
    made = job("--recipe", "lab", "--no-tie-weights", "--compile", "--patience", "3", "--patience", "None")
    assert (made.model.tie_weights, made.training.compile, made.training.patience) == (False, True, None)


def test_a_preset_replaces_the_architecture_only():
    made = job("--recipe", "laptop", "--preset", "tiny")
    assert made.model == PRESETS["tiny"] and made.training == RECIPES["laptop"].training


def test_a_named_text_replaces_the_recipes():
    made = job("--recipe", "lab", "--data", "my.txt")
    assert (made.data.corpus, made.data.data) == (None, "my.txt")
    assert job("--recipe", "lab", "--corpus", "pitches").data.corpus == "pitches"
    with pytest.raises(ConfigError, match="only one text"):
        job("--recipe", "lab", "--data", "my.txt", "--corpus", "pitches")


def test_a_text_named_by_a_flag_replaces_the_files(tmp_path, monkeypatch):
    (tmp_path / "s.toml").write_text('data = "file.txt"\n')
    made = job("--recipe", "lab", "--config", str(tmp_path / "s.toml"), "--corpus", "pitches")
    assert (made.data.corpus, made.data.data) == ("pitches", None)
    assert job("--recipe", "lab", "--config", str(tmp_path / "s.toml")).data.data == "file.txt"
    monkeypatch.setitem(RECIPES, "own", replace(RECIPES["lab"], data=DataConfig(data="own.txt")))
    assert job("--recipe", "own", "--corpus", "pitches").data == DataConfig(corpus="pitches")


def test_where_a_run_goes():
    assert job("--preset", "tiny", "--corpus", "pitches").out == "checkpoints/pitches"
    assert job("--preset", "tiny", "--data", "texts/my.txt").out == "checkpoints/my"
    assert job("--preset", "tiny", "--data", "-").out == "checkpoints/stdin"
    assert job("--recipe", "demo").out == "checkpoints/demo"
    assert job("--recipe", "demo", "--out", "x").out == "x"


def test_without_a_size_this_machine_decides(monkeypatch):
    from tiny_transformer import hardware

    advice = hardware.Advice(ModelConfig(d_model=48, n_heads=3), TrainConfig(batch_size=5), "it is a toaster")
    monkeypatch.setattr(hardware, "recommend", lambda _: advice)
    made = job("--corpus", "pitches")
    assert (made.model.d_model, made.training.batch_size) == (48, 5)
    assert made.notes == ("no size given: it is a toaster",)
    monkeypatch.setattr(hardware, "recommend", lambda _: pytest.fail("a size was given"))
    assert job("--corpus", "pitches", "--d-model", "32").model.d_model == 32
    assert job("--corpus", "pitches", "--preset", "tiny").notes == ()
    assert job("--recipe", "demo").notes == ()


@pytest.mark.parametrize(
    ("start", "d_model", "heads"),
    [("shakespeare", 384, 6), ("lab", 128, 2), ("lab", 256, 4), ("lab", 100, 2), ("lab", 64, 1), ("lab", 400, 8), ("laptop", 130, 5)],
)
def test_heads_follow_a_changed_width(start, d_model, heads):
    made = job("--recipe", start, "--d-model", str(d_model))
    assert made.model.n_heads == heads
    fitted = d_model % RECIPES[start].model.n_heads != 0
    assert len(made.notes) == fitted and (not fitted or f"n_heads={heads} instead of" in made.notes[0])


def test_asked_for_heads_are_never_changed():
    with pytest.raises(ConfigError, match="d_model=384 is not divisible by n_heads=5.*Try n_heads=6"):
        job("--recipe", "lab", "--d-model", "384", "--n-heads", "5")


@for_all(d_model=st.integers(1, 600), start=st.sampled_from(sorted(RECIPES)))
@hypothesis_settings(max_examples=200, deadline=None)
def test_fitted_heads_always_fit(d_model, start):
    before = RECIPES[start].model
    changed = settings.ModelFlags(**{**vars(before), "d_model": d_model})
    heads, notes = settings.fit_heads(changed, before, {"d_model"})
    assert d_model % heads == 0
    assert bool(notes) == (heads != before.n_heads)
    if before.position == "rotary" and d_model % 2 == 0:
        assert heads == before.n_heads or d_model // heads % 2 == 0


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--d-modle", "3"], "there is no flag --d-modle. Did you mean --d-model?"),
        (["--vocab-size", "3"], "vocab_size=3 with tokenizer=char: the text decides how many characters there are"),
        (["--xyzzy"], "there is no flag --xyzzy. See --help"),
        (["extra"], "'extra' is one word too many"),
        (["--max-steps", "many"], "--max-steps 'many': it must be a whole number. Try --max-steps 100"),
        (["--learning-rate", "fast"], "--learning-rate 'fast': it must be a number"),
        (["--schedule", "square"], "--schedule 'square': it must be one of 'cosine', 'wsd', 'constant'. Pick one of these"),
        (["--max-steps"], "--max-steps stands without a value: it needs one"),
        (["--dropout", "1.5"], "dropout=1.5: it must be at least 0 and below 1. Try dropout=0.1"),
        (["--preset", "huge"], "preset='huge': it must be one of tiny, cpu"),
        (["--recipe", "lob"], "recipe='lob': it must be one of demo"),
    ],
)
def test_bad_flags_say_what_is_wrong(argv, line):
    with pytest.raises(ConfigError) as caught:
        settings.training_job(["--recipe", "lab", *argv])
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("max_step = 5", "there is no setting 'max_step'. Did you mean max_steps?"),
        ("[modle]\nd_model = 5", "there is no table 'modle'. Did you mean model?"),
        ("[model]\nmax_steps = 5", "there is no setting 'max_steps'"),
        ("max_steps = = 5", "is not TOML"),
        ("[model]\nvocab_size = 5", "there is no setting 'vocab_size'"),
        ("max_steps = 1979-05-27", "it must be a number, a text, true, false or a list"),
    ],
)
def test_bad_files_are_named(tmp_path, content, line):
    file = tmp_path / "s.toml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        job("--recipe", "lab", "--config", str(file))
    assert str(caught.value).startswith(str(file)) and line in str(caught.value)


def test_one_file_for_training_and_writing(tmp_path):
    from tiny_transformer.cli.generate import read_settings

    file = tmp_path / "s.toml"
    file.write_text('[training]\nseed = 3\n[sampling]\nseed = 4\ntop_k = "none"\nstop = ["\\n\\n", "END"]\n')
    assert job("--recipe", "lab", "--config", str(file)).training.seed == 3
    _, sampling = read_settings(["run", "--config", str(file), "--temperature", "0.5"])
    assert (sampling.seed, sampling.top_k, sampling.stop, sampling.temperature) == (4, None, ("\n\n", "END"), 0.5)


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        job("--help")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(flag in out for flag in settings.flag_names(settings.TrainSettings))
    assert out.count("--vocab-size") == 1 and "Optimizer steps in all." in out


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"verify"}))
def test_every_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert f"usage: tiny {command}" in out and not err


# --- what is shown ----------------------------------------------------------------------------------------------------


@for_all(st.text())
def test_nothing_a_model_writes_reaches_the_terminal_as_a_command(text):
    shown = screen.visible(text)
    assert not CONTROL.search(shown.replace("\n", "").replace("\t", ""))
    assert len(shown) == len(text)
    assert all(a == b for a, b in zip(text, shown, strict=True) if a.isprintable() or a in "\n\t")


@pytest.mark.parametrize("text", ["👩\u200d👧", "10\u00a0€ «\u202fah\u202f»", "日本\u3000語", "می\u200cخواهم"])
def test_spaces_and_joiners_are_shown_as_they_are(text):
    assert screen.visible(text) == text
    assert screen.visible("\u202eb\u2028") == "\ufffdb\ufffd", "what turns the line around or breaks it is not"


def test_a_pipe_has_no_edge(capsys):
    voice, log = screen.Screen(), []
    voice.logs.append(log.append)
    made = screen.table(*(f"column {i}" for i in range(12)))
    made.add_row(*(f"a long value {i}" for i in range(12)))
    voice.say(made)
    voice.warn("long " * 60)
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 6 and all(f"a long value {i}" in out[3] for i in range(12)), "five lines of a table and one of a warning"
    assert len(log[0].splitlines()) == 5


def test_plain_output_has_no_control_characters_and_is_not_markup(capsys):
    voice = screen.Screen()
    voice.heading("head")
    voice.say("[bold]not markup[/bold]", style="bold red")
    voice.warn("look")
    voice.sample("step 3", "a\x1b[31mb\nc", prompt="a")
    made = screen.table("a", "b")
    made.add_row("1", "2")
    voice.say(made)
    out = capsys.readouterr().out
    assert not CONTROL.search(out.replace("\n", ""))
    assert "[bold]not markup[/bold]" in out and "a␛[31mb" in out and "warning: look" in out


def test_the_log_gets_the_same_words(capsys):
    voice, log = screen.Screen(), []
    voice.logs.append(log.append)
    voice.say("one")
    voice.sample("title", "\n".join("abcdefghij"), lines=2)
    voice.warn("two")
    assert log[0] == "one" and log[-1] == "warning: two"
    assert "j" in log[1] and "j" not in capsys.readouterr().out, "the log has the whole sample, the screen its first lines"


def test_json_goes_alone_to_standard_output(capsys):
    screen.Screen(to_stderr=True).say("noise")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "noise\n")


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (42.4, "0:42"), (185, "3:05"), (7384, "2:03:04")])
def test_durations(seconds, said):
    from tiny_transformer.cli.display import duration

    assert duration(seconds) == said


# --- the table and the pictures ---------------------------------------------------------------------------------------

MARKS = report.Landmarks(vocab_size=65, guess=math.log(65), one=3.31, pair=2.45, floor=None, bytes_per_token=1.0)


def test_the_table_is_ordered_and_converts_to_bits_per_byte():
    lines = [line for line in screen.plain_text(report.loss_table(1.3, 1.5, MARKS)).split("\n") if "." in line]
    losses = [float(re.findall(r"\d\.\d+", line)[0]) for line in lines]
    assert losses == sorted(losses, reverse=True) == pytest.approx([4.174, 3.31, 2.45, 1.5, 1.3])
    assert "2.164" in lines[3] and "this model, all validation text" in lines[3]
    assert MARKS.bits_per_byte(math.log(2)) == pytest.approx(1)


def test_bits_per_byte_counts_bytes_not_characters():
    wide = report.Landmarks(vocab_size=9, guess=1, one=1, pair=1, floor=None, bytes_per_token=2.0)
    assert wide.bits_per_byte(math.log(2)) == pytest.approx(0.5)


def test_a_known_source_has_a_floor():
    marks = report.Landmarks(**{**MARKS.to_dict(), "floor": 0.9})
    assert "the source's exact entropy" in screen.plain_text(report.loss_table(1.3, 1.5, marks))
    assert "the source's exact entropy" not in screen.plain_text(report.loss_table(1.3, 1.5, MARKS))


METRICS = [
    {"step": 0, "train_loss": 4.2, "val_loss": 4.2},
    *({"step": s, "loss": 1.5 + 2.7 * 0.97**s} for s in range(10, 201, 10)),
    {"step": 100, "train_loss": 1.7, "val_loss": 1.8},
    {"step": 200, "val_loss": 1.6, "loss": 1.51},
    {"step": 200, "final_val_loss": 1.61},
]


def test_curves_from_metrics():
    curve = plots.from_metrics("x", METRICS, {"ln V": 4.17})
    assert curve.val == [(0, 4.2), (100, 1.8), (200, 1.6)]
    assert curve.train[0] == (0, 4.2) and curve.train[-1] == (200, 1.51) and len(curve.train) == 21


def test_a_loss_between_two_logged_ones():
    curve = plots.Curve("x", train=[(0, 4.0), (10, 3.0), (20, 2.5)])
    assert [plots.loss_at(curve, step) for step in (0, 5, 10, 14, 30)] == pytest.approx([4, 3.5, 3, 2.8, 2.5])
    assert plots.loss_at(plots.Curve("x", val=[(0, 4.0)]), 3) == 4 and plots.loss_at(plots.Curve("x"), 3) is None


@for_all(st.lists(st.floats(-5, 5), max_size=80))
def test_smoothing_keeps_length_range_and_constants(losses):
    smoothed = plots.smooth(losses)
    assert len(smoothed) == len(losses)
    assert all(min(losses) - 1e-9 <= value <= max(losses) + 1e-9 for value in smoothed)
    assert plots.smooth([2.5] * len(losses)) == pytest.approx([2.5] * len(losses))
    line = [0.1 * i for i in range(300)]
    assert plots.smooth(line) == pytest.approx(line), "a straight line stays as it is, its ends too"


def test_landmarks_in_the_picture():
    from tiny_transformer.cli.pictures import reference_lines

    lines = reference_lines({"landmarks": MARKS.to_dict()})
    assert lines["blind guess, ln 65"] == MARKS.guess and list(lines.values()) == [MARKS.guess, 3.31, 2.45]
    assert reference_lines({"landmarks": {**MARKS.to_dict(), "floor": 0.9}})["the source itself"] == 0.9
    assert reference_lines({}) == {}


def test_pictures_are_drawn_as_png_and_svg(tmp_path):
    curve = plots.from_metrics("x $y$", METRICS, {"ln V": 4.17})
    samples = [(s, f"ROMEO:\n$ \x0c 🙂 {s} " + "word " * 40) for s in (0, 1, 3, 10, 30, 100, 200)]
    drawn = {
        "loss": plots.loss_figure(curve),
        "compared": plots.comparison_figure([curve, plots.Curve("empty")]),
        "timelapse": plots.timelapse_figure(curve, samples, "caption"),
    }
    for name, figure in drawn.items():
        png, svg = plots.save(figure, tmp_path / name)
        assert png.read_bytes().startswith(b"\x89PNG") and "<svg" in svg.read_text()


def test_the_curve_and_its_landmarks_are_in_the_picture():
    curve = plots.from_metrics("a run", METRICS, {"ln V": 4.17, "pair": 2.45})
    axes = plots.loss_figure(curve).axes[0]
    drawn = [list(map(tuple, line.get_xydata().tolist())) for line in axes.lines]
    assert list(curve.val) in drawn and [(200.0, 1.6)] in drawn, "validation curve, and its best point"
    assert {line[0][1] for line in drawn if len(line) == 2 and line[0][1] == line[1][1]} >= {4.17, 2.45}
    assert {text.get_text() for text in axes.texts} >= {"1.600", "ln V  4.17", "pair  2.45"}


def test_the_poster_keeps_the_first_and_the_latest():
    samples = [(s, "") for s in (0, 1, 3, 10, 30, 100, 300)]
    assert [s for s, _ in plots.pick(samples, 4)] == [0, 30, 100, 300]
    assert plots.pick(samples[:3], 4) == samples[:3]


@for_all(st.text(max_size=600))
def test_cards_never_overflow(text):
    lines = plots.card_text(text).split("\n")
    assert len(lines) <= plots.CARD_LINES and all(len(line) <= plots.CARD_WIDTH for line in lines)


# --- a real run, very small -------------------------------------------------------------------------------------------

TEXT = "ROMEO:\nthe quick brown fox jumps over the lazy dog.\n\nJULIET:\nwhat say you to this, my lord?\n\n" * 30
SMALL = ["--d-model", "16", "--n-layers", "1", "--n-heads", "2", "--max-seq-len", "16", "--batch-size", "4", "--threads", "1"]
SHORT = ["--max-steps", "12", "--warmup-steps", "2", "--eval-every", "6", "--eval-tokens", "64", "--save-every", "4", "--log-every", "2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run called `run`, the text it read, and what was printed."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["train", "--data", str(folder / "text.txt"), "--out", str(folder / "run"), *SMALL, *SHORT]) == 0
    return folder, printed.getvalue()


def test_a_run_leaves_everything_it_promises(trained):
    folder, _ = trained
    names = {str(path.relative_to(folder / "run")) for path in (folder / "run").rglob("*") if path.is_file()}
    assert {"config.json", "best.pt", "last.pt", "metrics.jsonl", "log.txt", "loss.png", "loss.svg"} <= names
    assert {name for name in names if name.startswith("samples/")} == {f"samples/{step:06}.txt" for step in (0, 1, 3, 10, 12)}


def test_the_screen_shows_the_journey(trained):
    _, out = trained
    assert not CONTROL.search(out.replace("\n", ""))
    for words in ("characters to learn from", "M parameters", "── step 0 · loss", "── step 10 · loss", "this model, all validation text"):
        assert words in out, words
    for words in ("guessing blindly: ln", "knowing the character before", "bits/byte", "12 steps in 0:", "characters/s", "saved in"):
        assert words in out, words
    steps = [int(found) for found in re.findall(r"^── step (\d+)", out, re.MULTILINE)]
    assert steps == [0, 1, 3, 10, 12]


def test_what_was_printed_is_in_the_log(trained):
    folder, out = trained
    log = (folder / "run" / "log.txt").read_text()
    assert [line for line in out.splitlines() if line.removesuffix(" …").strip() not in log] == []


def test_the_samples_share_prompt_and_length(trained):
    folder, _ = trained
    texts = [path.read_text() for path in sorted((folder / "run" / "samples").iterdir())]
    assert len({text[:1] for text in texts}) == 1 and len(set(texts)) > 1


def test_the_record_is_complete(trained):
    folder, _ = trained
    record = json.loads((folder / "run" / "config.json").read_text())
    assert record["model"]["vocab_size"] == len(set(TEXT)) and record["training"]["max_steps"] == 12
    assert record["data"]["data"] == str(folder / "text.txt") and Path(record["data"]["data"]).is_absolute()
    assert record["landmarks"]["guess"] == pytest.approx(math.log(len(set(TEXT))))
    counts = Counter(TEXT)
    entropy = -sum(n / len(TEXT) * math.log(n / len(TEXT)) for n in counts.values())
    assert record["landmarks"]["one"] == pytest.approx(entropy, abs=1e-6)
    assert record["parameters"] == ModelConfig(**record["model"]).n_parameters


def test_training_is_repeatable_and_json_is_alone_on_stdout(trained, tmp_path, capsys):
    folder, _ = trained
    argv = ["train", "--data", str(folder / "text.txt"), *SMALL, *SHORT, "--json", "--out"]
    results = []
    for name in ("a", "b"):
        assert main([*argv, str(tmp_path / name)]) == 0
        out, err = capsys.readouterr()
        results.append(json.loads(out))
        assert "this model, all validation text" in err
    same = ("val_loss", "best_val_loss", "best_step", "train_loss", "steps", "stopped", "bits_per_byte", "landmarks")
    assert all(results[0][key] == results[1][key] for key in same)
    assert results[0]["stopped"] == "finished" and results[0]["run"] == str(tmp_path / "a")
    assert (tmp_path / "a/samples/000012.txt").read_text() == (folder / "run/samples/000012.txt").read_text()


def test_a_stopped_run_resumes_bit_for_bit(trained, tmp_path, capsys):
    from tiny_transformer.utils import checkpoint

    folder, _ = trained
    argv = ["train", "--data", str(folder / "text.txt"), *SMALL, *SHORT, "--schedule", "constant"]
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    assert main([*argv, "--max-steps", "6", "--out", str(tmp_path / "parts")]) == 0
    assert main(["train", "--resume", str(tmp_path / "parts"), "--max-steps", "12"]) == 0
    whole, parts = (checkpoint.load(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert (whole.step, parts.step) == (12, 12)
    assert all((whole.weights[name] == parts.weights[name]).all() for name in whole.weights)
    assert "after 6 of 12 steps" in capsys.readouterr().out


def test_resuming_a_finished_run_says_how_to_go_on(trained, tmp_path, capsys):
    folder, _ = trained
    shutil.copytree(folder / "run", tmp_path / "run")
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert f"this run is complete. To train on: tiny train --resume {tmp_path / 'run'} --max-steps 24" in capsys.readouterr().out


def test_a_run_in_the_way_is_moved_aside(trained, tmp_path, capsys):
    folder, _ = trained
    shutil.copytree(folder / "run", tmp_path / "run")
    assert main(["train", "--data", str(folder / "text.txt"), *SMALL, *SHORT, "--max-steps", "0", "--out", str(tmp_path / "run")]) == 0
    moved = [path for path in tmp_path.iterdir() if path.name.startswith("run-")]
    assert len(moved) == 1 and (moved[0] / "best.pt").read_bytes() == (folder / "run/best.pt").read_bytes()
    assert f"is now in {moved[0]}" in capsys.readouterr().out


def test_a_signal_saves_and_gives_the_shells_exit_code(trained, tmp_path, capsys, monkeypatch):
    import signal

    from tiny_transformer.cli.display import TrainingDisplay

    def interrupt(self, step, *args):
        if step == 5:
            signal.raise_signal(signal.SIGTERM)

    folder, _ = trained
    monkeypatch.setattr(TrainingDisplay, "on_step", interrupt)
    assert main(["train", "--data", str(folder / "text.txt"), *SMALL, *SHORT, "--out", str(tmp_path / "run")]) == 143
    assert f"tiny train --resume {tmp_path / 'run'}" in capsys.readouterr().out
    from tiny_transformer.utils import checkpoint

    assert checkpoint.load(tmp_path / "run/last.pt").step == 5


def test_validation_text_in_the_training_text_is_warned_about(trained):
    _, out = trained
    assert "warning: " in out, "the text repeats itself, so its validation part occurs in its training part"


def small_recipe(name, **changes):
    """A recipe with its places and names, and the smallest sizes."""
    made = RECIPES[name]
    model = ModelConfig(d_model=16, n_layers=1, n_heads=2, max_seq_len=16)
    training = TrainConfig(max_steps=3, batch_size=2, eval_every=3, eval_tokens=64, save_every=3, warmup_steps=1, threads=1)
    return replace(made, model=model, training=training, **changes)


def test_the_demo_without_a_network(tmp_path, monkeypatch, capsys):
    """Tiny Shakespeare can't be had: the built-in text is read, and it says so; three moods; the file that the guide names."""
    from tiny_transformer import corpora
    from tiny_transformer.corpora import library

    real = library.load

    def offline(name, **more):
        if name == "shakespeare":
            raise OSError("shakespeare cannot be had: no network here. Try another")
        return real(name, **{**more, "size": 4000})

    monkeypatch.setattr(corpora, "load", offline, raising=False)
    monkeypatch.setitem(RECIPES, "demo", small_recipe("demo"))
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "shakespeare cannot be had: no network here. Reading the built-in text pitches instead" in out
    assert "the source's exact entropy: nothing can be below" in out
    assert all(f"── {mood}: temperature" in out for mood in ("focused", "balanced", "creative"))
    assert "tiny chat checkpoints/demo" in out
    from tiny_transformer.run import load

    assert load("checkpoints/demo/demo_model.pt")[0].config.d_model == 16
    record = json.loads(Path("checkpoints/demo/config.json").read_text())
    assert record["data"]["corpus"] == "pitches", "the record tells the truth, so a resumed run reads the same text"
    assert main(["generate", "checkpoints/demo/demo_model.pt", "--max-tokens", "3"]) == 0


def test_the_shakespeare_recipe_also_writes_the_guides_log(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(RECIPES, "shakespeare", small_recipe("shakespeare"))
    (tmp_path / "text.txt").write_text(TEXT)
    for _ in range(2):
        assert main(["train", "--recipe", "shakespeare", "--data", "text.txt"]) == 0
    log = Path("experiments/shakespeare/logs.txt").read_text()
    assert log.count("this model, all validation text") == 2, "a second run is appended"
    assert (tmp_path / "checkpoints/shakespeare/log.txt").read_text() in log
    assert "step      3/3" in log


def test_a_run_of_a_recipe_resumes_through_the_same_door(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(RECIPES, "quick", small_recipe("quick"))
    Path("text.txt").write_text(TEXT)
    assert main(["train", "--recipe", "quick", "--data", "text.txt", "--out", "run"]) == 0
    assert main(["train", "--recipe", "quick", "--resume", "run", "--max-steps", "4"]) == 0
    assert main(["train", "--recipe", "lab", "--resume", "run"]) == 2
    assert "--resume with --recipe lab: this run began with quick. Leave --recipe out" in capsys.readouterr().err


def test_the_second_name_is_the_best_checkpoint_not_the_last(tmp_path, monkeypatch, capsys):
    """A learning rate that ruins the model: the best weights are the first ones."""
    from tiny_transformer.utils import checkpoint

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(RECIPES, "quick", small_recipe("quick"))
    (tmp_path / "text.txt").write_text(TEXT)
    assert main(["train", "--recipe", "quick", "--data", "text.txt", "--learning-rate", "9", "--warmup-steps", "0"]) == 0
    assert checkpoint.load("checkpoints/demo/last.pt").step == 3
    assert checkpoint.load("checkpoints/demo/demo_model.pt").step == 0
    assert "this model, all validation text (best, step 0)" in capsys.readouterr().out


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(trained):
    return str(trained[0] / "run")


def test_the_same_seed_gives_the_same_text(run, capsys):
    texts = []
    for seed in ("1", "1", "2"):
        assert main(["generate", run, "--prompt", "ROMEO:", "--seed", seed, "--max-tokens", "30"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("ROMEO:") and len(texts[0]) == len("ROMEO:") + 30 + 1


def test_streaming_prints_the_same(run, capsys):
    argv = ["generate", "--checkpoint", run, "--prompt", "ROMEO:", "--seed", "1", "--max-tokens", "30"]
    main(argv)
    whole = capsys.readouterr().out
    main([*argv, "--stream"])
    assert capsys.readouterr().out == whole


def test_weights_in_eight_bits(run, capsys):
    argv = ["generate", run, "--prompt", "ROMEO:", "--seed", "1", "--max-tokens", "30", "--int8"]
    assert main(argv) == 0
    whole, about = capsys.readouterr()
    assert whole.startswith("ROMEO:") and len(whole) == len("ROMEO:") + 30 + 1
    assert "weights in 8 bits" in about
    main([*argv, "--stream"])
    assert capsys.readouterr().out == whole
    assert main([*argv, "--engine", "numpy"]) == 2
    assert "--int8 with --engine numpy: only PyTorch writes with rounded weights" in capsys.readouterr().err


def test_a_drawn_seed_is_named_and_can_be_used_again(run, capsys):
    main(["generate", run, "--max-tokens", "20"])
    first, about = capsys.readouterr()
    seed = re.search(r"seed (\d+)$", about, re.MULTILINE)[1]
    main(["generate", run, "--max-tokens", "20", "--seed", seed])
    assert capsys.readouterr().out == first


def test_presets_and_flags_combine(run, capsys):
    main(["generate", run, "--preset", "focused", "--top-p", "0.9", "--seed", "3", "--max-tokens", "5"])
    assert "temperature 0.3, top-k 5, top-p 0.9, seed 3" in capsys.readouterr().err


def test_generate_json(run, capsys):
    assert main(["generate", run, "--prompt", "my lord", "--seed", "1", "--max-tokens", "9", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    sample = made["samples"][0]
    assert made["prompt"] == "my lord" and sample["text"].startswith("my lord") and sample["settings"]["max_tokens"] == 9
    assert set(sample["measures"]) == {"distinct_1", "distinct_2", "repeated_8", "copied"} and sample["measures"]["copied"] in TEXT


def test_compare_shows_and_measures_every_strategy(run, capsys):
    assert main(["generate", run, "--compare", "--seed", "1", "--max-tokens", "20"]) == 0
    out = capsys.readouterr().out
    for name in ("greedy", "focused", "balanced", "creative", "as learned", "top-p", "min-p", "beam search"):
        assert f"── {name}: " in out and f"│ {name}" in out
    greedy = out.split("── greedy: ")[1].split("── focused")[0].split("  │ ", 1)[1]
    assert re.search(r"│ greedy +│ +\d+% │ +\d+% │ +\d+% │ +\d+ │", out) and "longest copy" in out and greedy


def test_compare_without_the_training_text_says_so(trained, tmp_path, capsys):
    shutil.copy(trained[0] / "run/best.pt", tmp_path / "alone.pt")
    assert main(["generate", str(tmp_path / "alone.pt"), "--compare", "--seed", "1", "--max-tokens", "5"]) == 0
    assert "the training text can't be had here, so copying from it is not measured" in capsys.readouterr().out


def test_a_gallery_has_twenty_samples_that_can_each_be_made_again(run, tmp_path, capsys):
    file = tmp_path / "samples/gallery.txt"
    assert main(["generate", run, "--prompt", "ROMEO:", "--batch", "--output", str(file), "--seed", "5", "--max-tokens", "12"]) == 0
    text = file.read_text()
    heads = re.findall(r"^=== (\d+) of 20 · seed (\d+) · prompt 'ROMEO:' ===$", text, re.MULTILINE)
    assert heads == [(str(i + 1), str(5 + i)) for i in range(20)]
    assert text.startswith("# 20 samples from ") and "# temperature 0.8, top-k 40, 12 tokens each, seeds 5 to 24" in text
    capsys.readouterr()
    main(["generate", run, "--prompt", "ROMEO:", "--seed", "22", "--max-tokens", "12"])
    alone = capsys.readouterr().out
    assert text.split("· seed 22 · prompt 'ROMEO:' ===\n")[1].split("\n\n===")[0] + "\n" == alone


def test_a_gallery_without_a_prompt_has_several_openings(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    record = json.loads((tmp_path / "run/config.json").read_text())
    record["corpus"]["name"], record["prompt"] = "shakespeare", "ROMEO:"
    (tmp_path / "run/config.json").write_text(json.dumps(record))
    assert main(["generate", str(tmp_path / "run"), "--batch", "--n", "5", "--max-tokens", "3", "--seed", "1"]) == 0
    assert re.findall(r"prompt '(.*)' ===", capsys.readouterr().out)[:2] == ["ROMEO:", "JULIET:"]
    assert main(["generate", str(tmp_path / "run"), "--batch", "--n", "2", "--max-tokens", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["samples"]) == 2


def test_naming_a_number_of_samples_means_batch(run, capsys):
    assert main(["generate", run, "--n", "3", "--max-tokens", "2"]) == 0
    assert capsys.readouterr().out.count("\n=== ") == 3


def test_an_output_that_is_a_link_or_a_pipe_stays_one(run, tmp_path, capsys):
    main(["generate", run, "--seed", "1", "--max-tokens", "5"])
    text = capsys.readouterr().out
    (tmp_path / "link").symlink_to(tmp_path / "file")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for name in ("link", "pipe"):
        assert main(["generate", run, "--seed", "1", "--max-tokens", "5", "--output", str(tmp_path / name)]) == 0
    assert os.read(reader, 1000).decode() == text == (tmp_path / "file").read_text()
    os.close(reader)
    assert pipe.is_fifo() and (tmp_path / "link").is_symlink()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="this system has no /dev/stdout")
def test_an_output_named_dev_stdout_adds_to_what_is_there(tmp_path):
    """Also where standard output is a file: it is not replaced, and what stood in it stays."""
    code = "from tiny_transformer.cli.texts import save_text; save_text('/dev/stdout', 'new')"
    with (tmp_path / "out").open("ab") as out:
        out.write(b"old ")
        out.flush()
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
        out.write(b" more")
    assert (tmp_path / "out").read_text() == "old new more"


def test_a_prompt_that_was_never_read_is_named(run, capsys):
    main(["generate", run, "--prompt", "the fox say", "--max-tokens", "3"])
    assert "note: 'the fox say' does not occur in the training text" in capsys.readouterr().err
    main(["generate", run, "--prompt", "the quick brown fox", "--max-tokens", "3"])
    assert "note:" not in capsys.readouterr().err


# --- chat -------------------------------------------------------------------------------------------------------------


def chat(run, lines, monkeypatch, capsys, *flags):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    capsys.readouterr()
    assert main(["chat", run, "--seed", "1", "--max-tokens", "10", *flags]) == 0
    return capsys.readouterr().out


def test_chat_continues_openings(run, monkeypatch, capsys):
    main(["generate", run, "--seed", "1", "--max-tokens", "10", "--prompt", "ROMEO:"])
    alone = capsys.readouterr().out
    assert alone in chat(run, ["ROMEO:"], monkeypatch, capsys)


def test_chat_commands(run, monkeypatch, capsys, tmp_path):
    file = tmp_path / "chat.txt"
    lines = ["/help", "/temperature 0.5", "/top-k off", "/topp 0.9", "/tokens 4", "/seed 9", "JULIET:", "", f"/save {file}"]
    lines += ["/preset focused", "/reset", "/settings", "/tempreature 3", "/topk many", "/temperature -1", "what ☃", "/quit", "never read"]
    out = chat(run, lines, monkeypatch, capsys)
    assert "(temperature 0.5, top-p 0.9, 4 tokens, next seed 9)" in out
    assert "(temperature 0.3, top-k 5, 4 tokens" in out
    assert "(a new page)\n> (temperature 0.8, top-k 40, 10 tokens, next seed 1)" in out
    assert "there is no command '/tempreature'. Did you mean /temperature?" in out
    assert "('many' is not a whole number" in out and "(temperature=-1.0: it must be 0 (greedy)" in out and "'☃'" in out
    assert "never read" not in out
    assert file.read_text().startswith("JULIET:") and f"(2 texts written to {file})" in out


def test_chat_does_not_repeat_itself(run, monkeypatch, capsys):
    out = chat(run, ["ROMEO:", "ROMEO:", "/seed 1", "ROMEO:"], monkeypatch, capsys)
    first, second, third = (part.split("\n> ")[0].strip() for part in out.split("> ROMEO:")[1:])
    assert first != second and third == first


def test_chat_with_weights_in_eight_bits(run, monkeypatch, capsys):
    assert "weights in 8 bits" in chat(run, ["ROMEO:"], monkeypatch, capsys, "--int8")


def test_an_empty_line_goes_on_with_the_last_text(run, monkeypatch, capsys):
    from tiny_transformer.cli.chat import Chat
    from tiny_transformer.cli.writing import open_writer
    from tiny_transformer.config import SampleConfig

    talk = Chat(open_writer(run), SampleConfig(seed=1, max_tokens=5))
    talk.handle("ROMEO:")
    first = talk.text
    talk.handle("")
    assert talk.text.startswith(first) and len(talk.text) == len(first) + 5
    assert talk.transcript == [first, talk.text[len(first) :]]


# --- plot, runs, data, hardware, recipes ------------------------------------------------------------------------------


def test_plot_draws_one_or_compares_several(trained, tmp_path, capsys, run):
    assert main(["plot", run, "--out", str(tmp_path / "one.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [str(tmp_path / "one.png"), str(tmp_path / "one.svg")]
    assert main(["plot", run, run, "--out", str(tmp_path / "new/two.png")]) == 0
    assert main(["plot", run, "--timelapse"]) == 0
    for path in (tmp_path / "one.png", tmp_path / "new/two.png", Path(run) / "timelapse.png"):
        assert path.read_bytes()[:4] == b"\x89PNG"


def test_plot_of_a_run_that_never_trained(tmp_path, capsys):
    from tiny_transformer.run import Run

    Run.create(tmp_path / "new", {})
    assert main(["plot", str(tmp_path / "new")]) == 2
    assert "there is nothing to draw" in capsys.readouterr().err


def test_runs_lists_and_sorts(trained, tmp_path, capsys, run):
    shutil.copytree(run, tmp_path / "a")
    shutil.copytree(run, tmp_path / "b/c")
    (tmp_path / "b/c/metrics.jsonl").write_text('{"step": 12, "val_loss": 0.5}\n')
    shutil.copytree(run, tmp_path / "damaged")
    (tmp_path / "damaged/metrics.jsonl").write_text("not JSON\nat all\n")
    assert main(["runs", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [Path(row["run"]).name for row in rows] == ["c", "a", "damaged"], "the best first, the unknown last"
    metrics = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    assert rows[1]["val_loss"] == min(line["val_loss"] for line in metrics if "val_loss" in line)
    assert rows[1]["steps"] == 12 and rows[1]["parameters"] and rows[1]["started"]
    (tmp_path / "b/c/metrics.jsonl").write_text('{"step": 15, "val_loss": 0.5}\n')
    assert main(["runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "0.500" in out
    assert re.search(r"│ +15 │", out), "resumed beyond the steps it began with: not 15 of 12"
    (tmp_path / "empty").mkdir()
    assert main(["runs", str(tmp_path / "empty")]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_data_lists_and_shows(trained, capsys):
    assert main(["data", "list", "--json"]) == 0
    names = {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert {"shakespeare", "pitches", "python", "pydoc", "wikitext2"} <= names
    assert main(["data"]) == 0
    assert "pitches" in capsys.readouterr().out
    assert main(["data", "show", str(trained[0] / "text.txt"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["characters"] == len(TEXT) and facts["alphabet"] == "".join(sorted(set(TEXT)))
    assert main(["data", "show", "pitches", "--size", "5000"]) == 0
    assert "5,000 characters" in capsys.readouterr().out


def test_hardware_and_recipes(capsys):
    assert main(["hardware", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["hardware"]["cores"] >= 1 and found["model"]["d_model"] and found["why"]
    assert main(["hardware"]) == 0
    assert found["why"] in capsys.readouterr().out.replace("\n", "")
    assert main(["recipes", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(RECIPES)
    assert main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert all(made.summary in out for made in RECIPES.values())
