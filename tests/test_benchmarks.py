"""The benchmarks' own machinery: what is measured, kept, read back and drawn. No test here times anything."""

import json
import math
import re
import sys
import types
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import __main__ as runner
from benchmarks import catalogue, harness, picture, report, watch
from benchmarks.harness import Result
from benchmarks.history import Point, lines, read
from benchmarks.watch import Watch, cpu_time

ROOT = Path(__file__).resolve().parent.parent
RESULT = Result("training step, small", "tokens/s", 200.0, 100.0, "a peer", 2.0, 1.9, 2.1, aim=1.5, group="training", others=0.01)
RECORD = {"date": "2026-01-02T03:04:05+00:00", "commit": "abc1234", "processor": "a CPU", "cores": 2, "threads": 2, "load": 0.1}


def record(*results, **more):
    return {**RECORD, "others_before": 0.0, **more, "results": [asdict(result) for result in results]}


def history(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


# ---------------------------------------------------------------- the committed page


def test_the_page_is_what_the_history_gives():
    assert report.PAGE.read_text(encoding="utf-8") == report.build()[report.PAGE], "run python -m benchmarks.report"


def test_the_picture_is_what_the_history_gives():
    pinned = re.search(r"^matplotlib==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)[1]
    drawn, kept = report.build()[report.PICTURE], report.PICTURE.read_text(encoding="utf-8")
    if matplotlib.__version__ == pinned:
        assert kept == drawn, "run python -m benchmarks.report"
    else:  # another version sets its strokes otherwise: the words at least are the same
        words = re.compile(r"<text[^>]*>([^<]*)</text>")
        assert words.findall(kept) == words.findall(drawn)


def test_every_comparison_has_a_meaning_and_a_place():
    for group, comparisons in lines(read(), runner.NAMES).items():
        assert group in (*runner.NAMES, *catalogue.APART), group
        for name in comparisons:
            assert len(catalogue.means(name, group)) > 20, name


def test_the_budgets_keep_to_fifteen_minutes():
    assert sum(catalogue.budget(name) for name in runner.NAMES) <= 800 < catalogue.LIMIT == 900


def test_every_benchmark_says_what_it_is_and_can_be_run():
    for name in runner.NAMES:
        assert catalogue.first_sentence(name) and "def run(" in (ROOT / f"benchmarks/{name}.py").read_text(encoding="utf-8")


# ---------------------------------------------------------------- the history


def test_lines_with_less_in_them_are_read(tmp_path):
    path = tmp_path / "history.jsonl"
    bare = {"name": "generation, tiny", "unit": "tokens/s", "ours": 3, "peer": 2, "peer_name": "p", "ratio": 1.5, "low": 1.4, "high": 1.6}
    later = record(RESULT, date="2026-03-01T00:00:00+00:00", commit="fff", a_field_of_tomorrow=1)
    later["results"][0]["another"] = 2
    path.write_text("\n" + json.dumps(later) + "\n\n" + json.dumps({"date": "2026-01-01", "results": [bare]}) + "\n", encoding="utf-8")
    runs = read(path)
    assert [run.day for run in runs] == ["2026-01-01", "2026-03-01"] and [run.number for run in runs] == [1, 2]
    assert runs[0].results[0].group == "generation" and runs[0].others is None and runs[1].results[0] == RESULT
    text = report.page(runs, lines(runs, runner.NAMES))
    assert "| generation, tiny | 3 tokens/s | p 2 | **1.50** (1.40 to 1.60) |" in text and "an unknown processor" in text
    assert picture.svg(picture.draw(lines(runs), runs)).startswith("<?xml")


def test_names_change_and_comparisons_end(tmp_path):
    old, gone = replace(RESULT, name="an old name", group=""), replace(RESULT, name="gone", group="")
    path = history(tmp_path / "h", record(old, gone), record(RESULT, date="2026-02-02"))
    found = lines(read(path, {"an old name": RESULT.name, "gone": None}))
    assert {name: len(points) for name, points in found["training"].items()} == {RESULT.name: 2} and list(found) == ["training"]
    assert set(lines(read(path, {}))) == {"other", "training"}


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"commit": "x"}'])
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps(record(RESULT)) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"history\.jsonl, line 2"):
        read(path)


def test_groups_come_in_order_and_the_gpu_last():
    runs = [types.SimpleNamespace(results=[replace(RESULT, name=g, group=g) for g in ("gpu", "zebra", "startup", "training", "ant")])]
    assert list(lines(runs, ("training", "startup"))) == ["training", "startup", "ant", "zebra", "gpu"]


def test_who_counts_as_disturbed(tmp_path):
    def point(others, **more):
        path = history(tmp_path / "h", record(replace(RESULT, others=others), **more))
        run = read(path)[0]
        return Point(run, run.results[0])

    assert point(0.2).is_disturbed and not point(0.05).is_disturbed and not point(0.05, load=5.0).is_disturbed
    assert not point(None, load=5.0).is_disturbed  # that run watched the others, and the load was its own
    assert point(None, load=5.0, others_before=None).is_disturbed and not point(None, load=0.2, others_before=None).is_disturbed


def test_one_name_beside_two_peers_is_two_comparisons(tmp_path):
    other = replace(RESULT, peer_name="b peer", ratio=3.0, extra={"share_of_ceiling": 0.417, "ceiling_gflops": 90.0})
    runs = read(history(tmp_path / "h", record(RESULT), record(RESULT, other, date="2026-02-02")))
    found = lines(runs)["training"]
    both = ["training step, small, beside a peer", "training step, small, beside b peer"]
    assert list(found) == both and [len(points) for points in found.values()] == [2, 1]
    assert f"- {both[1]}: 42 % of ceiling" in report.page(runs, lines(runs))
    drawn = picture.draw(lines(runs), runs).axes
    assert [axes.get_title(loc="left") for axes in drawn] == ["small", "small"]
    assert [axes.texts[0].get_text() for axes in drawn] == ["beside a peer", "beside b peer"]


# ---------------------------------------------------------------- the page


def page_of(tmp_path, *results, **more):
    runs = read(history(tmp_path / "h.jsonl", record(*results, **more)))
    return report.page(runs, lines(runs, runner.NAMES))


def test_a_row_says_it_all(tmp_path):
    missed = replace(RESULT, name="training step, large", ratio=0.834, low=0.8, high=0.9, aim=1.15, others=0.3, notes="a | b")
    cost = replace(RESULT, name="memory", ratio=0.4, low=0.4, high=0.4, aim=0.5, lower_is_better=True)
    text = page_of(tmp_path, RESULT, missed, cost, replace(RESULT, name="free", aim=None), seconds={"training": 12.34})
    assert "| training step, small | 200 tokens/s | a peer 100 | **2.00** (1.90 to 2.10) | 1.5 ✓ | 2026-01-02, `abc1234` |" in text
    assert "| **0.83** (0.80 to 0.90) ᵈ | 1.15 ✗ **not reached** |" in text
    assert "| **0.40** (one round) | at most 0.5 ✓ |" in text
    assert "| free | 200 tokens/s | a peer 100 | **2.00** (1.90 to 2.10) |  |" in text
    assert "4 comparisons, 3 with an aim, 2 of these reached.** Not reached: training step, large (0.83, aim 1.15)." in text
    assert "- training step, large: a \\| b" in text and "Again: `python -m benchmarks training`" in text and "a CPU, 2 cores" in text
    for row in ("| training | 12 | 270 | 2026-01-02, `abc1234` |", "| startup | not timed yet | 10 |", "| **12** | 900 |"):
        assert row in text


def test_the_latest_figure_counts(tmp_path):
    later = record(replace(RESULT, ratio=3.0, low=3.0, high=3.0), date="2026-05-05", commit="def5678")
    runs = read(history(tmp_path / "h", later, record(RESULT)))
    text = report.page(runs, lines(runs))
    assert "**3.00** (one round) | 1.5 ✓ | 2026-05-05, `def5678` |" in text and "**2.00**" not in text


def test_the_gpu_has_a_section_either_way(tmp_path):
    assert "## GPU\n\nTraining on one CUDA GPU" in page_of(tmp_path, RESULT) and "Not measured: no GPU" in page_of(tmp_path, RESULT)
    gpu = replace(RESULT, name="GPU, GPT-2 124M, share of peak", group="gpu", ratio=0.52, low=0.51, high=0.53, aim=0.5)
    text = page_of(tmp_path, RESULT, gpu, gpu="NVIDIA H200")
    assert "Not measured" not in text and "Again: `python -m benchmarks.gpu`. Measured on: NVIDIA H200." in text
    assert text.index("## GPU") > text.index("## Training") and "| **0.52** (0.51 to 0.53) | 0.5 ✓ |" in text


def test_nothing_measured_yet(tmp_path):
    runs = read(tmp_path / "none.jsonl")
    assert runs == [] and "Not measured: no GPU" in report.page(runs, lines(runs))
    assert picture.svg(picture.draw(lines(runs), runs))


@pytest.mark.parametrize(("value", "text"), [(17454.2, "17,454"), (161.3, "161"), (31.73, "31.7"), (6.82, "6.82"), (0.008271, "0.00827")])
def test_amounts_have_three_digits(value, text):
    assert report.amount(value) == text


def test_writing_touches_only_what_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PAGE", tmp_path / "docs/page.md")
    monkeypatch.setattr(report, "PICTURE", tmp_path / "docs/images/picture.svg")
    path = history(tmp_path / "h", record(RESULT))
    assert report.write(path) == [tmp_path / "docs/page.md", tmp_path / "docs/images/picture.svg"] and report.write(path) == []
    history(path, record(replace(RESULT, notes="new")))
    assert report.write(path) == [tmp_path / "docs/page.md"]


# ---------------------------------------------------------------- the picture


def test_the_same_history_gives_the_same_bytes(tmp_path):
    runs = read(history(tmp_path / "h", record(RESULT), record(replace(RESULT, aim=None), date="2026-02-02", processor="another")))
    first, second = (picture.svg(picture.draw(lines(runs), runs)) for _ in range(2))
    assert first == second and "<dc:date>" not in first and "DejaVu" not in first


def panel_of(tmp_path, *records):
    runs = read(history(tmp_path / "h", *records))
    groups = lines(runs)
    return picture.draw(groups, runs).axes


def test_a_panel_shows_its_comparison(tmp_path):
    records = [record(replace(RESULT, ratio=ratio, low=ratio / 1.1, high=ratio * 1.1), date=f"2026-0{month}-01", commit=f"c{month}")
               for month, ratio in ((1, 1.2), (2, 2.0), (3, 4.0))]  # fmt: skip
    (axes,) = panel_of(tmp_path, *records)
    assert axes.get_yscale() == "log" and [label.get_text() for label in axes.get_xticklabels()] == ["c1", "c2", "c3"]
    dots = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"]
    assert dots == [(0, 1.2), (1, 2.0), (2, 4.0)] and [text.get_text() for text in axes.texts] == ["beside a peer", "4.00"]
    level = {line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]}  # lines across the whole panel
    assert {1, 1.5} <= level
    low, high = axes.get_ylim()
    assert low < 1 and high > 4.4
    joined = [tuple(line.get_ydata()) for line in axes.lines if line.get_marker() == "None" and list(line.get_xdata()) in ([0, 1], [1, 2])]
    assert (1.2, 2.0) in joined and (2.0, 4.0) in joined


def test_two_machines_are_not_joined(tmp_path):
    other = record(replace(RESULT, ratio=4.0), date="2026-02-01", processor="another CPU")
    (axes,) = panel_of(tmp_path, record(RESULT), other)
    assert (2.0, 4.0) not in [tuple(line.get_ydata()) for line in axes.lines]


def test_colours_say_whether_the_aim_is_reached(tmp_path):
    for result, colour, face in (
        (RESULT, picture.REACHED, picture.REACHED), (replace(RESULT, aim=3.0), picture.MISSED, picture.MISSED),
        (replace(RESULT, aim=None), picture.INK, picture.INK), (replace(RESULT, others=0.5), picture.REACHED, picture.PAPER),
    ):  # fmt: skip
        (axes,) = panel_of(tmp_path, record(result))
        (dot,) = [line for line in axes.lines if line.get_marker() == "o"]
        assert (dot.get_color(), dot.get_markerfacecolor()) == (colour, face)


def test_many_runs_name_few_commits_and_always_the_last(tmp_path):
    records = [record(RESULT, date=f"2026-01-{day:02}", commit=f"c{day}") for day in range(1, 29)]
    (axes,) = panel_of(tmp_path, *records)
    named = [label.get_text() for label in axes.get_xticklabels()]
    assert len(named) <= picture.LABELS and named[-1] == "c28"


@given(st.floats(1e-4, 1e5), st.floats(1.7, 1e6))
def test_ticks_are_few_and_in_the_picture(low, span):
    ticks = picture.nice_ticks(low, low * span)
    assert 1 <= len(ticks) <= 4 and ticks == sorted(set(ticks)) and all(low * 0.95 <= tick <= low * span * 1.05 for tick in ticks)
    assert len(ticks) >= 2 or span < 2.1


@pytest.mark.parametrize(("value", "text"), [(0.8341, "0.83"), (9.999, "10.00"), (12.44, "12.4"), (706.9, "707"), (1234.5, "1,234")])
def test_ratios_have_few_digits(value, text):
    assert picture.figure_of(value) == text


# ---------------------------------------------------------------- measuring


def test_turns_alternate_and_the_ratio_is_the_median_of_rounds(monkeypatch):
    order, mine, other = [], iter([1.0, 2.0, 4.0, 8.0, 5.0]), iter([4.0, 4.0, 4.0, 4.0, 5.0])

    def timed(function):
        order.append(function)
        return next(mine) if function == "ours" else next(other)

    monkeypatch.setattr(harness, "seconds", timed)
    result = harness.compare("n", "ours", "peer", work=10, unit="u", peer_name="p", rounds=5, warm_up=0)
    assert (result.ratio, result.low, result.high) == (1.0, 1.0, 2.0)  # rounds: 4, 2, 1, 1/2, 1
    assert (result.ours, result.peer) == (10 / 4, 10 / 4)
    assert order == ["peer", "ours", "ours", "peer"] * 2 + ["peer", "ours"]


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_an_aim_is_reached_from_its_own_side(ratio, aim):
    result = replace(RESULT, ratio=ratio, aim=aim)
    assert result.reached == (ratio >= aim) and replace(result, lower_is_better=True).reached == (ratio <= aim)
    assert replace(result, aim=None).reached and ("NOT reached" in result.line()) == (ratio < aim)


def stat_file(path, user, idle, steal=0, iowait=0):
    path.write_text(f"cpu  {user} 0 0 {idle} {iowait} 0 0 {steal} 999 0\ncpu0 1 1 1 1\n", encoding="ascii")
    return path


def test_others_are_the_machine_less_ourselves(tmp_path, monkeypatch):
    own = iter([(1.0, 0.5, 2.0, 0.5, 9.0), (3.0, 0.5, 3.0, 0.5, 9.0)])  # 4 s, then 7 s, of this process and its children
    monkeypatch.setattr(watch.os, "times", lambda: next(own))
    monkeypatch.setattr(watch.os, "sysconf", lambda _: 100)
    path = stat_file(tmp_path / "stat", user=1000, idle=1000)
    watching = Watch(path)
    stat_file(path, user=1400, idle=1500, steal=50, iowait=50)  # of 10 s, 4.5 s busy, 3 s of them ours
    assert watching.others() == 0.15 and watch.is_busy(0.15) and not watch.is_busy(0.05) and not watch.is_busy(None)


def test_a_machine_that_does_not_tell(tmp_path):
    assert cpu_time(tmp_path / "none") is None and Watch(tmp_path / "none").others() is None
    assert cpu_time(stat_file(tmp_path / "stat", 0, 0)) is None
    path = stat_file(tmp_path / "stat", 1000, 1000)
    assert Watch(path).others() is None  # no time has passed


def test_a_missing_peer_is_one_line(capsys):
    assert harness.peer_module("json") is json and capsys.readouterr().out == ""
    assert harness.peer_module("no_such_peer") is None
    says = "no-such-peer is not installed: comparisons with no_such_peer are left out (pip install no-such-peer)\n"
    assert capsys.readouterr().out == says


def test_a_record_says_where_and_when(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "_git", lambda *words: "abc1234" if words[0] == "rev-parse" else " M tiny_transformer/model.py")
    harness.keep([RESULT], tmp_path / "h", others_before=0.02, seconds={"training": 3.0})
    (run,) = read(tmp_path / "h")
    assert run.commit == "abc1234+" and run.results == (RESULT,) and run.others == 0.02 and run.seconds == {"training": 3.0}
    assert run.versions["torch"] and run.cores and math.isfinite(run.load)
    monkeypatch.setattr(harness, "_git", lambda *words: "abc1234" if words[0] == "rev-parse" else "")
    assert harness.commit() == "abc1234"


def test_what_the_benchmarks_write_does_not_make_the_tree_another(monkeypatch):
    asked = []
    monkeypatch.setattr(harness, "_git", lambda *words: asked.append(words) or "")
    assert harness.commit() == ""
    assert {f":!{path.relative_to(ROOT).as_posix()}" for path in (harness.HISTORY, report.PAGE, report.PICTURE)} <= set(asked[1])


# ---------------------------------------------------------------- all of them


@pytest.fixture
def made_up(monkeypatch):
    """Benchmarks that measure nothing, and what was kept of them."""

    def add(name, run):
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", types.SimpleNamespace(run=run))

    def without_peer():
        raise ModuleNotFoundError("No module named 'x_transformers'", name="x_transformers.parts")

    def broken():
        raise RuntimeError("the ids differ\nand more")

    add("fine", lambda: [replace(RESULT, group="")])
    add("lame", lambda: [replace(RESULT, name="lame", aim=3.0, group="elsewhere")])
    add("peerless", without_peer)
    add("broken", broken)
    kept, written = [], []
    monkeypatch.setattr(runner, "NAMES", ("fine", "lame", "peerless", "broken"))
    monkeypatch.setattr(runner, "warn_if_busy", lambda: 0.25)
    monkeypatch.setattr(runner, "keep", lambda results, **more: kept.append((results, more)))
    monkeypatch.setattr(report, "write", lambda: written.append(True))
    return kept, written


def test_what_was_measured_is_kept_whatever_happens_beside_it(made_up, capsys):
    kept, written = made_up
    assert runner.main([]) == 1
    ((results, more),) = kept
    assert [(result.name, result.group) for result in results] == [(RESULT.name, "fine"), ("lame", "elsewhere")]
    assert more["others_before"] == 0.25 and set(more["seconds"]) == {"fine", "lame"} and written == [True]
    said = capsys.readouterr().out
    assert "peerless: skipped, x_transformers is not installed (pip install x-transformers)\n" in said
    assert "broken: FAILED, RuntimeError: the ids differ\n" in said and "together" in said


@pytest.mark.parametrize(("names", "code"), [("fine", 0), ("fine peerless", 0), ("peerless", 0), ("lame", 1), ("fine broken", 1)])
def test_the_exit_code(made_up, names, code):
    assert runner.main(names.split()) == code


def test_without_history_nothing_is_written(made_up):
    kept, written = made_up
    assert runner.main(["fine", "--no-history"]) == 0 and not kept and not written
    assert runner.main(["peerless"]) == 0 and not kept and not written  # nothing was measured


def test_a_missing_piece_of_ours_is_an_error(made_up, monkeypatch):
    def torn():
        raise ModuleNotFoundError("No module named 'tiny_transformer.gone'", name="tiny_transformer.gone")

    monkeypatch.setitem(sys.modules, "benchmarks.fine", types.SimpleNamespace(run=torn))
    with pytest.raises(ModuleNotFoundError):
        runner.main(["fine"])


def test_an_unknown_name_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit) as stop:
        runner.main(["nonsense"])
    assert stop.value.code == 2 and "startup" in capsys.readouterr().err


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 500), min_size=1, max_size=4))
def test_times_add_up(seconds):
    outcomes = [runner.Outcome(name, spent) for name, spent in zip(runner.NAMES, seconds, strict=False)]
    last = runner.times(outcomes).splitlines()[-1].split()
    assert abs(float(last[1]) - sum(seconds)) < 0.06 and (("LONG" in last) == (sum(seconds) > 900))
