"""`advbn-gen abnn table`, also `report abnn`: accuracy under attack and cost of training, beside the published ones."""

from pathlib import Path

import click

from commands.options import FILE, FOLDER, json_option, print_result


@click.command(short_help="Accuracy under attack, cost of training (ABNN Tables 1 to 3).")
@click.argument("results", metavar="RESULTS...", nargs=-1, required=True, type=FILE)
@click.option("--out", type=FOLDER, help="Folder of the report. [default: tables on stdout only]")
@json_option
def table(results: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Tabulate the results of `abnn attack` beside the paper's Tables 1 to 3; no network runs.

    RESULTS are run folders, folders of results or their files, from one machine or several. With --out, the report is
    written there as report.html (one file, no network; with some attacked clips, if there are any), report.md,
    report.csv and report.json. `abnn table` and `report abnn` are the same command.

    \b
    Examples:
      advbn-gen abnn table runs/none-0 runs/abnn-0 runs/pgd-at-0
      advbn-gen report abnn runs/none-0 runs/abnn-0 runs/pgd-at-0 --out abnn-tables
    """
    from reports.abnn import abnn_report
    from reports.abnn_page import abnn_markdown, write_abnn_report
    from reports.abnn_results import read_abnn_results, read_kept_clips
    from reports.abnn_tables import accuracy_sentences, accuracy_tables
    from reports.page import HTML
    from reports.tables import markdown_parts

    rows = read_abnn_results(results)
    if out is None:
        found = abnn_report(rows)
        print_result({"rows": found["rows"]}, [abnn_markdown(found)], as_json=as_json)
    else:
        found = write_abnn_report(out, rows, read_kept_clips(results, rows))
        tables = [part for each in accuracy_tables(found) for part in markdown_parts(each)]
        text = ["\n\n".join(["\n".join(accuracy_sentences(found)), *tables, f"report: {out / HTML}"])]
        print_result({"report": str(out / HTML), "rows": found["rows"]}, text, as_json=as_json)
