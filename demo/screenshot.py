"""Take the README's picture of the validation report: ``python -m demo && python -m demo.screenshot``.

Needs Chromium; ``CHROMIUM`` names its command.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from demo.__main__ import OUTPUT, ROOT

PICTURE = ROOT / "docs" / "validation_report.png"
SIZE = "1000,780"  # the verdict and the table of tables


def main() -> int:
    report = ROOT / OUTPUT / "migration_data" / "validation_report.html"
    page = report.read_text(encoding="utf-8").replace(str(ROOT), "/home/anna/migration")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "report.html"
        copy.write_text(page, encoding="utf-8")
        subprocess.run(
            [
                os.environ.get("CHROMIUM", "chromium"),
                "--headless",
                "--no-sandbox",  # the page is ours, and root has no sandbox
                "--hide-scrollbars",
                "--force-device-scale-factor=0.8",
                f"--window-size={SIZE}",
                f"--screenshot={PICTURE}",
                copy.as_uri(),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
