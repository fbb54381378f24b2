"""Is everything in order? Short checks of a recipe, its text and its device before a run, and of the curve after it."""
