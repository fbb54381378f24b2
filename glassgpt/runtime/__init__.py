"""The execution environment: the device, the ranks of a job, and parallel training."""
