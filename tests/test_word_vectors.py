"""Word vectors: against a plain reading of the whole file, through both engines, and every way a file can be damaged."""

import json
import random
import shlex
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_transformer.cli.main import main
from tiny_transformer.config import ConfigError, DataConfig, ModelConfig, TrainConfig
from tiny_transformer.run import read as read_checkpoint
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.word import WordTokenizer
from tiny_transformer.word_vectors import read_word_vectors, words_of

TABLE = "embeddings.token.weight"


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def write(path, lines) -> str:
    path.write_bytes(b"".join(line.encode() + b"\n" for line in lines))
    return str(path)


def vector(seed: int, width: int = 3) -> list[float]:
    numbers = random.Random(seed)
    return [round(numbers.uniform(-1, 1), 5) for _ in range(width)]


def line(word: str, seed: int, width: int = 3) -> str:
    return " ".join([word, *map(str, vector(seed, width))])


# --- what is read ---------------------------------------------------------------------------------------------------

SOME = st.sampled_from(["a", "A", "b", "B", "über", "Über", "ÜBER", "c", ". . .", "at you", "d\u2028", "e\x85"])


@settings(deadline=None, max_examples=150)
@given(st.lists(SOME, min_size=1, max_size=12), st.lists(SOME | st.none(), min_size=1, max_size=8), st.booleans(), st.booleans())
def test_it_reads_what_a_plain_reading_of_the_whole_file_finds(tmp_path_factory, in_file, words, header, blank):
    path = tmp_path_factory.mktemp("v") / "vectors.txt"
    lines = [line(word, seed) for seed, word in enumerate(in_file)]
    write(path, [*([f"{len(lines)} 3"] if header else []), *lines, *([""] if blank else [])])
    plain: dict[str, list[float]] = {}
    for seed, word in enumerate(in_file):
        plain.setdefault(word, vector(seed))
    expected = {i: plain.get(w, plain.get(w.lower())) for i, w in enumerate(words) if w is not None and (w in plain or w.lower() in plain)}
    if not expected:
        with pytest.raises(ConfigError, match="none of the vocabulary's"):
            read_word_vectors(path, words)
        return
    counts = np.arange(1, len(words) + 1)
    found = read_word_vectors(path, words, width=3, counts=counts)
    assert found.ids.tolist() == sorted(expected)
    np.testing.assert_array_equal(found.values, np.array([expected[i] for i in sorted(expected)], dtype=np.float32))
    assert found.in_file == len(lines)
    real = [(i, w) for i, w in enumerate(words) if w is not None]
    c = found.coverage
    assert (c.words, c.text_words) == (len(real), sum(i + 1 for i, _ in real))
    for kind, holds in (("as_written", lambda w: w in plain), ("lower_cased", lambda w: w.lower() in plain),
                        ("either", lambda w: w in plain or w.lower() in plain)):  # fmt: skip
        assert getattr(c, kind) == sum(holds(w) for _, w in real)
        assert getattr(c, f"text_{kind}") == sum(i + 1 for i, w in real if holds(w))
    absent = sorted(((i, w) for i, w in real if i not in expected), key=lambda item: -item[0])
    assert c.lacking == tuple((w, i + 1) for i, w in absent[:10])


def test_line_ends_of_windows_and_blanks_at_line_ends(tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes(b"the 1 2 \r\ncat 3 4\r\n")
    assert read_word_vectors(path, ["cat", "the"]).values.tolist() == [[3, 4], [1, 2]]
    path.write_bytes(b"\xff\xfe\x80 1 2\nthe 3 4")  # no UTF-8, and no line end at the end
    assert read_word_vectors(path, ["the"]).values.tolist() == [[3, 4]]


def test_the_size_of_first_weights_keeps_directions(tmp_path):
    found = read_word_vectors(write(tmp_path / "v.txt", ["a 3 4", "b -6 8", "c 0 0"]), ["a", "b", "c"])
    sized = found.sized(0.02)
    assert np.sqrt(np.square(sized).mean()) == pytest.approx(0.02, rel=1e-6)
    np.testing.assert_allclose(sized[1] / sized[0], [-2, 2], rtol=1e-6)
    assert sized.dtype == np.float32
    with pytest.raises(ConfigError, match="all vectors are zero"):
        read_word_vectors(write(tmp_path / "v.txt", ["c 0 0"]), ["c"]).sized(0.02)


def test_words_are_what_a_file_would_write():
    natural = WordTokenizer.train("The cat, the  cat\n", special_tokens=["<s>"])
    by_piece = dict(zip(natural.pieces, words_of(natural), strict=True))
    assert by_piece == {"<unk>": None, "<s>": None, "\n": None, " ": None, " cat": "cat", " the": "the", "The": "The", ",": ","}
    wiki = WordTokenizer.train("the <unk> cat \n the", style="wikitext")
    assert words_of(wiki) == [None, None, "the", "cat"]
    with pytest.raises(ConfigError, match="word vectors with a bpe tokenizer: its tokens must be words. Try --tokenizer word"):
        words_of(BPETokenizer.train("aaaa bbbb", 258))


def test_only_the_needed_rows_are_in_memory(tmp_path):
    path, width, n = tmp_path / "large.txt", 50, 12_000
    row = " 0.12345" * width
    with path.open("w") as file:
        file.writelines(f"word{i}{row}\n" for i in range(n))
    assert path.stat().st_size > 4_800_000
    told = []
    tracemalloc.start()
    try:
        found = read_word_vectors(path, [f"word{i}" for i in range(0, n, 200)], progress=lambda done, total: told.append((done, total)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.values.shape == (60, width)
    assert peak < 400_000, "the file has 4.8 million bytes, the rows that are kept 12,000"
    size = path.stat().st_size
    assert len(told) >= 2 and told[-1] == (size, size) and all(a[0] <= b[0] for a, b in pairwise(told))


# --- what is refused ------------------------------------------------------------------------------------------------

GOOD = [line("the", 1), line("cat", 2), line("sat", 3)]
DAMAGED = {
    "cut": ([*GOOD, "on 0.5 0.2"], "line 4: it has 2 numbers and must have 3"),
    "cut in a word that nobody wants": ([*GOOD, "zebra 0.5", line("on", 5)], "line 4: it has 1 numbers and must have 3"),
    "one number too many": ([GOOD[0], GOOD[1] + " 0.5"], "line 2: it has 4 numbers and must have 3"),
    "one too many where nobody looks": ([*GOOD, "zebra 1 2 3 4 5"], "line 4: it has 5 numbers and must have 3"),
    "no number": ([GOOD[0], "cat 0.1 0.x 0.3"], "line 2: '0.x' is no number"),
    "not finite": ([GOOD[0], "cat 0.1 nan 0.3"], "line 2: it holds a number that is not finite"),
    "too large for float32": ([GOOD[0], "cat 0.1 1e39 0.3"], "line 2: it holds a number that is not finite"),
    "an underscore": ([GOOD[0], "cat 0.1 1_0 0.3"], "line 2: '1_0' is no number"),
    "an empty line": ([GOOD[0], "", GOOD[1]], "line 2: it is empty"),
    "fewer than promised": (["4 3", *GOOD], "line 4: the file ends after 3 vectors and its first line promises 4"),
    "more than promised": (["2 3", *GOOD], "line 4: the file ends after 3 vectors and its first line promises 2"),
    "no numbers at all": (["the", "cat"], "line 1: it has no numbers"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_line_is_named_by_its_number(tmp_path, name):
    lines, words = DAMAGED[name]
    path = write(tmp_path / "v.txt", lines)
    with pytest.raises(ConfigError) as error:
        read_word_vectors(path, ["the", "cat", "on"])
    assert one_line(error) == f"{path}, {words}: the file is damaged or cut there. Get it again"


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "v.txt"
    for start, name in ((b"\x1f\x8b\x08", "gzip"), (b"PK\x03\x04", "zip")):
        path.write_bytes(start + b" 1 2\n")
        with pytest.raises(ConfigError, match=rf"is packed \({name}\): it must be text. Unpack it first"):
            read_word_vectors(path, ["the"])
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="holds no vectors"):
        read_word_vectors(path, ["the"])
    path.write_bytes(b"the 1 2\n" + b"x" * (1 << 20) + b"\n")
    with pytest.raises(ConfigError, match="line 2: it is longer than"):
        read_word_vectors(path, ["the"])
    write(path, GOOD)
    with pytest.raises(ConfigError, match="has 3 numbers for each word and d_model=300: they must agree. Try --d-model 3"):
        read_word_vectors(path, ["the"], width=300)
    with pytest.raises(FileNotFoundError):
        read_word_vectors(tmp_path / "none.txt", ["the"])


def test_settings_that_contradict_each_other():
    with pytest.raises(ConfigError, match="freeze_embeddings without embeddings"):
        DataConfig(corpus="pitches", freeze_embeddings=True)
    with pytest.raises(ConfigError, match="word_style=wikitext without tokenizer=word"):
        DataConfig(corpus="pitches", word_style="wikitext")
    with pytest.raises(ConfigError, match="the text to measure on must be there again"):
        DataConfig(corpus="pitches", val_data="-")


# --- frozen while training ------------------------------------------------------------------------------------------

SIZES = {"vocab_size": 20, "max_seq_len": 8, "d_model": 8, "n_layers": 1, "n_heads": 2}
FROZEN = [3, 5, 6, 19]


def make(engine: str, tie: bool = False, dropout: float = 0.1, **more):
    config = ModelConfig(**SIZES, tie_weights=tie, dropout=dropout)
    usual = {"max_steps": 6, "batch_size": 4, "warmup_steps": 1, "weight_decay": 0.5, "log_every": 1, "clip_norm": 0.01}
    training = TrainConfig(**usual | more)
    ids = np.random.default_rng(0).integers(20, size=400)
    if engine == "torch":
        from tiny_transformer.model import TinyTransformerLM
        from tiny_transformer.training.trainer import Trainer

        return Trainer(TinyTransformerLM(config, seed=0), None, ids[:300], ids[300:], training), ids
    from tiny_transformer.numpy_engine.model import TinyTransformerLM, init_weights
    from tiny_transformer.numpy_engine.trainer import Trainer

    return Trainer(TinyTransformerLM(config, init_weights(config, 0)), None, ids[:300], ids[300:], training), ids


def numbers(weights) -> np.ndarray:
    return weights.numpy() if hasattr(weights, "numpy") else weights


def table_of(trainer) -> np.ndarray:
    return numbers(trainer.model.weights()[TABLE]).copy()


@pytest.mark.parametrize("engine", ["torch", "numpy"])
@pytest.mark.parametrize("more", [{}, {"optimizer": "muon"}, {"fused_optimizer": False}, {"accumulate": 2}], ids=str)
@pytest.mark.parametrize("tie", [False, True])
def test_frozen_rows_stay_to_the_bit_and_all_others_learn(engine, more, tie):
    trainer, _ = make(engine, tie, **more)
    before = table_of(trainer)
    trainer.freeze_rows(FROZEN)
    trainer.fit()
    after = table_of(trainer)
    moved = (before != after).any(1)
    assert [i for i in range(20) if not moved[i]] == FROZEN


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_the_gradient_norm_speaks_of_what_learns(engine):
    trainer, _ = make(engine, dropout=0.0)
    questions = trainer._questions()
    trainer._loss_and_norm(*questions)
    gradients = {name: numbers(p.grad) for name, p in trainer.model.named_parameters()} if engine == "torch" else trainer.gradients
    gradients[TABLE] = gradients[TABLE].copy()
    gradients[TABLE][FROZEN] = 0
    expected = np.sqrt(sum(float(np.square(g, dtype=np.float64).sum()) for g in gradients.values()))
    other, _ = make(engine, dropout=0.0)
    other.freeze_rows(FROZEN)
    assert other._loss_and_norm(*questions)[1] == pytest.approx(expected, rel=1e-5)


def test_ids_that_are_none_are_refused():
    trainer, _ = make("torch")
    for wrong in ([20], [-1, 3]):
        with pytest.raises(ValueError, match=f"frozen token {20 if wrong == [20] else -1}: ids must lie in 0 to 19"):
            trainer.freeze_rows(wrong)


# --- through the command --------------------------------------------------------------------------------------------

TEXT = "The cat sat on the mat . The Dog <unk> sat on the cat .\n" * 60


def train(tmp_path, *flags: str) -> int:
    (tmp_path / "text.txt").write_text(TEXT)
    write(tmp_path / "v.txt", [line(word, seed, 8) for seed, word in enumerate(("the", "cat", "Dog", "dog", "mat", "zebra"))])
    sizes = shlex.split("--d-model 8 --n-layers 1 --n-heads 2 --max-seq-len 8 --batch-size 4 --max-steps 4 --save-every 2 --eval-every 4")
    text = ["--data", str(tmp_path / "text.txt"), "--tokenizer", "word", "--word-style", "wikitext", "--position", "sinusoidal"]
    return main(["train", *text, "--embeddings", str(tmp_path / "v.txt"), *sizes, "--out", str(tmp_path / "run"), *flags])


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_training_begins_with_the_vectors_and_keeps_the_frozen_ones(tmp_path, capsys, engine):
    assert train(tmp_path, "--freeze-embeddings", "--engine", engine, "--weight-decay", "0.3") == 0
    said = capsys.readouterr().out
    record = json.loads((tmp_path / "run/config.json").read_text())
    assert record["coverage"]["as_written"] == 4 and record["coverage"]["lower_cased"] == 5 and record["coverage"]["words"] == 8
    for words in ("as they are written", "4 of 8", "50.0%", "one or the other", "5 vectors stay as they are", "sat (", "6 of 8 numbers"):
        assert words in said
    suffix = "pt" if engine == "torch" else "safetensors"
    last = read_checkpoint(tmp_path / f"run/last.{suffix}")
    pieces = last.tokenizer["pieces"]
    weights = numbers(last.weights[TABLE])
    line_of = {"The": 0, "cat": 1, "the": 0, "mat": 4, "Dog": 2}  # Dog has a vector of its own beside dog's
    raw = np.array([vector(seed, 8) for seed in line_of.values()])
    kept = weights[[pieces.index(word) for word in line_of]]
    assert kept == pytest.approx(raw * (kept[1, 0] / raw[1, 0]), rel=1e-5)
    assert np.sqrt(np.square(kept).mean()) == pytest.approx(0.02, rel=1e-5)


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_a_resumed_run_keeps_them_frozen_without_the_file(tmp_path, capsys, engine):
    assert train(tmp_path, "--freeze-embeddings", "--engine", engine) == 0
    (tmp_path / "v.txt").unlink()
    suffix = "pt" if engine == "torch" else "safetensors"
    before = numbers(read_checkpoint(tmp_path / f"run/last.{suffix}").weights[TABLE])
    assert main(["train", "--resume", str(tmp_path / "run"), "--max-steps", "8"]) == 0
    found = read_checkpoint(tmp_path / f"run/last.{suffix}")
    still = [found.tokenizer["pieces"][i] for i in np.flatnonzero((before == numbers(found.weights[TABLE])).all(1))]
    assert sorted(still) == ["Dog", "The", "cat", "mat", "the"]


def test_tuned_is_the_default(tmp_path, capsys):
    assert train(tmp_path, "--max-steps", "1") == 0
    first = numbers(read_checkpoint(tmp_path / "run/last.pt").weights[TABLE])
    assert train(tmp_path, "--max-steps", "3") == 0
    assert (first != numbers(read_checkpoint(tmp_path / "run/last.pt").weights[TABLE])).any(1).all()
    assert "stay as they are" not in capsys.readouterr().out


def test_a_width_that_does_not_fit_leaves_nothing_behind(tmp_path, capsys):
    assert train(tmp_path, "--d-model", "16") == 2
    assert "has 8 numbers for each word and d_model=16: they must agree. Try --d-model 8" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert train(tmp_path, "--tokenizer", "bpe", "--word-style", "natural", "--vocab-size", "300") == 2
    assert "word vectors with a bpe tokenizer" in capsys.readouterr().err
