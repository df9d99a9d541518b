"""Whether C can be compiled here: one mark for all tests of what is compiled where it is used."""

import shutil

import pytest

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="needs a C compiler")
