"""`python -m glassgpt` is the same as `glassgpt`."""

from __future__ import annotations

from glassgpt.cli.main import main

if __name__ == "__main__":
    main()
