"""Estimates made before anything runs: FLOPs, memory, speed."""
