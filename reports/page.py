"""What the reports share: names of their files, templates, rows as CSV, software in words."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

HTML, MARKDOWN, CSV, JSON = "report.html", "report.md", "report.csv", "report.json"


def render(template: str, **values: Any) -> str:
    """Fill a page's template; a value that it needs and does not get is an error."""
    environment = Environment(
        loader=PackageLoader("reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(**values)


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return some columns of rows as CSV; what a row does not have stays empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def software(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return every package and version that rows name, in words."""
    return ", ".join(sorted({f"{name} {version}" for row in rows for name, version in row["software"].items()}))
