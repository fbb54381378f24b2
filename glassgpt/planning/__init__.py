"""What a user asks before a run: how large, how much memory, how long."""
