"""Logits to text: strategies, the one generator, beam search, and measures of what was written."""
