"""The web app of `glassgpt look`: runs, tokens and the inside of models, on this machine."""
