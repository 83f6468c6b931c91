"""`advbn-gen demo`: the whole workflow, on drawn images, or with real networks on photographs."""

from pathlib import Path

import click

from basics.errors import UserError
from commands.options import FILE, FOLDER, json_option, print_result

_DEFAULT_LIMIT = 64


@click.command(short_help="The whole workflow, offline, on drawn images or your own.")
@click.option("--pretrained", is_flag=True, help="Attack EfficientNet-Lite0 on photographs instead (extra pretrained).")
@click.option("--source", metavar="FOLDER", help="Photographs. [default: those that installed packages ship]")
@click.option("--labels", type=FILE, help="Label list or devkit of photographs in a flat ILSVRC2012 folder.")
@click.option("--limit", type=int, help=f"At most so many photographs, evenly spread. [default: {_DEFAULT_LIMIT}]")
@click.option("--out", type=FOLDER, help="Folder of all outputs. [default: demo; with --pretrained: demo-photographs]")
@json_option
def demo(  # noqa: PLR0913 (one for each option)
    *,
    pretrained: bool,
    source: str | None,
    labels: Path | None,
    limit: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Draw a world of shapes, train small networks on it, attack one of them by AdvBN, and report on two.

    Leaves the drawn images, two data sets (perturbed, and reconstructed without perturbation) and report.html, with
    tables, charts and originals beside their AdvBN versions. Takes minutes on two cores; the trained networks are kept
    in the user's cache folder.

    With --pretrained, EfficientNet-Lite0 (trained on ImageNet) is attacked on photographs, labelled or not, and Lite1
    and Lite2 see the results as well. The decoder is trained on the same photographs first.

    \b
    Examples:
      advbn-gen demo --out demo
      advbn-gen demo --pretrained --source holiday --out holiday-demo
    """
    for option, value in (("source", source), ("labels", labels), ("limit", limit)):
        if value is not None and not pretrained:
            raise UserError(f"--{option} is for photographs; give --pretrained as well.")
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}; give 1 or more.")

    out = out or Path("demo-photographs" if pretrained else "demo")
    from commands.demo_runs import attack_drawn_world, attack_photographs
    from reports.gap_page import lead
    from reports.page import HTML
    from reports.tables import accuracy_head, accuracy_lines, markdown_table

    report = attack_photographs(source, labels, limit or _DEFAULT_LIMIT, out) if pretrained else attack_drawn_world(out)
    rows = [[line.name, *map(str, line.cells)] for line in accuracy_lines(report)]
    table = markdown_table(["model", *accuracy_head()], rows)
    notes = report.get("notes", [])
    lines = [lead(report), "", *notes, *([""] if notes else []), table, "", f"report: {out / HTML}"]
    result = {
        "report": str(out / HTML), "rows": report["rows"], "gaps": report["gaps"], "notes": notes, "out": str(out),
    }  # fmt: skip
    print_result(result, lines, as_json=as_json)
