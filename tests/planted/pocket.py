"""Planted bugs: the model inside the package."""

from tests.planted.bug import Bug

ENGINE, STORED, TOOL = "tiny_transformer/numpy_engine/checkpoint.py", "tiny_transformer/rounded_weights.py", "tools/make_pocket.py"

BUGS = [
    Bug("scales forgotten", STORED, "        numbers *= _spread(scales, self.shape[-1])\n", "", "pocket"),
    Bug("scales left among the weights", STORED, "tensors.pop(name + SCALES)", "tensors[name + SCALES]", "pocket"),
    Bug("whole numbers handed out", ENGINE, "replace(found, weights=found.expanded(), rounded={}) if expand else found", "found", "pocket"),
    Bug("vectors rounded too", TOOL, "checkpoint.weights.items() if weight.dim() == 2}", "checkpoint.weights.items() if weight.dim() >= 1}", "pocket"),
    Bug("scales of another matrix", TOOL, "small = {name: quantize(weight).stored() for", "small = {name: quantize(weight)._replace(scales=quantize(weight).scales.flip(0)).stored() for", "pocket"),
    Bug("the package before one's own run", "tiny_transformer/run.py", "    if path == Path(POCKET.name):\n        yield POCKET\n", "", "pocket"),
    Bug("a large one stays", TOOL, "        new.unlink()\n", "", "pocket"),
    Bug("any size", TOOL, "if (size := new.stat().st_size) > MOST_BYTES:", "if (size := new.stat().st_size) > 1e12:", "pocket"),
    Bug("losses of the training text", TOOL, 'data["val_share"])[1]', 'data["val_share"])[0]', "pocket"),
    Bug("the file as trained measured twice", TOOL, "losses(file, data), losses(new, data)", "losses(file, data), losses(file, data)", "pocket"),
    Bug("lineage lost", TOOL, "checkpoint.step, checkpoint.metrics, note, rounded=small", "checkpoint.step, checkpoint.metrics, {}, rounded=small", "pocket"),
    Bug("another seed in the card", TOOL, '; seed {training["seed"]}.', "; seed 1.", "pocket"),
]
