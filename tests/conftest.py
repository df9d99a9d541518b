"""What all tests share: one thread each, a cache of their own, and texts to work on."""

import os
import random
import sys
from pathlib import Path

import pytest

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch is imported: on busy cores two threads are slower than one
    os.environ.setdefault(variable, "1")

LAB_FILES = ("shakespeare.txt", "wikitext2-valid.txt", "wikitext2-test.txt")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Nothing a test downloads or keeps lands in the person's own cache, or comes from there."""
    before = os.environ.get("TINY_CACHE")
    os.environ["TINY_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["TINY_CACHE"]
    else:
        os.environ["TINY_CACHE"] = before


@pytest.fixture(autouse=True)
def one_thread():
    """Each test starts with one torch thread and float32, whatever the test before it did."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def corpora_dir() -> Path:
    """The folder with the real texts. Skips where they are not: generated texts cover the same behaviour elsewhere."""
    folder = os.environ.get("TINY_CORPORA")
    if not folder:
        pytest.skip("TINY_CORPORA is not set: it must name a folder with " + ", ".join(LAB_FILES))
    missing = [name for name in LAB_FILES if not (Path(folder) / name).is_file()]
    if missing:
        pytest.skip(f"TINY_CORPORA={folder} lacks {', '.join(missing)}")
    return Path(folder)


@pytest.fixture(scope="session")
def small_text() -> str:
    """About 20,000 characters in the form of a play: speakers, lines, punctuation. Always the same."""
    words = random.Random(0)
    nouns, verbs = ["king", "crown", "night", "sword", "rose", "sea"], ["loves", "fears", "keeps", "breaks"]
    parts, size = [], 0
    while size < 20_000:
        count = words.randint(1, 4)
        lines = [f"The {words.choice(nouns)} {words.choice(verbs)} my {words.choice(nouns)}{words.choice(',.!?;')}" for _ in range(count)]
        parts.append(words.choice(["ROMEO", "JULIET", "DUKE", "NURSE"]) + ":\n" + "\n".join(lines) + "\n\n")
        size += len(parts[-1])
    return "".join(parts)
