"""`python -m glassgpt.evaluation.lm_eval`: hands over to the command line."""

from glassgpt.cli.lm_eval import main

main()
