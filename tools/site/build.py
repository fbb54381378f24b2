"""Builds the site of the documents in site/: `make docs`. Open site/index.html; no server is needed.

Any warning is an error, and so is a link that leads nowhere or a page that would load something from the network.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import build_main

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from links import check_site  # noqa: E402
from stage import Stage  # noqa: E402


def main() -> None:
    """Writes site/ anew, if all is well."""
    with tempfile.TemporaryDirectory(prefix="glassgpt-site-") as temporary:
        sources, built = Path(temporary, "sources"), Path(temporary, "site")
        Stage(ROOT, sources).write()
        shutil.copy(HERE / "conf.py", sources)
        (sources / "_static").mkdir()
        for file in ("glass.css", "vendor/stix-two-math.woff2", "vendor/LICENSE-stix-two-math"):
            shutil.copy(HERE / file, sources / "_static")
        doctrees = str(Path(temporary, "doctrees"))
        code = build_main(["-q", "-W", "--keep-going", "-b", "html", "-d", doctrees, str(sources), str(built)])
        problems = check_site(built) if code == 0 else []
        if code or problems:
            sys.exit("\n".join(problems) or code)
        shutil.rmtree(ROOT / "site", ignore_errors=True)
        shutil.copytree(built, ROOT / "site")
    print("site/index.html")


if __name__ == "__main__":
    main()
