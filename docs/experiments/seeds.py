"""Methods against each other over several seeds: `python -m docs.experiments.seeds EVALUATION`.

EVALUATION is the --out of `advbn-gen evaluate` on models called <method>-<seed>. Prints a Markdown table: the mean over
the seeds and their lowest and highest value, in per cent. Networks with two sets of batch norm count with the one that
the paper uses on a test set; on shards of ours, with each.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

STYLES = ("imagenet-instagram", "imagenet-sketch", "imagenet-style")
"""The test sets that shift style; their mean is a column of its own."""
STYLE_MEAN = "mean of styles"
Parts = dict[tuple[str, str, str], list[float]]
"""(method, seed, test set) -> top-1 on each of its parts, in per cent."""


def main(folder: Path) -> None:
    """Print the table."""
    parts = _parts(folder)
    _require_even(parts)
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for (method, seed, name), values in parts.items():
        found[method][seed][name] = fmean(values)
    for by_seed in found.values():
        for values_by_name in by_seed.values():
            if values_by_name.keys() >= set(STYLES):
                values_by_name[STYLE_MEAN] = fmean(values_by_name[name] for name in STYLES)
    columns = list(dict.fromkeys(name for seeds in found.values() for values in seeds.values() for name in values))
    print("| test set | " + " | ".join(found) + " |")  # noqa: T201
    print("|---|" + "---|" * len(found))  # noqa: T201
    for column in columns:
        cells = [_cell([values[column] for values in seeds.values() if column in values]) for seeds in found.values()]
        print(f"| {column} | " + " | ".join(cells) + " |")  # noqa: T201


def _parts(folder: Path) -> Parts:
    parts: Parts = defaultdict(list)
    for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["published_choice"] and not row.get("summary"):
            method, _, seed = row["model"].rpartition("-")
            shards = row["suite"] in {"advbn", "reconstructed"}
            # Of a test set with parts, their plain mean; not all severities need be there.
            data = row["suite"] if row["suite"] in {"imagenet-c", "imagenet-instagram"} else row["data"]
            parts[method, seed, f"{data}, {row['batch_norm'] or 'main'}" if shards else data].append(100 * row["top1"])
    return parts


def _require_even(parts: Parts) -> None:
    """End if models have results on different parts of a test set: their means would not be of the same images."""
    counts: dict[str, set[int]] = defaultdict(set)
    for (_, _, name), values in parts.items():
        counts[name].add(len(values))
    uneven = [name for name, numbers in counts.items() if len(numbers) > 1]
    if uneven:
        sys.exit(f"Not every model has results on the same parts of {', '.join(uneven)}; give the command again.")


def _cell(values: list[float]) -> str:
    return f"{fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})" if values else "-"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
