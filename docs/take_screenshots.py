"""Take the pictures of the report for README and docs: `python -m docs.take_screenshots demo/report.html`."""

import sys
from pathlib import Path

from tests.browser import browser

FIGURES = Path(__file__).with_name("figures")


def main(report: Path) -> None:
    """Write figures/report.png (its head) and figures/gallery.png (its samples)."""
    with browser() as page:
        page.look(1180, 640)
        page.open(report)
        page.screenshot(FIGURES / "report.png")
        page.look(1180, 700)
        page.evaluate("document.querySelector('.gallery').scrollIntoView()")
        page.screenshot(FIGURES / "gallery.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
