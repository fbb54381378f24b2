"""Cost estimates before a run starts: FLOPs, memory, speed."""
