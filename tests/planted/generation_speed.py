"""Planted bugs: the prepared step of generation, packed layers, and weights in eight bits."""

from tests.planted.bug import Bug

STEP = "tiny_transformer/sampling/decode_step.py"
PACKED = "tiny_transformer/sampling/packed.py"
QUANTIZED = "tiny_transformer/quantized.py"
NATIVE = "tiny_transformer/sampling/native.py"

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
    Bug("C forgets the stream", NATIVE, "(stream ? stream[at] : 0)", "0", "native"),
    Bug("C forgets the bias", NATIVE, "(bias ? bias[i + k] : 0)", "0", "native"),
    Bug("C leaves out the rows that are left over", NATIVE, "for (long i = 0; i < out; i += 4)", "for (long i = 0; i < out - 3; i += 4)", "native"),
    Bug("C takes columns for rows", NATIVE, "weight = weight.contiguous()", "weight = weight", "native"),
    Bug("two pools of threads", NATIVE, "    if _thread_pools() != before:", "    if False:", "native"),
]
