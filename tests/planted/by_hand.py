"""Planted bugs: gradients by hand on the CPU, when they may run, and recomputing blocks."""

from tests.planted.bug import Bug

PACKAGE = "tiny_transformer"

BUGS = [
    Bug("input gradient by the matrix the wrong way round", f"{PACKAGE}/linear.py", "product(rows, weight.mT).view(x.shape)", "product(rows, weight).view(x.shape)", "by_hand"),
    Bug("bias gradient of the first row only", f"{PACKAGE}/linear.py", "dbias = rows.sum(0)", "dbias = rows[0]", "by_hand"),
    Bug("weight gradient cut into equal parts", f"{PACKAGE}/linear.py", "torch.split(dweight, sizes)", "torch.tensor_split(dweight, half)", "by_hand"),
    Bug("packed by hand in reference mode", f"{PACKAGE}/by_hand.py", "        and not is_reference()\n", "", "by_hand"),
    Bug("by hand under autocast", f"{PACKAGE}/by_hand.py", "        and not torch.is_autocast_enabled(\"cpu\")\n", "", "by_hand"),
    Bug("by hand inside torch.compile", f"{PACKAGE}/by_hand.py", "        and not torch.compiler.is_compiling()\n", "", "by_hand"),
    Bug("by hand on every device", f"{PACKAGE}/by_hand.py", "        and x.device.type == \"cpu\"\n", "", "by_hand"),
    Bug("hooks of a layer forgotten", f"{PACKAGE}/linear.py", " and not any(hooks)", "", "by_hand"),
    Bug("a layer's own forward forgotten", f"{PACKAGE}/linear.py", " and \"forward\" not in layer.__dict__", "", "by_hand"),
    Bug("GELU's slope without its 3", f"{PACKAGE}/gelu_by_hand.py", "value=3 * CUBIC", "value=CUBIC", "by_hand"),
    Bug("GELU's scale forgotten in the slope", f"{PACKAGE}/gelu_by_hand.py", "alpha=SCALE, out=slope", "out=slope", "by_hand"),
    Bug("GELU writes into the gradient it is given", f"{PACKAGE}/gelu_by_hand.py", "return torch.add(share, slope, alpha=SCALE, out=slope).mul_(gradient)", "return gradient.mul_(torch.add(share, slope, alpha=SCALE, out=slope))", "by_hand"),
    Bug("scores without 1/√d", f"{PACKAGE}/attention_products.py", "alpha=1 / math.sqrt(d_head), out=scores", "out=scores", "by_hand"),
    Bug("key gradient without 1/√d", f"{PACKAGE}/attention_products.py", "dk_part = _scaled(dscores.mT, q[:, begin:end], scale)", "dk_part = _scaled(dscores.mT, q[:, begin:end], 1.0)", "by_hand"),
    Bug("the first half's share of the keys' gradient lost", f"{PACKAGE}/attention_products.py", "                    dk[:, :end] += dk_part\n", "", "by_hand"),
    Bug("the first half replaces the values' gradient", f"{PACKAGE}/attention_products.py", "dv[:, :end] += dv_part", "dv[:, :end] = dv_part", "by_hand"),
    Bug("mask of the first half for both", f"{PACKAGE}/attention_products.py", "hidden[begin:end, :end]", "hidden[: end - begin, :end]", "by_hand"),
    Bug("the last rows of the batch left out", f"{PACKAGE}/attention_products.py", "range(0, batch, step)", "range(0, batch - batch % step or batch, step)", "by_hand"),
    Bug("items counted as if there were one head", f"{PACKAGE}/attention_products.py", "slice(begin * heads, end * heads)", "slice(begin, end)", "by_hand"),
    Bug("products for texts of any length", f"{PACKAGE}/attention_products.py", "FEWEST <= query.size(-2) <= MOST", "FEWEST <= query.size(-2)", "by_hand"),
    Bug("dropout drawn anew", f"{PACKAGE}/model.py", "preserve_rng_state=self.config.dropout > 0", "preserve_rng_state=False", "checkpoint_layers"),
    Bug("blocks recomputed while evaluating", f"{PACKAGE}/model.py", "again = self.checkpoint_layers and self.training and cache is None", "again = self.checkpoint_layers and cache is None", "checkpoint_layers"),
    Bug("recorded weights twice", f"{PACKAGE}/model.py", "if attention.is_recording() or not torch.is_grad_enabled():", "if not torch.is_grad_enabled():", "checkpoint_layers"),
    Bug("the second time is not readable", f"{PACKAGE}/model.py", "mode = reference_path if is_reference() else nullcontext", "mode = nullcontext", "checkpoint_layers"),
    Bug("the setting does not reach the model", f"{PACKAGE}/training/trainer.py", "        self.model.checkpoint_layers = settings.checkpoint_layers\n", "", "checkpoint_layers"),
]
