"""Checkpoints: exact, whole or refused, and never in each other's way."""

import errno
import io
import json
import os
import random
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tiny_transformer.config import ModelConfig
from tiny_transformer.utils import atomic, checkpoint
from tiny_transformer.utils.checkpoint import Checkpoint, CheckpointError, atomic_save, load, save

CONFIG = ModelConfig(d_model=8, n_layers=1, n_heads=2, vocab_size=5)


def make(seed=0, **more) -> Checkpoint:
    generator = torch.Generator().manual_seed(seed)
    weights = {
        "a": torch.randn(3, 4, generator=generator),
        "b": torch.randn(3, 4, generator=generator),
        "c": torch.randn(7, generator=generator),
    }
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.randn(3, 4, generator=generator)}
    training = {"optimizer": {"a": moments}, "seen": [1, None, 0.1, {"deep": [torch.arange(3)]}], "best": float("inf")}
    given = {"step": 7, "metrics": {"val_loss": 0.1 + 0.2}, "lineage": {"recipe": "demo", "parent": None}, "training": training}
    return Checkpoint(CONFIG, {"kind": "char", "symbols": "abcde"}, weights, **(given | more))


def flat(value):
    """Everything in a checkpoint, tensors as (dtype, shape, bytes), for exact comparison."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [flat(entry) for entry in value]
    return value


def contents(saved: Checkpoint):
    return flat(vars(saved) | {"config": saved.config.to_dict()})


@pytest.fixture
def file(tmp_path):
    """A file that holds `make()`."""
    save(tmp_path / "x.pt", make())
    return tmp_path / "x.pt"


def outcome(path):
    """What loading gives: True for exactly the values saved, the message of a refusal; anything else fails the test."""
    try:
        assert contents(load(path)) == contents(make())
    except CheckpointError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        return str(error)
    return True


# ---------------------------------------------------------------- what is saved is what is loaded


def test_round_trip(file):
    assert outcome(file) is True
    assert type(load(file).config) is ModelConfig
    content = torch.load(file, weights_only=True)  # no code inside
    assert all(isinstance(tensor, torch.Tensor) for tensor in content["tensors"].values())


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64],
)
def test_every_type_and_odd_shapes_survive(tmp_path, dtype):
    weights = {"scalar": torch.tensor(1).to(dtype), "empty": torch.zeros(0, 3).to(dtype), "turned": torch.arange(6).view(2, 3).T.to(dtype)}
    save(tmp_path / "x.pt", Checkpoint(CONFIG, None, weights))
    loaded = load(tmp_path / "x.pt").weights
    assert list(loaded) == list(weights)
    assert all(loaded[name].dtype == dtype and torch.equal(loaded[name], weights[name]) for name in weights)
    assert all(tensor.is_contiguous() for tensor in loaded.values())


def test_every_bit_of_odd_numbers_survives(tmp_path):
    bits = torch.tensor([0x7FC00001, 0x7F800001, 0xFFFFFFFF - 2**32, 1, -(2**31)], dtype=torch.int64).to(torch.int32)
    save(tmp_path / "x.pt", Checkpoint(CONFIG, None, {"a": bits.view(torch.float32)}))
    assert torch.equal(load(tmp_path / "x.pt").weights["a"].view(torch.int32), bits)


TEXT = st.text(st.characters(exclude_categories=()), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT.filter(lambda key: key != "$tensor"), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(TEXT.filter(lambda key: key != "$tensor"), JSON), st.integers(0, 2**62))
@example({"symbols": "\ud83d\ude00"}, 0)  # two lone surrogates, not one character
def test_any_json_value_survives(tmp_path_factory, values, step):
    """Lone surrogates, large integers, infinities and the difference between 1, 1.0 and True included."""
    path = tmp_path_factory.getbasetemp() / "any.pt"
    save(path, Checkpoint(CONFIG, values, {}, step, values, values, {"inner": values, "tensor": torch.ones(1)}))
    again = load(path)
    for part in (again.tokenizer, again.metrics, again.lineage, again.training["inner"]):
        assert repr(part) == repr(values)
    assert again.step == step


def test_tensors_of_a_module_and_with_gradients(tmp_path):
    layer = torch.nn.Linear(2, 3)
    save(tmp_path / "x.pt", Checkpoint(CONFIG, None, dict(layer.named_parameters())))
    loaded = load(tmp_path / "x.pt").weights
    assert torch.equal(loaded["weight"], layer.weight)
    assert type(loaded["weight"]) is torch.Tensor
    assert not loaded["weight"].requires_grad


def test_a_view_does_not_drag_its_storage_along(tmp_path):
    large = torch.arange(1_000_000.0)
    save(tmp_path / "x.pt", Checkpoint(CONFIG, None, {"a": large[:4], "b": large[10:14], "c": large.view(1000, 1000)[:2, :2]}))
    assert (tmp_path / "x.pt").stat().st_size < 20_000
    loaded = load(tmp_path / "x.pt").weights
    assert [tensor.flatten().tolist() for tensor in loaded.values()] == [[0, 1, 2, 3], [10, 11, 12, 13], [0, 1, 1000, 1001]]


def test_shared_tensors_are_stored_once(tmp_path):
    shared = torch.randn(50_000)
    save(tmp_path / "x.pt", Checkpoint(CONFIG, None, {"a": shared, "b": shared}))
    assert (tmp_path / "x.pt").stat().st_size < 300_000
    assert torch.equal(load(tmp_path / "x.pt").weights["b"], shared)


def test_saving_leaves_the_checkpoint_alone(tmp_path):
    saved = make()
    before = contents(saved)
    save(tmp_path / "x.pt", saved)
    assert contents(saved) == before


@pytest.mark.parametrize(
    ("bad", "words"),
    [({3: "three"}, "training has the key 3: keys must be strings"), ({"$tensor": 1}, r"the key '\$tensor'"),
     ({"a": [object()]}, "training/a/0 is a object"), ({"a": {"b": {1, 2}}}, "training/a/b is a set"),
     ({"path": Path("x")}, "training/path is a")],
)  # fmt: skip
def test_what_json_would_change_or_lose_is_refused(tmp_path, bad, words):
    with pytest.raises(TypeError, match=words):
        save(tmp_path / "x.pt", Checkpoint(CONFIG, None, {}, training=bad))
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- damage


def test_any_changed_byte_is_noticed_or_harmless(file, tmp_path):
    """500 flips of one to eight bits anywhere: refused, or exactly the same values (a flip in the zip's padding)."""
    original, randomness, noticed = file.read_bytes(), random.Random(0), 0
    for _ in range(500):
        changed = bytearray(original)
        changed[randomness.randrange(len(changed))] ^= randomness.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
        (tmp_path / "y.pt").write_bytes(changed)
        noticed += outcome(tmp_path / "y.pt") is not True
    assert noticed > 200


def test_every_bit_of_a_weight_is_noticed(file):
    original = file.read_bytes()
    start = original.find(make().weights["a"].numpy().tobytes())
    assert start > 0
    for bit in range(0, 3 * 4 * 32, 5):
        changed = bytearray(original)
        changed[start + bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        assert "is damaged" in outcome(file)


def test_every_cut_is_noticed(file):
    original = file.read_bytes()
    for length in [*range(0, len(original), 61), *range(len(original) - 30, len(original))]:
        file.write_bytes(original[:length])
        assert outcome(file) is not True


def test_zeroed_swapped_and_repeated_blocks_are_noticed(file):
    original = file.read_bytes()
    first, second = (make().weights[name].numpy().tobytes() for name in "ab")
    swapped = original.replace(first, b"#" * len(first)).replace(second, first).replace(b"#" * len(first), second)
    for changed in (swapped, original.replace(first, bytes(len(first))), original.replace(first, second)):
        assert changed != original
        file.write_bytes(changed)
        assert "is damaged" in outcome(file)
    for start in range(0, len(original) - 512, 97):
        file.write_bytes(original[:start] + bytes(512) + original[start + 512 :])
        outcome(file)


def test_damaged_instructions_are_never_followed(file, monkeypatch):
    """The archive's checksums are compared first: a damaged pickle could make torch read wherever it likes."""
    original = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        part = next(part for part in archive.infolist() if part.filename.endswith("data.pkl"))
    start = part.header_offset + 30 + sum(struct.unpack("<HH", original[part.header_offset + 26 : part.header_offset + 30]))
    followed = []
    monkeypatch.setattr(torch, "load", lambda *_, **__: followed.append(1))
    for place in range(start, start + part.file_size, 13):
        changed = bytearray(original)
        changed[place] ^= 1
        file.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"damaged.*data\.pkl"):
            load(file)
    assert not followed


def exchange(content):
    tensors = content["tensors"]
    one, two = list(tensors)[:2]
    tensors[one], tensors[two] = tensors[two], tensors[one]


def exchange_with_digests(content):
    exchange(content)
    digests = content["sha256"]
    one, two = list(digests)[:2]
    digests[one], digests[two] = digests[two], digests[one]


def rename(content):
    name = next(iter(content["tensors"]))
    content["tensors"] = {("new" if key == name else key): value for key, value in content["tensors"].items()}


def rename_everywhere(content):
    for part in ("tensors", "sha256"):
        content[part] = {key.replace("a", "z"): value for key, value in content[part].items()}


def first_tensor(change):
    def edit(content):
        name = next(iter(content["tensors"]))
        content["tensors"][name] = change(content["tensors"][name])

    return edit


def change_record(old, new):
    def edit(content):
        assert old in content["record"]
        content["record"] = content["record"].replace(old, new, 1)

    return edit


def drop(name):
    def edit(content):
        del content[name]

    return edit


def drop_a_tensor(content):
    name = next(iter(content["tensors"]))
    del content["tensors"][name]


def drop_a_tensor_everywhere(content):
    drop_a_tensor(content)
    content["sha256"] = {name: content["sha256"][name] for name in content["tensors"]}


def add_a_tensor(content):
    content["tensors"]["more"] = torch.ones(1)
    content["sha256"]["more"] = checkpoint._tensor_digest("more", torch.ones(1))


@pytest.mark.parametrize(
    "edit",
    [
        exchange, exchange_with_digests, rename, rename_everywhere, drop_a_tensor, drop_a_tensor_everywhere, add_a_tensor,
        first_tensor(lambda t: t + 1e-7), first_tensor(torch.Tensor.double), first_tensor(lambda t: t.reshape(4, 3)),
        first_tensor(lambda t: t.view(torch.int32)), first_tensor(lambda t: t.T), first_tensor(lambda t: "text"),
        first_tensor(torch.zeros_like), change_record('"step": 7', '"step": 8'), change_record("abcde", "abced"),
        drop("record"), drop("record_sha256"), drop("tensors"), drop("sha256"),
        lambda content: content.update(sha256={}), lambda content: content.update(tensors=[], sha256=[]),
        lambda content: content.update(tiny_transformer=0), lambda content: content.update(record="{}"),
        lambda content: content.update(record=7),
    ],
)  # fmt: skip
def test_a_whole_and_valid_file_with_other_contents_is_refused(file, edit):
    """Every checksum of the archive is right here: only our own digests can tell."""
    content = torch.load(file, weights_only=True)
    edit(content)
    torch.save(content, file)
    assert "is damaged" in outcome(file)


def test_a_record_made_by_hand_that_does_not_fit(file):
    for change in ({"step": 1, "extra": 1}, {"config": {"d_modell": 8}}, {"config": {"d_model": -8}}, {"config": None}):
        content = torch.load(file, weights_only=True)
        content["record"] = json.dumps(json.loads(content["record"]) | change)
        content["record_sha256"] = checkpoint._text_digest(1, content["record"])
        torch.save(content, file)
        assert "is damaged" in outcome(file)
        save(file, make())


def test_a_newer_format_says_so(file):
    content = torch.load(file, weights_only=True)
    content["tiny_transformer"] = checkpoint.FORMAT + 1
    torch.save(content, file)
    assert "format 2: this version reads up to 1. Install a newer" in outcome(file)


# ---------------------------------------------------------------- other files


def test_other_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save({"model": torch.ones(2)}, tmp_path / "foreign.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": 1}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "empty.pt").touch()
    (tmp_path / "folder.pt").mkdir()
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("readme.txt", "a zip file")
    expected = {
        "text": "is not a checkpoint", "foreign": "not a checkpoint of Tiny Transformer", "list": "not a checkpoint of Tiny Transformer",
        "old": "is not a checkpoint", "empty": "is empty", "missing": "does not exist", "folder": "is a folder", "zip": "is damaged",
    }  # fmt: skip
    for name, words in expected.items():
        assert words in outcome(tmp_path / f"{name}.pt"), name


def test_code_in_a_file_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for content in (Trap(), {"tiny_transformer": 1, "record": "{}", "record_sha256": "", "tensors": {"a": Trap()}, "sha256": {}}):
        torch.save(content, tmp_path / "trap.pt")
        assert "could run code: refused" in outcome(tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()


def test_compressed_parts_are_refused(file, tmp_path):
    """Ours are not compressed: a small file that unpacks to a huge one is none of ours."""
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as after:
        for part in before.infolist():
            after.writestr(part.filename, before.read(part))
    assert "compressed" in outcome(tmp_path / "y.pt")


# ---------------------------------------------------------------- a save that fails leaves the old file


class FullDisk:
    """A file for which there is room for so many bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        data = bytes(data)
        self.file.write(data[: self.room])
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(data)
        return len(data)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


def assert_old_file_alone(path):
    assert contents(load(path)) == contents(make(seed=0))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_full_disk_at_any_byte(file, monkeypatch):
    size, really_open = file.stat().st_size, Path.open
    for room in [*range(0, size, size // 40), size - 1]:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", lambda self, *args, room=room: FullDisk(really_open(self, *args), room))
            with pytest.raises(
                OSError, match=r"No space left on device: the checkpoint was not written, an older one is unharmed"
            ) as error:
                save(file, make(seed=1))
        assert error.value.errno == errno.ENOSPC
        assert error.value.filename == str(file)
        assert_old_file_alone(file)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt(), MemoryError(), RuntimeError("boom")])
@pytest.mark.parametrize("where", ["save", "fsync", "replace"])
def test_any_failure_at_any_stage(file, monkeypatch, where, error):
    def fail(*_, **__):
        raise error

    if where == "save":
        monkeypatch.setattr(torch, "save", lambda content, out: (out.write(b"half"), fail()))
    elif where == "fsync":
        monkeypatch.setattr(atomic.os, "fsync", fail)
    else:
        monkeypatch.setattr(atomic.Path, "replace", fail)
    with pytest.raises(type(error)):
        save(file, make(seed=1))
    monkeypatch.undo()
    assert_old_file_alone(file)


def test_a_folder_that_is_missing_or_a_file(tmp_path):
    (tmp_path / "file").touch()
    for folder in ("missing", "file"):
        with pytest.raises(OSError, match="was not written") as error:
            save(tmp_path / folder / "x.pt", make())
        assert error.value.filename == str(tmp_path / folder / "x.pt")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed in forked copies of this one")
def test_killed_at_any_operation_of_a_save(file):
    """The process ends at the k-th write, sync or rename: the file is the old or the new one, bit for bit."""
    old, new, k, finished = contents(make(seed=0)), contents(make(seed=1)), 0, False
    seen = set()
    while not finished:
        child = os.fork()
        if child == 0:
            _save_and_die(file, k)
        finished = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        found = contents(load(file))
        assert found in (old, new)
        seen.add(found == new)
        save(file, make(seed=0))
        k += 1
    assert k > 5
    assert seen == {False, True}


def _save_and_die(file, operations):
    count = 0

    def counted(function):
        def call(*args):
            nonlocal count
            if count == operations:
                os._exit(9)
            count += 1
            return function(*args)

        return call

    really_open = Path.open

    def opened(path, *args):
        out = io.FileIO(path, "x") if args == ("xb",) else really_open(path, *args)  # not buffered: each write reaches the disk
        if args == ("xb",):
            out.write = counted(out.write)
        return out

    try:
        Path.open, os.fsync, Path.replace = opened, counted(os.fsync), counted(Path.replace)
        save(file, make(seed=1))
        os._exit(0)
    finally:
        os._exit(1)


def test_the_order_of_an_atomic_save(tmp_path, monkeypatch):
    """Write, fsync the file, rename, fsync the directory: anything else can lose or halve a file in a power cut."""
    events, real_fsync, real_replace = [], os.fsync, atomic.Path.replace

    def fsync(number):
        events.append("sync directory" if Path(f"/proc/self/fd/{number}").is_dir() else "sync file")
        real_fsync(number)

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    monkeypatch.setattr(atomic.Path, "replace", lambda self, target: (events.append("rename"), real_replace(self, target)))
    atomic_save(tmp_path / "x", lambda out: events.append("write"))
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("which file a number belongs to is read from /proc")
    assert events == ["write", "sync file", "rename", "sync directory"]
