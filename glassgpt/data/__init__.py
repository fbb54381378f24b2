"""Text to batches: `corpora` (text) → `dataset_cache` (a cached folder of `shards`) → `loader` (batches).

Import from the modules themselves; this file stays empty so that verbs which only list or verify never load torch.
"""
