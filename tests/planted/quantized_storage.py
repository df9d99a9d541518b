"""Planted bugs: weights in few bits, frozen layers, their files, `tiny quantize`."""

from tests.planted.bug import Bug

STORED, NF4, LAYERS = "tiny_transformer/rounded_weights.py", "tiny_transformer/nf4.py", "tiny_transformer/quantized_layers.py"
CHECKPOINT, LOADING = "tiny_transformer/numpy_engine/checkpoint.py", "tiny_transformer/pretrained/loading.py"
STEPS, ERRORS = "tiny_transformer/cli/quantization_steps.py", "tiny_transformer/evaluation/rounding_errors.py"

BUGS = [
    Bug("the outermost quantile of 16 levels alone", STORED, "(1 - 1 / 32 + 1 - 1 / 30) / 2", "1 - 1 / 32", "nf4"),
    Bug("eight levels below zero", STORED, "0.5) * step / 7) for step in range(7, 0, -1)]", "0.5) * step / 8) for step in range(7, 0, -1)]", "nf4"),
    Bug("NumPy takes the upper four bits first", STORED, "np.stack((pairs & 15, pairs >> 4), -1)", "np.stack((pairs >> 4, pairs & 15), -1)", "nf4"),
    Bug("NumPy forgets the mean of the scales", STORED, "_spread(self.second, scales.size) + self.mean)", "_spread(self.second, scales.size))", "nf4"),
    Bug("parts are not held against each other", STORED, "        found[name].check(name)\n", "", "quantized_files"),
    Bug("a stored scale without its weight", STORED, "if name not in tensors or name not in shapes:", "if name in shapes and name not in tensors:", "quantized_files"),
    Bug("a misspelt pattern keeps nothing, silently", STORED, 'check(matches, f"keep={pattern!r}"', 'check(True, f"keep={pattern!r}"', "nf4"),
    Bug("PyTorch packs the first into the upper four bits", NF4, "even[..., ::2] | even[..., 1::2] << 4", "even[..., 1::2] | even[..., ::2] << 4", "nf4"),
    Bug("the level below instead of the nearest", NF4, "[(low + high) / 2 for low, high in pairwise(nf4_levels())]", "[high for low, high in pairwise(nf4_levels())]", "nf4"),
    Bug("places chosen before the scales are rounded", NF4, "    kept = made.float_scales()\n", "    kept = scales\n", "nf4"),
    Bug("scales rounded without taking their mean away", NF4, "quantize((scales - mean).view(1, -1), block=GROUP)", "quantize(scales.view(1, -1), block=GROUP)", "nf4"),
    Bug("one group for all scales", NF4, "quantize((scales - mean).view(1, -1), block=GROUP)", "quantize((scales - mean).view(1, -1))", "nf4"),
    Bug("rows of the wrong scales", NF4, "spread(self.float_scales()[rows].float(), self.columns)", "spread(self.float_scales()[: len(numbers)].float(), self.columns)", "nf4"),
    Bug("the gradient through the other side", LAYERS, "gradient[:, rows] @ matrix.dequantize(gradient.dtype, rows) for rows", "gradient[:, rows] @ matrix.dequantize(gradient.dtype, rows).abs() for rows", "quantized_layers"),
    Bug("only the first rows' gradient", LAYERS, "for rows in chunks(*matrix.shape))", "for rows in chunks(*matrix.shape)[:1])", "quantized_layers"),
    Bug("eight bits lose the gradient", LAYERS, "if torch.is_grad_enabled() and x.requires_grad:", "if False:", "quantized_layers"),
    Bug("the frozen bias learns", LAYERS, "requires_grad=False)", "requires_grad=True)", "quantized_layers"),
    Bug("the bias lost", LAYERS, "return y if self.bias is None else y + self.bias", "return y", "quantized_layers"),
    Bug("the whole matrix is unpacked at once", LAYERS, "        for rows in chunks(out, columns):\n", "        for rows in [slice(0, out)]:\n", "quantized_layers"),
    Bug("a float copy stays in the layer", LAYERS, '        self.bias = None if bias is None else nn.Parameter(bias.detach()', '        self.register_buffer("whole", matrix.dequantize(), persistent=False)\n        self.bias = None if bias is None else nn.Parameter(bias.detach()', "quantized_layers"),
    Bug("double is not passed on", LAYERS, "rounding.block or BLOCK, double=rounding.double)", "rounding.block or BLOCK)", "quantized_layers quantized_files"),
    Bug("patterns are not looked at", STORED, "if not any(fnmatchcase(name, pattern) for pattern in self.keep)]", "]", "nf4 quantized_files"),
    Bug("weights that do not fit are taken", LAYERS, "    check_weights({name: tuple(tensor.shape) for", "    dict({name: tuple(tensor.shape) for", "quantized_layers"),
    Bug("the digest leaves a part out", CHECKPOINT, "for name in sorted(weights):", "for name in sorted(weights)[1:]:", "quantized_files numpy_training"),
    Bug("always as numbers", CHECKPOINT, "return found if QUANTIZED in found.lineage else", "return found if not found.lineage else", "quantized_files"),
    Bug("rounded from bfloat16", LOADING, "desk[: part.size].view(shapes[ours]) if ours in exact else torch.empty(shapes[ours], dtype=dtype)", "torch.empty(shapes[ours], dtype=dtype)", "quantized_files"),
    Bug("tensors kept longer than they are there", LOADING, "round_each(tensors(source, dtype, names), names,", "round_each(list(tensors(source, dtype, names)), names,", "quantized_files"),
    Bug("opened as numbers", "tiny_transformer/run.py", "found = numpy_checkpoints.load_packed(file)", "found = numpy_checkpoints.load(file)", "quantized_memory"),
    Bug("the rounded model measured twice", STEPS, "before = None if ids is None else sums_in_windows(found.whole(), ids)", "before = None if ids is None else sums_in_windows(__import__('tiny_transformer.quantized_layers').quantized_layers.quantize_model(found.whole(), rounding), ids)", "quantized_files"),
    Bug("the difference of two means, its error too", STEPS, "mean_of_clusters(after[0] - before[0], before[1])", "mean_of_clusters(after[0] - before[0].mean(), before[1])", "quantized_files"),
    Bug("rounded twice", STEPS, "    check(not done, ", "    check(True, ", "quantized_files"),
    Bug("losses on the training text", "tiny_transformer/cli/texts.py", "else read(data)[0].val", "else read(data)[0].train", "quantized_files"),
    Bug("lineage lost", STEPS, "lineage={**found.lineage, QUANTIZED: about}", "lineage={QUANTIZED: about}", "quantized_files"),
    Bug("the error beside what is left of the weight", ERRORS, "sums.size += float(was.square().sum())", "sums.size += float((was - error).square().sum())", "quantized_files"),
    Bug("the largest error of the last rows", ERRORS, "sums.largest = max(sums.largest, float(error.abs().max()))", "sums.largest = float(error.abs().max())", "quantized_files"),
    Bug("holes stay", "tiny_transformer/utils/given_back.py", "        trim(0)\n", "        pass\n", "given_back"),
    Bug("another C library is an error", "tiny_transformer/utils/given_back.py", "    if trim is not None:\n", "    if True:\n", "given_back"),
    Bug("holes are left between rounded weights", LAYERS, "        give_back()\n", "", "given_back"),
    Bug("a block of nothing", "tiny_transformer/quantized.py", 'check(block >= 1, f"block={block}"', 'check(True, f"block={block}"', "quantized nf4"),
]
