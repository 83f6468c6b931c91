"""`advbn-gen abnn table`: accuracies under attack and costs of training, beside the published ones."""

from pathlib import Path

import click

from commands.options import FILE, FOLDER, json_option, print_result


@click.command(short_help="Tables 1 to 3: accuracy under attack, cost of training.")
@click.argument("results", metavar="RESULTS...", nargs=-1, required=True, type=FILE)
@click.option("--out", type=FOLDER, help="Folder of the report. [default: tables on stdout only]")
@json_option
def table(results: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Tabulate what `abnn attack` found, beside the paper's Tables 1 to 3; no network runs.

    RESULTS are run folders, folders of results or their files, from one machine or several. With --out, the report is
    left there as report.html (one file, no network), report.md, report.csv and report.json.

    \b
    Example:
      advbn-gen abnn table runs/none-0 runs/abnn-0 runs/pgd-at-0 --out abnn-tables
    """
    from reports.abnn import abnn_report
    from reports.abnn_page import abnn_markdown, write_abnn_report
    from reports.abnn_results import read_abnn_results
    from reports.abnn_tables import accuracy_tables, strongest_words
    from reports.page import HTML
    from reports.tables import markdown_parts

    rows = read_abnn_results(results)
    if out is None:
        found = abnn_report(rows)
        print_result({"rows": found["rows"]}, [abnn_markdown(found)], as_json=as_json)
    else:
        found = write_abnn_report(out, rows)
        tables = [part for each in accuracy_tables(found) for part in markdown_parts(each)]
        told = ["\n\n".join(["\n".join(strongest_words(found)), *tables, f"report: {out / HTML}"])]
        print_result({"report": str(out / HTML), "rows": found["rows"]}, told, as_json=as_json)
