"""Where it runs: the device, the ranks of a job, and how they share a model."""
