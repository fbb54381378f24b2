"""ids → logits. Every architecture by the name a config gives it."""
