"""Entry point of `python -m glassgpt.evaluation.lm_eval`."""

from glassgpt.cli.lm_eval import main

main()
