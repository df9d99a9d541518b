"""How a model learns: batches, objectives and schedules (shared by both engines), then optimizers and the loop."""
