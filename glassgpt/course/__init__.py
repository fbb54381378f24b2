"""The climb of the ladder: ten sections, trained on the same tokens."""
