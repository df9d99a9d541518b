"""Planted bugs: ONNX and GGUF files, their names, numbers, values, tokenizers and damage."""

from tests.planted.bug import Bug

_HERE = "tiny_transformer/pretrained/"

BUGS = [
    Bug("the rows of query and key not interleaved", _HERE + "gguf_names.py", '_ROTARY, LLAMA_TABLE, interleaved=True, rope_factors=True)', '_ROTARY, LLAMA_TABLE, rope_factors=True)', "gguf"),
    Bug("interleaved the same way back", _HERE + "gguf_names.py", "pairs = theirs.reshape(-1, self.d_head // 2, 2, *theirs.shape[1:])", "pairs = theirs.reshape(-1, 2, self.d_head // 2, *theirs.shape[1:])", "gguf"),
    Bug("Qwen's rows interleaved too", _HERE + "gguf_names.py", 'Architecture("qwen2", LLAMA_SIZES, {**_ROTARY, "bias": "qkv"}, LLAMA_TABLE)', 'Architecture("qwen2", LLAMA_SIZES, {**_ROTARY, "bias": "qkv"}, LLAMA_TABLE, interleaved=True)', "gguf"),
    Bug("the biases of query and key keep their order", _HERE + "gguf_names.py", 'if queries & set(r.ours[0].split("."))', 'if queries & set(r.ours[0].split(".")) and r.theirs.endswith("weight")', "gguf"),
    Bug("BERT's two norms change places", _HERE + "gguf_names.py", 'rule("blk.N.attn_output_norm.weight", "blocks.N.norm1.weight")', 'rule("blk.N.attn_output_norm.weight", "blocks.N.norm2.weight")', "gguf"),
    Bug("what an architecture can't say is written all the same", _HERE + "gguf_names.py", 'unlike = [f"{name}={value!r}" for name, value in mine.items() if theirs[name] != value]', "unlike: list[str] = []", "gguf"),
    Bug("values that are not known are passed over", _HERE + "gguf_names.py", "check(not unknown, f\"the file asks for {', '.join(unknown)[:200]}\"", "check(True, f\"the file asks for {', '.join(unknown)[:200]}\"", "gguf"),
    Bug("factors multiplied where they divide", _HERE + "gguf_file.py", "(plain / scaled).float()", "(scaled / plain).float()", "gguf"),
    Bug("a linear stretch not read", _HERE + "gguf_names.py", '(kind == "linear" or old is not None) and factor != 1', "old is not None and factor != 1", "gguf"),
    Bug("sizes in NumPy's order", _HERE + "gguf_format.py", 'struct.pack(f"<{len(shape)}Q", *shape[::-1])', 'struct.pack(f"<{len(shape)}Q", *shape)', "gguf"),
    Bug("tensors not aligned", _HERE + "gguf_format.py", "end += _padded(stored_bytes(kind, shape))", "end += stored_bytes(kind, shape)", "gguf"),
    Bug("the first tensor not aligned", _HERE + "gguf_format.py", "file.write(bytes(_padded(file.tell()) - file.tell()))", "file.write(b'')", "gguf"),
    Bug("whole numbers of lists without a sign", _HERE + "gguf_format.py", '(INT32, "<i4") if isinstance(value[0], int)', '(UINT32, "<u4") if isinstance(value[0], int)', "gguf"),
    Bug("a tensor may end behind the file", _HERE + "gguf_format.py", "self._check(end <= self.size,", "self._check(place <= self.size,", "gguf"),
    Bug("names that come twice are accepted", _HERE + "gguf_format.py", 'self._check(name not in self.values, f"the value', 'self._check(name is not None, f"the value', "gguf"),
    Bug("fractions with float64's digits", _HERE + "gguf_format.py", "return float(str(np.float32(value))) if math.isfinite(value) else value", "return float(value)", "gguf"),
    Bug("halves to even", _HERE + "gguf_numbers.py", "np.copysign(whole + (size - whole >= 0.5), scaled)", "np.rint(scaled)", "gguf"),
    Bug("a half is added before rounding down", _HERE + "gguf_numbers.py", "np.copysign(whole + (size - whole >= 0.5), scaled)", "np.copysign(np.floor(size + np.float32(0.5)), scaled)", "gguf"),
    Bug("whole numbers from the rounded scale", _HERE + "gguf_numbers.py", "inverse = np.divide(1, scales, out", 'inverse = np.divide(1, scales.astype("<f2").astype(np.float32), out', "gguf"),
    Bug("blocks of 32 across rows", _HERE + "gguf_file.py", 'own = "F16" if own == "Q8_0" and shape[-1] % BLOCK else own', "own = own", "gguf"),
    Bug("positions in few bits", _HERE + "gguf_file.py", 'own = "F32" if len(shape) == 1 or rule.theirs in FULL_PRECISION else kind', 'own = "F32" if len(shape) == 1 else kind', "gguf"),
    Bug("rows without a token are ordinary ones", _HERE + "gguf_tokenizer.py", 'rows = [tokens.get(i, (_free(f"[PAD{i}]", taken), UNUSED)) for i in range(vocab_size)]', 'rows = [tokens.get(i, (_free(f"[PAD{i}]", taken), NORMAL)) for i in range(vocab_size)]', "gguf"),
    Bug("special tokens spelled as bytes", _HERE + "gguf_tokenizer.py", "tokens = {i: (special[i], CONTROL) if i in special else (spell(token), NORMAL)", "tokens = {i: (spell(token), CONTROL) if i in special else (spell(token), NORMAL)", "gguf"),
    Bug("what the values don't say is lost", _HERE + "gguf_tokenizer.py", "    if again is None or again.to_dict() != tokenizer.to_dict():", "    if again is None:", "gguf"),
    Bug("merges by falling score", _HERE + "gguf_tokenizer.py", "(-scores[i], i, ids[piece[:cut]], (piece[:cut], piece[cut:]))", "(scores[i], i, ids[piece[:cut]], (piece[:cut], piece[cut:]))", "gguf"),
    Bug("a file's tensors under no name of ours", "tiny_transformer/pretrained/summary.py", "replace(one, ours=ours.get(one.name))", "replace(one, ours=None)", "gguf"),
    Bug("what can't be loaded is not shown", "tiny_transformer/pretrained/summary.py", '        return Summary(str(file), "tensors", _files([file]), facts, notes=[f"it can\'t be loaded: {error}"])', "        raise error", "gguf"),
    Bug("lists within lists end in a traceback", _HERE + "gguf_format.py", "        except RecursionError:", "        except ZeroDivisionError:", "gguf"),
    Bug("longer texts than the context", _HERE + "onnx_file.py", "ids = ids + self.within[torch.arange(ids.size(1))]", "ids = ids + self.within[0]", "onnx"),
    Bug("padding is what may be seen", _HERE + "onnx_file.py", "(attention_mask != 0)[:, None, :]", "(attention_mask == 0)[:, None, :]", "onnx"),
    Bug("one tensor for several inputs", _HERE + "onnx_file.py", 'torch.full_like(example, int(name == "attention_mask")) for name in names}', "example for name in names}", "onnx"),
    Bug("the fused attention, whose padded rows are not numbers", _HERE + "onnx_file.py", "with attention.record_weights():", "if True:", "onnx"),
    Bug("the model becomes float32 in its own place", _HERE + "onnx_file.py", "Exported(copy.deepcopy(model).float().cpu()).eval()", "Exported(model.float().cpu()).eval()", "onnx"),
    Bug("sizes turn into numbers when they are checked", "tiny_transformer/utils/shape_check.py", "shape = tuple(tensor.shape)", "shape = tuple(int(size) for size in tensor.shape)", "onnx"),
]
