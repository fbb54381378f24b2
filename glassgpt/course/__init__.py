"""Trains the ten sections of the ladder on the same tokens."""
