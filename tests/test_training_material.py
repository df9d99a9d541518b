"""What training reads from the command line: every tokenizer, token files, and noise that never reaches what is measured."""

import json
import math
import os

import numpy as np
import pytest

from tiny_transformer import run as runs
from tiny_transformer import tokenization
from tiny_transformer.cli.main import main
from tiny_transformer.cli.material import gather
from tiny_transformer.cli.noise import Noise, fresh_ids
from tiny_transformer.cli.settings import training_job
from tiny_transformer.config import ConfigError, DataConfig
from tiny_transformer.run import Run
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.bpe_dropout import encode_with_dropout
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.tokenization.files import load_tokenizer, save_tokenizer
from tiny_transformer.training.token_files import TokenFiles

FLAGS = [
    "--preset", "tiny", "--d-model", "32", "--n-layers", "1", "--max-seq-len", "16", "--max-steps", "6", "--batch-size", "4",
    "--eval-every", "3", "--warmup-steps", "2", "--learning-rate", "0.01", "--log-every", "1",
]  # fmt: skip
SIZES = {"char": [], "byte": [], "word": ["--vocab-size", "40"], "bpe": ["--vocab-size", "300"], "wordpiece": ["--vocab-size", "120"],
         "unigram": ["--vocab-size", "120"]}  # fmt: skip


@pytest.fixture
def desk(tmp_path, monkeypatch, small_text):
    """An empty folder with a text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(small_text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("kind", SIZES)
def test_every_tokenizer_trains_a_model_and_travels_in_the_checkpoint(desk, kind, capsys, small_text):
    command = ["train", "--data", "text.txt", "--out", "run", "--tokenizer", kind, *SIZES[kind], *FLAGS]
    assert main([*command, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    model, tokenizer = runs.load("run")
    record = Run.open("run").record
    assert model.config.vocab_size == tokenizer.vocab_size
    assert tokenizer.to_dict()["kind"] == kind
    if SIZES[kind]:
        assert tokenizer.vocab_size <= int(SIZES[kind][1])
    val_text = small_text[int(len(small_text) * 0.9) :]
    val_ids = tokenizer.encode(val_text)
    assert outcome["bits_per_byte"] == pytest.approx(outcome["val_loss"] / math.log(2) * len(val_ids) / len(val_text.encode()))
    assert record["landmarks"]["bytes_per_token"] == pytest.approx(len(val_text.encode()) / len(val_ids))
    assert main(["generate", "run", "--prompt", "The ", "--max-tokens", "5", "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith("The ")
    assert main(["train", "--resume", "run", "--max-steps", "8"]) == 0
    assert Run.open("run").metrics()[-1]["step"] == 8


def test_a_learned_tokenizer_sees_the_training_text_only(desk, small_text):
    hidden = "zyzzyva " * 300
    (desk / "text.txt").write_text(small_text + hidden, encoding="utf-8")
    share = len(hidden) / (len(small_text) + len(hidden))
    material, _ = gather(DataConfig(data="text.txt", tokenizer="bpe", vocab_size=400, val_share=share), Noise(), 0)
    assert not any(b"zyz" in token for token in material.tokenizer.vocab.values())
    assert material.tokenizer.decode(material.val_ids) == material.reading.val


def test_a_tokenizer_file_is_used_as_it_is(desk, small_text, capsys):
    tokenizer = BPETokenizer.train(small_text[:5000], 300)
    save_tokenizer(tokenizer, "tok.json")
    assert main(["train", "--data", "text.txt", "--out", "run", "--tokenizer-file", "tok.json", *FLAGS]) == 0
    assert runs.load("run")[1].to_dict() == tokenizer.to_dict() == load_tokenizer("tok.json").to_dict()
    capsys.readouterr()
    assert main(["train", "--data", "text.txt", "--out", "b", "--tokenizer-file", "tok.json", "--vocab-size", "9", *FLAGS]) == 2
    assert "the file has its own vocabulary" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--vocab-size", "300"], "vocab_size=300 with tokenizer=char"),
        (["--tokenizer", "byte", "--vocab-size", "300"], "there are 256 bytes"),
        (["--tokenizer", "bpe", "--vocab-size", "100"], "byte-level BPE needs 256 or more"),
        (["--tokenizer", "bpf"], "--tokenizer 'bpf': it must be one of"),
        (["--tokenizer-file", "none.json"], "there is no tokenizer file none.json"),
        (["--swap-words", "1.5"], "swap_words=1.5: it is a chance, from 0 to 1"),
        (["--bpe-dropout", "0.1"], "only a bpe tokenizer has merges to leave out"),
    ],
)
def test_what_cannot_be_is_one_line(desk, capsys, flags, message):
    assert main(["train", "--data", "text.txt", "--out", "run", *FLAGS, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (desk / "run").exists()


def test_a_text_with_too_little_for_the_vocabulary_says_so(desk, capsys):
    (desk / "text.txt").write_text("ab " * 400, encoding="utf-8")
    assert main(["train", "--data", "text.txt", "--out", "run", "--tokenizer", "bpe", "--vocab-size", "999", *FLAGS]) == 0
    assert "tokens instead of 999" in capsys.readouterr().out


# --- token files ----------------------------------------------------------------------------------------------------


def test_token_files_train_the_very_model_of_the_text(desk, capsys, small_text):
    tokenizer = CharTokenizer.train(small_text)
    save_tokenizer(tokenizer, "tok.json")
    assert main(["data", "tokenize", "text.txt", "--tokenizer-file", "tok.json", "--out", "tokens", "--shard-tokens", "5000"]) == 0
    assert len(TokenFiles("tokens").index.shards) > 2
    assert main(["data", "verify", "tokens", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["whole"] is True
    for data, out in (("text.txt", "a"), ("tokens", "b")):
        assert main(["train", "--data", data, "--out", out, *FLAGS]) == 0
    losses = [[line.get("loss") or line.get("val_loss") for line in Run.open(out).metrics()] for out in "ab"]
    assert losses[0] == losses[1]
    assert main(["train", "--resume", "b", "--max-steps", "8"]) == 0
    assert "token files" in capsys.readouterr().out
    for flags in (["--vocab-size", "300", "--tokenizer", "bpe"], ["--drop-characters", "0.1"]):
        assert main(["train", "--data", "tokens", "--out", "c", *FLAGS, *flags]) == 2
        assert "with token files" in capsys.readouterr().err


def test_documents_end_with_a_token_of_their_own(desk, capsys):
    command = ["data", "tokenize", "text.txt", "--vocab-size", "300", "--out", "tokens", "--document-separator", "\\n\\n", "--json"]
    assert main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    files = TokenFiles("tokens")
    tokenizer = files.tokenizer()
    assert tokenizer.special.eos == 299
    assert facts["documents"] == len(files.documents()) == int((files[:] == 299).sum()) > 100
    assert facts["tokens"] == len(files)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tokenize"], "tokenize without a file"),
        (["tokenize", "text.txt"], "tokenize without --out"),
        (["tokenize", "text.txt", "--out", "there"], "there is there already"),
        (["tokenize", "none.txt", "--out", "new"], "none.txt"),
        (["tokenize", "binary", "--out", "new"], "binary"),
        (["tokenize", "latin", "--out", "new"], "latin"),
        (["tokenize", "empty", "--out", "new"], "empty"),
        (["verify"], "verify without a folder"),
        (["verify", "there"], "there"),
        (["batch"], "no text"),
        (["batch", "text.txt", "--batch-size", "0"], "batch_size=0"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(desk, capsys, argv, message):
    (desk / "there").mkdir()
    (desk / "binary").write_bytes(bytes(range(256)) * 20)
    (desk / "latin").write_bytes("né ".encode("latin-1") * 50)
    (desk / "empty").write_bytes(b"")
    assert main(["data", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (desk / "new").exists()


def test_a_batch_is_shown_as_training_reads_it(desk, capsys):
    assert main(["data", "batch", "text.txt", "--max-seq-len", "12", "--step", "3", "--steps", "50"]) == 0
    shown = capsys.readouterr().out
    material, _ = gather(DataConfig(data="text.txt"), Noise(), 1337)
    from tiny_transformer.training.dataset import batch_at

    first = material.tokenizer.decode([int(batch_at(material.train_ids, 2, 12, 1337, 3).inputs[0, 0])])
    row = next(line for line in shown.splitlines() if line.startswith("0 inputs"))
    assert row.split()[2] == repr(first)[1:-1].replace(" ", "␣")
    assert "seen at least once" in shown


# --- noise ----------------------------------------------------------------------------------------------------------


def test_noise_changes_each_epoch_of_the_training_text_and_never_what_is_measured(desk, capsys, monkeypatch):
    from tiny_transformer.training import loop

    trained, measured = [], []
    honest_batch, honest_windows = loop.batch_at, loop.windows
    monkeypatch.setattr(loop, "batch_at", lambda ids, *rest: trained.append(np.array(ids[:])) or honest_batch(ids, *rest))
    monkeypatch.setattr(loop, "windows", lambda ids, *rest: measured.append(np.array(ids[:])) or honest_windows(ids, *rest))
    flags = ["--max-steps", "600", "--batch-size", "8", "--eval-every", "300", "--flip-case", "0.1", "--delete-words", "0.05"]
    assert main(["train", "--data", "text.txt", "--out", "run", *FLAGS, *flags]) == 0
    assert "noise     flip case 0.1, delete words 0.05" in capsys.readouterr().out
    material, _ = gather(DataConfig(data="text.txt"), Noise(), 1337)
    epochs = {ids.tobytes() for ids in trained}
    assert len(epochs) == math.ceil(600 * 8 * 16 / len(material.train_ids))
    assert material.train_ids.tobytes() not in epochs
    clean = {part.tobytes() for part in (material.val_ids, material.train_ids[: len(material.val_ids)])}
    assert {ids.tobytes() for ids in measured} <= clean


def test_a_resumed_run_hears_the_same_noise(desk):
    flags = ["--replace-characters", "0.1", "--save-every", "3"]
    for out, steps in (("whole", "9"), ("half", "5")):
        assert main(["train", "--data", "text.txt", "--out", out, *FLAGS, *flags, "--max-steps", steps, "--schedule", "constant"]) == 0
    assert main(["train", "--resume", "half", "--max-steps", "9"]) == 0
    losses = [{line["step"]: line["loss"] for line in Run.open(out).metrics() if "loss" in line} for out in ("whole", "half")]
    assert losses[0] == losses[1]


def test_bpe_dropout_by_epoch(small_text):
    tokenizer = BPETokenizer.train(small_text, 400)
    text = small_text[:3000]
    fresh = fresh_ids(text, tokenizer, Noise(bpe_dropout=0.2), seed=1)
    first, again, second = fresh(0), fresh(0), fresh(1)
    assert (first == again).all()
    assert first.tolist() != second.tolist()
    assert tokenizer.decode(first) == tokenizer.decode(second) == text
    assert len(first) > len(tokenizer.encode(text))
    assert fresh_ids(text, tokenizer, Noise(), seed=1) is None


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.7, 1.0])
def test_bpe_dropout_keeps_the_text_special_tokens_and_both_ends(rate, small_text):
    tokenizer = BPETokenizer.train(small_text, 300, special_tokens=["</s>"])
    text = "The king</s></s> loves äß 🙂 " * 5
    ids = encode_with_dropout(tokenizer, text, rate, np.random.default_rng(3))
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == text
    assert (ids == tokenizer.special.eos).sum() == 10
    if rate == 0:
        assert ids.tolist() == tokenizer.encode(text)
    if rate == 1:
        assert all(i < 256 or i == tokenizer.special.eos for i in ids)
    with pytest.raises(ConfigError, match="BPE-dropout of"):
        encode_with_dropout(tokenizer, text, rate + 1.5, np.random.default_rng(3))


def test_a_merge_left_out_next_to_never_changes_nothing(small_text):
    tokenizer = BPETokenizer.train(small_text, 400)
    ids = encode_with_dropout(tokenizer, small_text, 1e-12, np.random.default_rng(0))
    assert ids.tolist() == tokenizer.encode(small_text)  # the order of the merges too


def test_the_chance_of_a_merge_is_one_minus_the_rate():
    tokenizer = BPETokenizer.train("ab ab ab", 257)
    ids = encode_with_dropout(tokenizer, "ab" * 1 + " ab" * 5000, 0.3, np.random.default_rng(0))
    assert (ids == 256).mean() * len(ids) / 5001 == pytest.approx(0.7, abs=0.03)


def test_flags_of_noise_and_tokenizer_come_from_a_file_too(desk):
    (desk / "s.toml").write_text('[data]\ntokenizer = "bpe"\nvocab_size = 300\n[noise]\nbpe_dropout = 0.1\n')
    job = training_job(["--data", "text.txt", "--preset", "tiny", "--config", "s.toml"])
    assert (job.data.tokenizer, job.data.vocab_size, job.noise.bpe_dropout) == ("bpe", 300, 0.1)


@pytest.mark.parametrize("kind", SIZES)
def test_tokenizer_files_come_back(tmp_path, kind, small_text):
    tokenizer = tokenization.train(kind, small_text, int(SIZES[kind][1]) if SIZES[kind] else None)
    save_tokenizer(tokenizer, tmp_path / "t.json")
    again = load_tokenizer(tmp_path / "t.json")
    assert again.to_dict() == tokenizer.to_dict()
    assert again.encode(small_text[:500]) == tokenizer.encode(small_text[:500])


def test_gpt2s_own_folder_opens():
    folder = os.environ.get("TINY_GPT2")
    if not folder:
        pytest.skip("TINY_GPT2 is not set: it must name a folder with GPT-2's vocab.json and merges.txt")
    tokenizer = load_tokenizer(folder)  # its vocabulary has the words "kind" and "model"
    assert (tokenizer.vocab_size, tokenizer.special.eos) == (50257, 50256)
    assert tokenizer.encode("Hello, world! A kind model.") == [15496, 11, 995, 0, 317, 1611, 2746, 13]


@pytest.mark.parametrize("words", [{"kind": 0, "model": 1, "a": 2, "b": 3, "ab": 4}, {"kind": 3, "a": 0, "b": 1, "ab": 2}])
def test_a_vocabulary_may_hold_any_word(tmp_path, words):
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    assert load_tokenizer(tmp_path).encode("ab") == [words["ab"]]


def test_foreign_tokenizer_files_are_told_apart(tmp_path, small_text):
    from tiny_transformer.tokenization.hugging_face import save_tokenizer_json

    bpe = BPETokenizer.train(small_text, 300)
    (tmp_path / "gpt2").mkdir()
    bpe.write_gpt2_files(tmp_path / "gpt2" / "vocab.json", tmp_path / "gpt2" / "merges.txt")
    bpe.write_tiktoken(tmp_path / "x.tiktoken")
    save_tokenizer_json(bpe, tmp_path / "tokenizer.json")
    wordpiece = tokenization.train("wordpiece", small_text, 120)
    wordpiece.save_vocab_file(tmp_path / "vocab.txt")
    text = small_text[:400]
    for path in (tmp_path / "gpt2", tmp_path / "x.tiktoken", tmp_path / "tokenizer.json", tmp_path):
        assert load_tokenizer(path).encode(text) == bpe.encode(text), path
    assert load_tokenizer(tmp_path / "vocab.txt").encode(text) == wordpiece.encode(text)
    bad = (("{", "must be JSON"), ('{"kind": "bpe"}', "without 'vocab'"), ('{"a": 1}', "stands alone"), ("hello", "no tokenizer"))
    for content, message in bad:
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ConfigError, match=message):
            load_tokenizer(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_tokenizer(tmp_path / "bad.json")
    with pytest.raises(ConfigError, match="there is no tokenizer file"):
        load_tokenizer(tmp_path / "none")
