"""The numbers of a report on accuracy under attack: read back, set beside the paper's, taken together or not."""

import json
from pathlib import Path
from typing import Any

import pytest

from basics.errors import UserError
from reports.abnn import abnn_report, accuracies_of
from reports.abnn_results import read_abnn_results
from reports.abnn_tables import abnn_notes, abnn_tables, accuracy_sentences
from reports.tables import Table
from tests.reports.attacked_rows import PGD, ROA, STRONG, line, table_1, table_2, written

Z = 1.959963984540054
"""Of a normal distribution, 95% lie within so many standard deviations."""


def report_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return abnn_report(rows)


def row_of(report: dict[str, Any], model: str, attack: str) -> dict[str, Any]:
    (row,) = (row for row in report["rows"] if (row["model"], row["attack"]) == (model, attack))
    found: dict[str, Any] = row
    return found


def table_of(report: dict[str, Any], title: str) -> Table:
    (table,) = (table for table in abnn_tables(report) if title in table.title)
    return table


def cells(report: dict[str, Any], title: str) -> dict[str, list[str]]:
    return {line.name: [str(cell) for cell in line.cells] for line in table_of(report, title).lines}


class TestReading:
    @pytest.mark.parametrize("name", ["results.jsonl", "attacks/results.jsonl", "named.jsonl"])
    def test_every_file_name_is_read(self, tmp_path: Path, name: str) -> None:
        path = written(tmp_path / "run" / name, table_1())
        assert read_abnn_results([path]) == table_1()
        if name != "named.jsonl":
            assert read_abnn_results([tmp_path / "run"]) == table_1()

    def test_json_with_rows_and_a_report_of_ours_are_read(self, tmp_path: Path) -> None:
        path = tmp_path / "found.json"
        path.write_text(json.dumps({"rows": table_1()}, indent=1))
        assert read_abnn_results([path]) == table_1()
        report = report_of([*table_1(), *table_2()])
        path.write_text(json.dumps(report))
        assert report_of(read_abnn_results([path])) == report

    def test_one_line_is_no_json_with_rows(self, tmp_path: Path) -> None:
        assert len(read_abnn_results([written(tmp_path / "one.jsonl", table_1()[:1])])) == 1

    def test_the_same_line_counts_once_and_costs_are_completed(self, tmp_path: Path) -> None:
        bare = [{**row, "cost": None, "seconds": 1.0} for row in table_1()]
        paths = [written(tmp_path / name, rows) for name, rows in (("a", bare), ("b", table_1()[:5]), ("c", table_1()))]
        assert read_abnn_results([*paths, paths[0]]) == [{**row, "seconds": 1.0} for row in table_1()]

    @pytest.mark.parametrize(
        "content",
        ["", "{}", "[]", "no json", '{"rows": []}', '{"rows": 3}', '{"rows": [3]}', '"rows"', "\x00", "null",
         '{"model": "m", "data": "d", "n": 1, "top1": 1, "top5": 1}'],
    )  # fmt: skip
    def test_other_files_are_refused(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "results.jsonl").write_text(content)
        with pytest.raises(UserError, match="`advbn-gen abnn attack`"):
            read_abnn_results([tmp_path])

    def test_bytes_that_are_no_text_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "results.jsonl").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UserError, match="does not hold results"):
            read_abnn_results([tmp_path])

    def test_a_file_cut_short_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path / "results.jsonl", table_1())
        path.write_text(path.read_text()[:-100])
        with pytest.raises(UserError, match="does not hold results"):
            read_abnn_results([path])

    def test_places_without_results_are_refused(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(UserError, match="There are no results"):
                read_abnn_results([path])

    @pytest.mark.parametrize(
        "changed",
        [{"accuracy": 1.2}, {"accuracy": "high"}, {"accuracy": float("nan")}, {"n": 0}, {"n": True}, {"n": 10**400},
         {"seed": 0.5}, {"width": 0}, {"settings": None}, {"settings": {"eps": float("inf")}}, {"model": ""},
         {"cost": {"passes": "3N"}}, {"cost": {"passes": 3, "flops_step": 1, "flops_plain_step": 0}}, {"cost": 3},
         {"software": "torch"}, {"attack": None}],
    )  # fmt: skip
    def test_lines_of_another_form_are_refused(self, tmp_path: Path, changed: dict[str, Any]) -> None:
        row = line("clean", 0.5)
        (tmp_path / "results.jsonl").write_text(json.dumps({**row, **changed}))
        with pytest.raises(UserError, match=r"holds no complete results|does not hold results"):
            read_abnn_results([tmp_path])
        bare = {name: value for name, value in row.items() if name not in changed}
        if "cost" not in changed:
            (tmp_path / "results.jsonl").write_text(json.dumps(bare))
            with pytest.raises(UserError, match="does not hold results"):
                read_abnn_results([tmp_path])

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"weights_sha256": "other"}, "abnn-0 under pgd-5 is in these results with different weights"),
            ({"data_sha256": "other"}, "different test samples"),
            ({"settings": {**PGD, "steps": 6}}, "different settings"),
            ({"accuracy": 0.5}, "different accuracies"),
            ({"attack": "clean", "settings": {}, "weights_sha256": "other"}, "Two different models are called abnn-0"),
            ({"attack": "clean", "settings": {}, "width": 0.5}, "Two different models are called abnn-0"),
            (
                {"attack": "clean", "settings": {}, "cost": {"passes": 12.0}},
                "abnn-0 has two different costs",
            ),
            (
                {"model": "other", "weights_sha256": "w", "data_sha256": "other"},
                r"under pgd-5 \(cifar10\) on different test samples",
            ),
            ({"model": "other", "weights_sha256": "w", "n": 100}, "on different test samples"),
            (
                {"model": "other", "weights_sha256": "w", "settings": {**PGD, "eps": 4 / 255}},
                r"under pgd-5 \(cifar10\) with different strength",
            ),
        ],
    )
    def test_results_that_cannot_be_compared_are_refused(
        self, tmp_path: Path, changed: dict[str, Any], message: str
    ) -> None:
        row = line("pgd-5", 0.4)
        paths = [written(tmp_path / "1", [row]), written(tmp_path / "2", [{**row, **changed}])]
        with pytest.raises(UserError, match=message):
            read_abnn_results(paths)

    def test_the_same_attack_on_other_tasks_is_another_column(self, tmp_path: Path) -> None:
        assert len(read_abnn_results([written(tmp_path / "r", [*table_1(), *table_2()])])) == 18


class TestNumbers:
    def test_intervals_are_wilsons(self) -> None:
        row = row_of(report_of(table_1()), "abnn-0", "pgd-5")
        share, count = 0.3, 200
        centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
        half = Z / (1 + Z**2 / count) * (share * (1 - share) / count + Z**2 / (4 * count**2)) ** 0.5
        assert row["accuracy"] == 0.3
        assert row["accuracy_low"] == pytest.approx(centre - half, abs=1e-9)
        assert row["accuracy_high"] == pytest.approx(centre + half, abs=1e-9)

    def test_costs_are_in_passes_of_which_a_plain_step_has_two(self) -> None:
        report = report_of(table_1())
        found = {
            defence: [
                row_of(report, f"{defence}-0", "clean")[f"cost_{kind}"] for kind in ("formula", "measured", "time")
            ]
            for defence in ("none", "pgd-at", "abnn")
        }
        # 2 * 5e11 / 4e11 and 2 * 0.4 / 0.25 for ABNN; 2 * 2.4e12 / 4e11 and 2 * 1.25 / 0.25 for PGD-AT
        assert found == {"none": [2, 2, 2], "pgd-at": [12, 12, 10], "abnn": [3, 2.5, 3.2]}

    def test_a_cost_is_every_line_of_its_model(self) -> None:
        report = report_of([line("clean", 0.9, cost=None), line("pgd-5", 0.4), line("clean", 0.8, seed=1, cost=None)])
        assert row_of(report, "abnn-0", "clean")["cost_formula"] == 3
        assert row_of(report, "abnn-1", "clean")["cost_formula"] is None
        half = report_of([line("clean", 0.9, cost={"passes": 3.0, "flops_step": None})])
        assert row_of(half, "abnn-0", "clean")["cost_measured"] is None
        assert cells(half, "Cost")["CIFAR-10: ABNN (resnet18, width 0.25)"] == ["1.5", "1.5", "-", "-", "-"]

    def test_means_are_over_seeds(self) -> None:
        means = {mean["attack"]: mean for mean in report_of(table_1())["means"]}
        assert {mean["method"] for mean in means.values()} == {"abnn"}
        found = {
            attack: [mean["accuracy"], mean["accuracy_lowest"], mean["accuracy_highest"]]
            for attack, mean in means.items()
        }
        assert found == {
            "clean": [pytest.approx(0.86), 0.85, 0.87],
            "pgd-5": [pytest.approx(0.35), 0.3, 0.4],
            "worst": [pytest.approx(0.02), 0.0, 0.05],
        }
        assert means["clean"]["models"] == ["abnn-0", "abnn-1", "abnn-2"]

    @pytest.mark.parametrize(
        "changed",
        [{"seed": 0}, {"seed": None}, {"weights_sha256": "abnn0".ljust(64, "0")}, {"width": 0.5}, {"arch": "resnet34"},
         {"cost": None}],
    )  # fmt: skip
    def test_models_that_differ_in_more_than_the_seed_have_no_mean(self, changed: dict[str, Any]) -> None:
        alike = [line("clean", 0.9, seed=0), line("clean", 0.8, seed=1)]
        assert report_of(alike)["means"]
        report = report_of([alike[0], {**alike[1], **changed}])
        assert not report["means"]
        shared = any("share a seed or their weights" in note for note in abnn_notes(report))
        assert shared is bool(changed.keys() & {"seed", "weights_sha256"})

    def test_attacks_with_other_settings_have_no_mean(self) -> None:
        def report_with_two(name: str) -> dict[str, Any]:
            settings = [{**PGD, name: value} for value in ("a", "b")]
            return report_of([line("transfer", 0.5, seed=seed, settings=settings[seed]) for seed in (0, 1)])

        assert report_with_two("twin_sha256")["means"]
        assert not report_with_two("step_size")["means"]
        assert abnn_notes(report_with_two("step_size")) == [
            "CIFAR-10: transfer does not have the same settings for every model; see the table of settings."
        ]


class TestPublished:
    def test_the_papers_numbers_stand_beside_its_attacks(self) -> None:
        report = report_of([*table_1(), line("pgd-50x5", 0.1)])
        found = {(row["model"], row["attack"]): row["published"] for row in report["rows"]}
        assert found["none-0", "clean"] == 0.934
        assert found["none-0", "pgd-5"] == 0.0
        assert found["pgd-at-0", "pgd-5"] == 0.516
        assert found["abnn-2", "clean"] == 0.875
        assert found["abnn-0", "pgd-5"] == 0.315
        assert found["abnn-0", "worst"] is None
        assert found["abnn-0", "pgd-50x5"] is None
        assert not any(row["published_same_setting"] for row in report["rows"])

    def test_clips_have_tables_2_and_3(self) -> None:
        report = report_of(table_2())
        assert [row["published"] for row in report["rows"]] == [0.683, 0.434, 0.244]
        assert all(row["published_same_setting"] for row in report["rows"])
        assert "published: ABNN" in cells(report, "UCF-101")
        assert "published: ABNN, in another setting" in cells(report_of(table_2(width=0.5)), "UCF-101")
        settings = table_of(report, "Settings of the attacks")
        (pgd,) = (dict(zip(settings.head, map(str, line.cells), strict=True)) for line in settings.lines[1:2])
        assert (pgd["eps"], pgd["step size"]) == ("1/255", "0.25/255")

    @pytest.mark.parametrize(
        ("size", "same"),
        [((40, 112), True), ((16, 112), False), ((40, 64), False)],
    )
    def test_fewer_or_smaller_frames_are_another_setting(self, size: tuple[int, int], same: bool) -> None:
        rows = report_of(table_2(frames=size[0], image_size=size[1]))["rows"]
        assert {row["published_same_setting"] for row in rows} == {same}

    def test_cut_and_repaired_gradients_stand_side_by_side(self) -> None:
        cut = "pgd-5 (cut shortcut)"
        rows = [
            {**row, "attack": cut, "accuracy": 0.6, "settings": {**row["settings"], "cut_shortcut": True}}
            for row in table_2()
            if row["attack"] == "pgd-5"
        ]
        report = report_of([*table_2(), *rows])
        assert report["attacks"]["ucf101"] == ["clean", "pgd-5", cut, "roa"]
        table = cells(report, "UCF-101")
        assert [cell.split(" ")[0] for cell in table["ABNN: clips"][:4]] == ["70.0", "40.0", "60.0", "25.0"]
        assert table["published: ABNN"][:4] == ["68.3", "43.4", "43.4", "24.4"]
        settings = table_of(report, "Settings of the attacks")
        assert "cut shortcut" in settings.head
        (note,) = abnn_notes(report)
        assert note.startswith(f"UCF-101: under {cut} gradients are cut in shortcuts without weights")

    def test_adversarial_training_on_clips_has_no_published_line(self) -> None:
        cost = {"passes": 12.0}
        rows = [
            {**row, "defence": "pgd-at", "model": "at", "weights_sha256": "a" * 64, "cost": cost} for row in table_2()
        ]
        report = report_of(rows)
        assert [row["published"] for row in report["rows"]] == [None] * 3
        table = cells(report, "UCF-101")
        assert table["PGD-AT: at"][3:] == ["12N", "-", "-"]
        assert not [name for name in table if name.startswith("published: PGD-AT")]
        (costs,) = cells(report, "Cost of a training step").values()
        assert costs[:2] == ["-", "6"]

    def test_oudefend_costs_what_the_paper_says(self) -> None:
        cost = {"passes": 24.0}
        report = report_of([{**row, "defence": "oudefend", "model": "ou", "cost": cost} for row in table_2()])
        assert [row["published"] for row in report["rows"]] == [0.62, 0.586, 0.136]
        assert all(row["published_same_setting"] for row in report["rows"])
        assert cells(report, "UCF-101")["OUDefend: ou"][3] == "24N"
        (costs,) = cells(report, "Cost of a training step").values()
        assert costs[:2] == ["12", "12"]

    @pytest.mark.parametrize(
        "settings",
        [{}, {**PGD, "eps": 4 / 255}, {**PGD, "norm": "l2"}, {**PGD, "steps": 7}, {**PGD, "restarts": 2},
         {**PGD, "eps": "8/255"}],
    )  # fmt: skip
    def test_other_attacks_are_not_the_papers(self, settings: dict[str, Any]) -> None:
        row = row_of(report_of([line("pgd-5", 0.4, settings=settings)]), "abnn-0", "pgd-5")
        assert (row["published"], row["published_attack"], row["published_same_setting"]) == (None, None, False)

    def test_step_sizes_and_starts_are_nobodys(self) -> None:
        settings = {**PGD, "step_size": 1 / 255, "random_start": False}
        assert row_of(report_of([line("pgd-5", 0.4, settings=settings)]), "abnn-0", "pgd-5")["published"] == 0.315

    @pytest.mark.parametrize(
        ("settings", "same"),
        [
            ({"height": 35, "width": 35}, True),
            ({"height": 56, "width": 56}, False),
            ({"area": 0.2}, False),
            ({"steps": 50}, False),
            ({"search": "exhaustive"}, False),
            ({"per_frame": False}, False),
        ],
    )
    def test_a_tenth_of_the_frame_is_the_papers_rectangle(self, settings: dict[str, Any], same: bool) -> None:
        rows = [{**row, "settings": {**ROA, **settings}} for row in table_2() if row["attack"] == "roa"]
        assert report_of(rows)["rows"][0]["published"] == (0.244 if same else None)

    def test_the_paper_has_no_rectangles_on_images_and_no_other_tasks(self) -> None:
        report = report_of([line("roa", 0.1), line("clean", 0.9, model="x", task="drawn", weights_sha256="x")])
        assert [row["published"] for row in report["rows"]] == [None, None]
        assert list(cells(report, "drawn")) == ["ABNN: x"]

    @pytest.mark.parametrize(
        ("changed", "same"),
        [({}, True), ({"n": 1000}, False), ({"width": 0.25}, False), ({"arch": "resnet34"}, False)],
    )
    def test_the_setting_is_network_width_and_test_set(self, changed: dict[str, Any], same: bool) -> None:
        report = report_of([line("clean", 0.875, **{"width": 1.0, "n": 10_000, **changed})])
        assert report["rows"][0]["published_same_setting"] is same

    def test_training_with_fewer_steps_is_another_setting(self) -> None:
        cost = {"passes": 6.0}
        report = report_of([line("clean", 0.8, defence="pgd-at", width=1.0, n=10_000, cost=cost)])
        assert report["rows"][0]["published_same_setting"] is False


class TestTables:
    def test_lines_are_models_means_and_the_paper(self) -> None:
        report = report_of([*table_1(), line("pgd-50x5", 0.1), line("pgd-50x5", 0.2, seed=1)])
        table = cells(report, "CIFAR-10 (Table 1)")
        assert list(table) == [
            "no defence: none-0",
            "published: no defence, in another setting",
            "PGD-AT: pgd-at-0",
            "published: PGD-AT, in another setting",
            "ABNN: abnn-0",
            "ABNN: abnn-1",
            "ABNN: abnn-2",
            "ABNN: mean of 3 seeds (resnet18, width 0.25)",
            "published: ABNN, in another setting",
        ]
        assert table_of(report, "CIFAR-10").head == [
            "clean (n = 200)", "pgd-5 (n = 200)", "pgd-50x5 (n = 200)", "worst (n = 200)",
            "cost, formula", "cost by FLOPs", "cost by time",
        ]  # fmt: skip
        assert table["ABNN: abnn-0"][0].startswith("85.0 [79.")
        assert table["ABNN: abnn-0"][4:] == ["3N", "2.5N", "3.2N"]
        assert table["PGD-AT: pgd-at-0"][2] == "-"
        assert table["ABNN: mean of 3 seeds (resnet18, width 0.25)"] == [
            "86.0 (85.0 to 87.0)", "35.0 (30.0 to 40.0)", "15.0 (10.0 to 20.0; 2 seeds)", "2.0 (0.0 to 5.0)",
            "3N", "2.5N", "3.2N",
        ]  # fmt: skip
        assert table["published: ABNN, in another setting"] == ["87.5", "31.5", "-", "-", "3N", "-", "-"]

    def test_all_of_the_papers_methods_are_there(self) -> None:
        table = cells(report_of(table_2()), "UCF-101 (Tables 2 and 3)")
        assert table["published: no defence"] == ["93.0", "0.0", "7.0", "2N", "-", "-"]
        assert table["published: OUDefend"] == ["62.0", "58.6", "13.6", "24N", "-", "-"]

    def test_costs_stand_beside_the_formula(self) -> None:
        rows = table_1()
        for row in rows:
            if row["model"] == "abnn-1":
                row["cost"] = {**row["cost"], "seconds_step": 0.5}
        table = cells(report_of(rows), "Cost of a training step")
        # seconds: 0.4 / 0.25, 0.5 / 0.25, 0.4 / 0.25, so 1.733 in the mean
        assert table == {
            "CIFAR-10: no defence (resnet18, width 0.25)": ["1", "1", "1", "1", "cpu, batch 128"],
            "CIFAR-10: PGD-AT (resnet18, width 0.25)": ["6", "6", "6", "5", "cpu, batch 128"],
            "CIFAR-10: ABNN (resnet18, width 0.25)": ["1.5", "1.5", "1.25", "1.73 (1.6 to 2)", "cpu, batch 128"],
        }

    def test_groups_that_differ_in_their_recipe_alone_have_names_of_their_own(self) -> None:
        rows = [
            line("clean", accuracy, seed=seed, model=f"{beside}-{seed}", recipe=f"beside a {beside}",
                 weights_sha256=f"{beside}{seed}".ljust(64, "0"))
            for beside, accuracy in (("vgg", 0.9), ("densenet", 0.7)) for seed in (0, 1)
        ]  # fmt: skip
        report = report_of([*rows, *(line("clean", 0.8, defence="none", seed=seed) for seed in (0, 1))])
        found = {name: values["clean"][0] for name, values in accuracies_of(report, "cifar10").items()}
        assert found == {
            "no defence: mean of 2 seeds (resnet18, width 0.25)": 0.8,
            "ABNN: mean of 2 seeds (resnet18, width 0.25; vgg-0, vgg-1)": 0.9,
            "ABNN: mean of 2 seeds (resnet18, width 0.25; densenet-0, densenet-1)": 0.7,
        }
        assert len(accuracy_sentences(report)) == 3
        assert set(found) < set(cells(report, "CIFAR-10"))
        assert set(cells(report, "Cost of a training step")) == {
            "CIFAR-10: no defence (resnet18, width 0.25)",
            "CIFAR-10: ABNN (resnet18, width 0.25): vgg-0, vgg-1",
            "CIFAR-10: ABNN (resnet18, width 0.25): densenet-0, densenet-1",
        }

    def test_every_set_of_settings_has_a_line(self) -> None:
        other = line("pgd-5", 0.1, seed=5, settings={**PGD, "step_size": 0.001})
        report = report_of([*table_1(), other, line("transfer", 0.5, settings={**PGD, "twin_sha256": "a" * 64})])
        table = table_of(report, "Settings of the attacks")
        found = {line.name: dict(zip(table.head, map(str, line.cells), strict=True)) for line in table.lines}
        own = "CIFAR-10: pgd-5 (none-0, pgd-at-0, abnn-0, abnn-1, abnn-2)"
        assert list(found) == [
            "CIFAR-10: clean", own, "CIFAR-10: pgd-5 (abnn-5)", "CIFAR-10: transfer", "CIFAR-10: worst",
        ]  # fmt: skip
        assert found[own]["eps"] == "8/255"
        assert found[own]["random start"] == "yes"
        assert found[own]["as published"] == "yes"
        assert found["CIFAR-10: pgd-5 (abnn-5)"]["step size"] == "0.001"
        assert found["CIFAR-10: transfer"]["surrogate sha256"] == "a" * 12
        assert found["CIFAR-10: worst"]["over"] == "pgd-5, pgd-50x5"

    def test_columns_have_an_order(self) -> None:
        names = [
            "zoo", "worst", "roa-gradient", "roa", "autoattack", "transfer", "adaptive", "pgd-100x2", "pgd-50x10",
            "pgd-50x5", "pgd-5", "clean",
        ]  # fmt: skip
        report = report_of([line(name, 0.5, settings=STRONG) for name in names])
        assert report["attacks"]["cifar10"] == [
            "clean", "pgd-5", "pgd-50x5", "pgd-50x10", "pgd-100x2", "adaptive", "transfer", "autoattack", "roa",
            "roa-gradient", "worst", "zoo",
        ]  # fmt: skip

    def test_columns_on_other_samples_are_noted(self) -> None:
        report = report_of([line("clean", 0.9, n=1000, data_sha256="all"), line("pgd-5", 0.4)])
        assert table_of(report, "CIFAR-10").head[:2] == ["clean (n = 1000)", "pgd-5 (n = 200)"]
        assert abnn_notes(report)[0].startswith(
            "CIFAR-10: not all of clean, pgd-5 were evaluated on the same test samples"
        )
        assert not abnn_notes(report_of(table_1()))

    def test_what_holds_least_is_said(self) -> None:
        report = report_of(table_1())
        assert list(accuracies_of(report, "cifar10")) == [
            "no defence: none-0", "PGD-AT: pgd-at-0", "ABNN: mean of 3 seeds (resnet18, width 0.25)",
        ]  # fmt: skip
        assert accuracy_sentences(report)[2] == (
            "CIFAR-10, ABNN: mean of 3 seeds (resnet18, width 0.25): 86.0% clean, 35.0% under pgd-5, "
            "2.0% under worst, the lowest."
        )
