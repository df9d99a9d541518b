"""The list of planted bugs itself: each can still be planted. Whether it is caught is asked by `make planted-bugs`, which takes hours."""

import importlib

import pytest

from tests.planted_bugs import AREAS, ROOT, every_bug


@pytest.mark.parametrize("area", AREAS)
def test_every_bug_can_be_planted(area):
    for bug in importlib.import_module(f"tests.planted.{area}").BUGS:
        assert (ROOT / bug.file).read_text(encoding="utf-8").count(bug.good) == 1, f"{bug.name}: {bug.good!r} must be in {bug.file} once"
        assert bug.good != bug.bad
        assert all((ROOT / "tests" / f"test_{name}.py").exists() for name in bug.tests.split()) and bug.tests


def test_no_bug_is_there_twice():
    planted = [(bug.file, bug.good, bug.bad) for bug in every_bug()]
    assert len(planted) == len(set(planted)) > 1000
