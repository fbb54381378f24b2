"""Text to batches: `corpora` (text) → `dataset_cache` (a cached folder of `shards`) → `loader` (batches).

Import from the modules directly: this file imports nothing, so that verbs that only list or verify never load torch.
"""
