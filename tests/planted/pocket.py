"""Planted bugs: the model inside the package."""

from tests.planted.bug import Bug

ENGINE, TOOL = "tiny_transformer/numpy_engine/checkpoint.py", "tools/make_pocket.py"

BUGS = [
    Bug("scales forgotten", ENGINE, "array.astype(np.float32) * scales[name] if name in scales else array", "array.astype(np.float32) if name in scales else array", "pocket"),
    Bug("scales left among the weights", ENGINE, "for name, array in tensors.items() if not name.endswith(SCALES)}", "for name, array in tensors.items()}", "pocket"),
    Bug("whole numbers handed out", ENGINE, '"weights": _expanded(tensors)', '"weights": tensors', "pocket"),
    Bug("vectors rounded too", TOOL, "if weight.dim() != 2:", "if weight.dim() > 2:", "pocket"),
    Bug("scales of another matrix", TOOL, "weights[name + checkpoints.SCALES] = values.numpy(), scales.numpy()", "weights[name + checkpoints.SCALES] = values.numpy(), scales.flip(0).contiguous().numpy()", "pocket"),
    Bug("the package before one's own run", "tiny_transformer/run.py", "    if path == Path(POCKET.name):\n        yield POCKET\n", "", "pocket"),
    Bug("a large one stays", TOOL, "        new.unlink()\n", "", "pocket"),
    Bug("any size", TOOL, "if (size := new.stat().st_size) > MOST_BYTES:", "if (size := new.stat().st_size) > 1e12:", "pocket"),
    Bug("losses of the training text", TOOL, 'data["val_share"])[1]', 'data["val_share"])[0]', "pocket"),
    Bug("the file as trained measured twice", TOOL, "losses(file, data), losses(new, data)", "losses(file, data), losses(file, data)", "pocket"),
    Bug("lineage lost", TOOL, "checkpoint.step, checkpoint.metrics, note)", "checkpoint.step, checkpoint.metrics, {})", "pocket"),
    Bug("another seed in the card", TOOL, '; seed {training["seed"]}.', "; seed 1.", "pocket"),
]
