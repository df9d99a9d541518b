"""`tiny verify`: the checks pass here, each can fail, and a failure says what helps, installed or not."""

import doctest
import importlib.metadata
import json
import math
import subprocess
import sys
import tomllib
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from tiny_transformer import hardware, verify
from tiny_transformer.verify import CHECKS, Outcome, judge_learning, run_checks, satisfies, summary

ROOT = Path(__file__).resolve().parent.parent


# --- this machine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in ("terminal", "command", "self-test")])
def test_each_check_passes_on_a_machine_that_runs_the_tests(name):
    outcome = CHECKS[name]()
    assert outcome.status in ("ok", "warn"), outcome
    assert outcome.detail


def test_the_self_test_learns_and_ends_in_time(monkeypatch):
    outcome = CHECKS["self-test"]()
    assert outcome.status in ("ok", "warn"), outcome
    assert "validation loss from 2.8" in outcome.detail
    monkeypatch.setattr(verify, "SELF_TEST_SECONDS", -1.0)
    assert CHECKS["self-test"]().detail.startswith("1 steps "), "the clock ends it after the first step"


def test_the_report_names_every_check(capsys):
    code = verify.main(["--quick"])
    lines = capsys.readouterr().out.splitlines()
    names = [line[6:20].strip() for line in lines if line[:4] in ("ok  ", "warn", "FAIL")]
    assert names == [name for name in CHECKS if name != "self-test"]
    assert code == int(any(line.startswith("FAIL") for line in lines))


def test_json_holds_the_same(capsys, monkeypatch):
    monkeypatch.setattr(verify, "CHECKS", {"one": lambda: Outcome("ok", "fine"), "two": lambda: Outcome("warn", "hm", "try")})
    assert verify.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "checks": [
            {"name": "one", "status": "ok", "detail": "fine", "remedy": ""},
            {"name": "two", "status": "warn", "detail": "hm", "remedy": "try"},
        ],
    }


def test_a_failed_check_is_exit_code_1_and_shows_its_remedy(capsys, monkeypatch):
    checks = {"disk": lambda: Outcome("fail", "full", "free some space"), "PyTorch": lambda: Outcome("ok", "2")}
    monkeypatch.setattr(verify, "CHECKS", checks)
    assert verify.main([]) == 1
    out = capsys.readouterr().out
    assert "FAIL  disk     full" in out
    assert "-> free some space" in out
    assert "1 of 2 checks failed" in out
    assert verify.main(["--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_quick_leaves_out_the_self_test_only(monkeypatch):
    ran = []
    monkeypatch.setattr(verify, "CHECKS", {name: lambda name=name: ran.append(name) or Outcome("ok", "") for name in CHECKS})
    verify.main(["--quick"])
    assert ran == [name for name in CHECKS if name != "self-test"]
    ran.clear()
    verify.main([])
    assert ran == list(CHECKS)
    assert ran[-1] == "self-test"


def test_exceptions_are_failed_checks_and_the_report_goes_on():
    def missing():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    def broken():
        raise OSError("disk on fire\nsecond line")

    checks = list(run_checks({"a": missing, "b": broken, "c": lambda: Outcome("ok", "")}))
    assert [check.status for check in checks] == ["fail", "fail", "ok"]
    assert checks[0].detail == "needs the package torch, which is missing"
    assert checks[0].remedy == verify.INSTALL
    assert checks[1].detail == "OSError: disk on fire"
    assert checks[1].remedy


@pytest.mark.parametrize(
    ("statuses", "line"),
    [("ok ok", "all 2 checks passed"), ("ok warn", "all 2 checks passed, 1 with a remark"), ("fail warn ok", "1 of 3 checks failed")],
)
def test_the_last_line(statuses, line):
    checks = [verify.Check("x", status, "", "") for status in statuses.split()]
    assert summary(checks).startswith(line)


# --- each check can fail --------------------------------------------------------------------------------------------


def test_versions_are_compared_as_numbers():
    assert satisfies("2.13.0+cpu", "==2.13.0")
    assert satisfies("2.13", ">=2.6")
    assert satisfies("2.6", ">=2.6.0")
    assert not satisfies("2.5.9", ">=2.6")
    assert not satisfies("1.0", "!=1.0.0")
    assert satisfies("0.9", ">=0.9,<1")
    assert not satisfies("1.0", ">=0.9,<1")
    assert satisfies("2026.11.15", ">=2023.12")
    assert satisfies("3", "")


def test_requirements_are_those_of_the_project():
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {name + wanted for name, wanted in verify.requirements()} == {line.replace(" ", "") for line in lines}


def test_requirements_are_found_when_the_project_is_not_installed(monkeypatch):
    installed = verify.requirements()

    def unknown(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", unknown)
    assert sorted(verify.requirements()) == sorted(installed)


def test_missing_and_old_packages_fail(monkeypatch):
    versions = {"torch": "2.5.1", "numpy": "2.4.6"}
    monkeypatch.setattr(verify, "requirements", lambda: [("torch", ">=2.6"), ("numpy", ">=1.26"), ("rich", ">=13")])
    monkeypatch.setattr(verify, "installed_version", versions.get)
    outcome = verify.check_packages()
    assert outcome == Outcome("fail", "torch 2.5.1, must be >=2.6; rich is missing", verify.INSTALL)
    versions |= {"torch": "2.6", "rich": "15"}
    assert verify.check_packages() == Outcome("ok", "torch 2.6, numpy 2.4.6, rich 15")


def test_a_package_that_is_not_there_has_no_version():
    assert verify.installed_version("no-such-package-anywhere") is None
    assert verify.installed_version("numpy") == importlib.metadata.version("numpy")


def test_an_old_python_fails(monkeypatch):
    monkeypatch.setattr(verify, "LEAST_PYTHON", (99, 0))
    assert verify.check_python().status == "fail"


def test_the_command_must_be_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(verify.sysconfig, "get_path", lambda name: str(tmp_path))
    assert verify.check_command().status == "fail"
    (tmp_path / "tiny").write_text("#!/bin/sh\n")
    (tmp_path / "tiny").chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    assert verify.check_command().status == "ok"
    assert "activate" in verify.check_command().detail
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "activate" not in verify.check_command().detail


def test_cuda_packages_without_a_gpu_bring_a_warning(monkeypatch):
    import torch

    names = ("nvidia-cudnn-cu12", "Triton", "numpy", "nvidia-nccl-cu13", None)
    distributions = [SimpleNamespace(metadata={"Name": name}) for name in names]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: distributions)
    monkeypatch.setattr(verify.platform, "system", lambda: "Linux")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert verify.cuda_packages() == ["nvidia-cudnn-cu12", "nvidia-nccl-cu13", "triton"]
    outcome = verify.check_cuda_packages()
    assert (outcome.status, outcome.detail[:15]) == ("warn", "3 CUDA packages")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert verify.check_cuda_packages().status == "ok"


@pytest.mark.parametrize(("free", "status"), [(50e9, "ok"), (1.1e9, "ok"), (0.5e9, "warn"), (0.05e9, "fail")])
def test_little_disk_space_is_reported(free, status, monkeypatch):
    monkeypatch.setattr(verify.shutil, "disk_usage", lambda path: namedtuple("Usage", "total used free")(1e12, 0, free))
    outcome = verify.check_disk()
    assert outcome.status == status
    assert bool(outcome.remedy) == (status != "ok")


@pytest.mark.parametrize(("memory", "status"), [(0.9, "warn"), (2.1, "ok")])
def test_little_memory_is_reported(memory, status, monkeypatch):
    monkeypatch.setattr(hardware, "detect", lambda: hardware.Hardware(2, memory))
    assert verify.check_machine().status == status


def test_the_cache_is_where_it_was_put_and_must_be_writable(tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_CACHE", str(tmp_path / "own/cache"))
    assert verify.check_cache() == Outcome("ok", str(tmp_path / "own/cache"))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TINY_CACHE", str(tmp_path / "file/cache"))
    outcome = verify.check_cache()
    assert outcome.status == "fail"
    assert "TINY_CACHE" in outcome.remedy
    monkeypatch.delenv("TINY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert verify.cache_folder() == tmp_path / "xdg/tiny-transformer"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert verify.cache_folder() == tmp_path / ".cache/tiny-transformer"


@pytest.mark.parametrize(("encoding", "status"), [("utf-8", "ok"), ("UTF8", "ok"), ("ascii", "warn"), ("cp1252", "warn"), (None, "warn")])
def test_the_terminals_encoding(encoding, status, monkeypatch):
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(encoding=encoding))
    assert verify.check_terminal().status == status


def test_texts_say_what_can_be_had_offline(monkeypatch):
    from tiny_transformer import corpora

    def texts(*offline):
        return lambda: [SimpleNamespace(name=f"text{i}", offline=here) for i, here in enumerate(offline)]

    monkeypatch.setitem(vars(corpora), "describe", texts(True, False))
    assert verify.check_texts() == Outcome("ok", "without a network: text0; by download: text1")
    monkeypatch.setitem(vars(corpora), "describe", texts(False))
    assert verify.check_texts().status == "warn"


def test_a_wrong_fused_attention_is_found(monkeypatch):
    import torch.nn.functional as F

    right = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, **more: right(q, k, v, **more | {"is_causal": False}))
    assert verify.check_attention().status == "fail"


def test_a_checkpoint_that_changed_on_the_way_is_found(monkeypatch):
    from tiny_transformer.utils import checkpoint

    right = checkpoint.load

    def load(path):
        loaded = right(path)
        name = next(iter(loaded.weights))
        loaded.weights[name] = loaded.weights[name] + 1e-6
        return loaded

    monkeypatch.setattr(checkpoint, "load", load)
    assert verify.check_checkpoint().status == "fail"


@pytest.mark.parametrize(
    ("loss", "steps", "status"),
    [(1.0, 300, "ok"), (2.2, 300, "ok"), (3.2, 300, "fail"), (math.nan, 300, "fail"), (3.2, 5, "warn"), (math.nan, 5, "fail")],
)
def test_learning_is_judged_beside_guessing(loss, steps, status):
    assert judge_learning(loss, 27, steps, 4.0).status == status  # ln 27 = 3.30


def test_a_trainer_that_does_not_learn_fails_the_self_test(monkeypatch):
    from tiny_transformer.training.trainer import Trainer

    monkeypatch.setattr(Trainer, "_update", lambda self, norm: setattr(self.progress, "step", self.progress.step + 1) or 0.0)
    monkeypatch.setattr(verify, "SELF_TEST_STEPS", 60)
    assert verify.check_learning().status == "fail"


# --- as a program, also where nothing is installed ------------------------------------------------------------------


def test_the_tool_works_where_nothing_is_installed(tmp_path):
    """A Python without site-packages: no torch, no numpy, no rich, and not this package either."""
    command = [sys.executable, "-S", "-E", str(ROOT / "tools/verify_environment.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "torch is missing" in done.stdout
    assert "pip install -e ." in done.stdout
    assert "make verify" in done.stdout


def test_the_tool_finds_an_old_python_before_anything_else(monkeypatch, capsys):
    import runpy

    module = runpy.run_path(str(ROOT / "tools/verify_environment.py"))
    monkeypatch.setitem(module["main"].__globals__, "LEAST_PYTHON", (99, 0))
    assert module["main"]() == 1
    assert "must be" in capsys.readouterr().out


def test_the_three_doors_are_one(monkeypatch):
    import runpy

    from tiny_transformer.cli import main as cli

    monkeypatch.setattr(verify, "main", lambda argv=None: 7)
    monkeypatch.setattr(sys, "argv", ["verify_environment.py"])
    assert runpy.run_path(str(ROOT / "tools/verify_environment.py"))["main"]() == 7
    assert cli.main(["verify"]) == 7
    assert "tools/verify_environment.py" in (ROOT / "Makefile").read_text()


def test_doctests():
    assert doctest.testmod(verify).failed == 0


def test_an_unknown_flag_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        verify.main(["--foo"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "tiny verify: unrecognized arguments: --foo. See tiny verify --help\n"
