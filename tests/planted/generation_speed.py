"""Planted bugs: the prepared step of generation, packed layers, and weights in eight bits."""

from tests.planted.bug import Bug

STEP = "tiny_transformer/sampling/decode_step.py"
PACKED = "tiny_transformer/sampling/packed.py"
QUANTIZED = "tiny_transformer/quantized.py"
NATIVE = "tiny_transformer/sampling/native.py"
WHOLE = "tiny_transformer/sampling/native_step.py"
C = "tiny_transformer/sampling/whole_step.c"

BUGS = [
    Bug("window one too wide", STEP, "max(0, n - config.window)", "max(0, n - config.window - 1)", "decode_step"),
    Bug("padding forgotten", STEP, "mask = self.cache.mask(1)  #", "mask = None  #", "decode_step"),
    Bug("ALiBi forgets the padding", STEP, "mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)", "mask = bias", "decode_step"),
    Bug("positions ignore the padding", STEP, "if self.cache.padding is None else self.cache.positions(1)", "if True else self.cache.positions(1)", "decode_step"),
    Bug("keys are not turned", STEP, "embeddings.rotate(query, *place.rotation), embeddings.rotate(key, *place.rotation)", "embeddings.rotate(query, *place.rotation), key", "decode_step"),
    Bug("QK-norm after the rotation's place, for queries only", STEP, "self.q_norm(query), self.k_norm(key)", "self.q_norm(query), key", "decode_step"),
    Bug("query heads grouped the wrong way round", STEP, "query = query.reshape(rows, config.kv_heads, -1, config.head_width)", "query = query.reshape(rows, -1, config.kv_heads, config.head_width).transpose(1, 2)", "decode_step"),
    Bug("post-norm treated as pre-norm", STEP, "        if self.pre:\n", "        if True:\n", "decode_step"),
    Bug("post-norm's second norm forgotten", STEP, "return self.norm2(self.down(self.bend(x), x))", "return self.down(self.bend(x), x)", "decode_step"),
    Bug("gate without its activation", STEP, "prepare([feedforward.gate], rows, bend)", "prepare([feedforward.gate], rows)", "decode_step"),
    Bug("last norm forgotten", STEP, "self.model.unembed(self.model.norm(x))", "self.model.unembed(x)", "decode_step"),
    Bug("hooks are passed over", STEP, "bool(module._forward_hooks or module._forward_pre_hooks)", "bool(module._forward_hooks)", "decode_step"),
    Bug("replaced layers are passed over", STEP, "type(module) in KNOWN and not", "not", "decode_step"),
    Bug("recordings are passed over", STEP, "return is_reference() or is_recording()", "return is_reference()", "decode_step"),
    Bug("stream not added", PACKED, 'linear(x, stream, weight, bias, "add")', 'linear(x, stream * 0, weight, bias, "add")', "decode_step"),
    Bug("rounded stream not added", PACKED, "lambda x, stream: stream + forward(x)", "lambda x, stream: forward(x)", "decode_step"),
    Bug("joined layers lose their biases", PACKED, "    bias = torch.cat(biases) if biases else None\n", "    bias = None\n", "decode_step"),
    Bug("GELU's tanh form for both", PACKED, '"gelu": ("gelu", "none")', '"gelu": ("gelu", "tanh")', "decode_step"),
    Bug("activations oneDNN lacks are left out", PACKED, "return forward if bend is None else lambda x: bend(forward(x))", "return forward", "decode_step"),
    Bug("one scale for the whole matrix", QUANTIZED, "grouped.abs().amax(-1) / largest)", "grouped.abs().amax(-1).max().expand(grouped.shape[:2]).contiguous() / largest)", "quantized"),
    Bug("rounded towards zero", QUANTIZED, ".round().clamp(-largest, largest)", ".trunc().clamp(-largest, largest)", "quantized"),
    Bug("scales cut instead of rounded up", QUANTIZED, "((x.view(torch.int32) + 0xFFFF) & ~0xFFFF)", "(x.view(torch.int32) & ~0xFFFF)", "quantized"),
    Bug("scales not rounded at all", QUANTIZED, "return ((x.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)", "return x", "quantized"),
    Bug("groups share the first one's scale", QUANTIZED, "(grouped * quantized.scales[..., None])", "(grouped * quantized.scales[:, :1, None])", "quantized"),
    Bug("bias lost in the kernel's product", QUANTIZED, "return y.float() if bias is None else bias + y", "return y.float()", "quantized decode_step"),
    Bug("numbers at an odd place in memory", QUANTIZED, "if fast and (values.data_ptr() % STEP or not values.is_contiguous()):", "if fast and not values.is_contiguous():", "quantized"),
    Bug("only the top layers of a block are rounded", QUANTIZED, "for parent in list(small.modules()):", "for parent in list(small.modules())[:-8]:", "quantized"),
    Bug("the model itself is rounded", QUANTIZED, "small = copy.deepcopy(model).eval()", "small = model.eval()", "quantized"),
    Bug("C forgets the stream", C, "to[c] = sum[c] + (from ? from[c] : 0)", "to[c] = sum[c]", "native"),
    Bug("C forgets the bias", C, "if (m->bias)", "if (0)", "native"),
    Bug("C forgets the scales", C, "if (m->scales)", "if (0)", "native"),
    Bug("a block that is not full is left out", C, "*end = bundles * (me + 1) / threads * unit;", "*end = all / unit * (me + 1) / threads * unit;", "native"),
    Bug("joined matrices begin a block of their own", C, "type *place = to + block * width * in + o % width;", "type *place = to + block * width * in + (o - first) % width;", "native"),
    Bug("C's GELU takes the tanh form", C, "0.5f * y[i] * (1.0f + error_function(y[i] * 0.70710678f))", "y[i] * sigmoid(1.702f * y[i])", "native"),
    Bug("C's activations swallow NaN", C, "y[i] = y[i] < 0 ? 0 : y[i] * y[i];", "y[i] = y[i] > 0 ? y[i] * y[i] : 0;", "native"),
    Bug("C's window one too wide", C, "start = here + 1 - m->window;", "start = here - m->window;", "native"),
    Bug("C's ALiBi counts from the first column", C, "slope * (float)(count - 1 - j)", "slope * (float)j", "native"),
    Bug("C turns keys by their columns", C, "if (m->cosines) rotate(m, key, here - padding);", "if (m->cosines) rotate(m, key, here);", "decode_step"),
    Bug("guesses do not see each other", C, "here + 1 - start, d, m->slopes", "column + 1 - start, d, m->slopes", "native"),
    Bug("C forgets the k norm", C, "if (block->k_norm.kind) normalise", "if (0) normalise", "native"),
    Bug("C's post-norm keeps the stream before its norm", C, "n, middle, normed, me", "n, middle, middle, me", "native"),
    Bug("C reads beyond the vocabulary", C, "if (ids[i] < 0 || ids[i] >= m->vocab) return 1;", "if (ids[i] < 0) return 1;", "native"),
    Bug("C forgets the soft cap's width", C, "sigmoid(2.0f * logits[j] / m->softcap)", "sigmoid(2.0f * logits[j])", "native"),
    Bug("C scales queries by the model's width", C, "1.0f / sqrtf((float)d)", "1.0f / sqrtf((float)m->d_model)", "native"),
    Bug("a layer's cache is not told", WHOLE, "layer.length += n if cache.batch_size == 1 else 1", "layer.length += 1", "native"),
    Bug("tokens that do not fit are written", WHOLE, "> cache.max_len or (n", "> cache.max_len + 99 or (n", "native"),
    Bug("sinusoidal tokens are not scaled", WHOLE, "math.sqrt(config.d_model) if sinusoidal else 1.0", "1.0", "native"),
    Bug("angles beyond the table", WHOLE, "cache.max_len <= len(table)", "True", "native"),
    Bug("weights that lie apart are read as they lie", WHOLE, "matrix.detach().contiguous()\n", "matrix.detach()\n", "native"),
    Bug("a copy is gone before it is read", WHOLE, "pack(dense.data_ptr(), packed", "pack(matrix.detach().contiguous().data_ptr(), packed", "native"),
    Bug("the parts of a token one too late", WHOLE, "PARTS[index % len(PARTS)]", "PARTS[(index + 1) % len(PARTS)]", "native part_times"),
    Bug("C listens on after the profile", STEP, "                self.native.listener = None", "                pass", "part_times"),
    Bug("guesses are read the slow way", "tiny_transformer/sampling/rewinding.py", "kept > 0 and new.size(1)", "kept < 0 and new.size(1)", "speculative"),
    Bug("a new cache keeps the old one's step", "tiny_transformer/sampling/rewinding.py", "            self._step = native_step(self.model, self._cache) if self._prepared else None\n", "", "speculative"),
    Bug("two pools of threads", NATIVE, "return found if _thread_pools() == before else None", "return found", "native"),
    Bug("NumPy picks without the penalty", "tiny_transformer/sampling/strategies.py", "before = None if previous_ids is None else previous_ids.numpy()", "before = None", "generator sampling"),
]
