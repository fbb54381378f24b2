"""Health checks: of a recipe, its data and its device before a run, and of the training curves after it."""
