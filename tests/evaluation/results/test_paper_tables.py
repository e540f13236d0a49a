"""Tables hold what results files hold, beside what the paper prints, and nothing else."""

from __future__ import annotations

import csv
import io
import json
import statistics
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mint.cli import main
from mint.data.manifests.leakage import find_leakage
from mint.evaluation.results.file import Row, write_results
from mint.evaluation.results.paper_tables import Table, published, tables_of
from mint.evaluation.results.render import FIELDS, csv_text, html, markdown, write_tables
from mint.evaluation.results.seeds import NOT_RECORDED, describe_leakage
from mint.evaluation.settings import Decoding, Settings
from mint.types import Example, MintError


def results(path: Path, rows: list[Row], seed: int = 0, recipe: str = "mine", **extra: Any) -> Path:
    write_results(path, rows, seconds=1.0, peak_memory_bytes=None, recipe=recipe, commit="c" * 40, seed=seed, **extra)
    return path


def row(task: str, metric: str, method: str, value: float, split: str = "test", n: int = 50) -> Row:
    return Row(task, split, metric, method, value, max(0.0, value - 0.1), value + 0.1, n)


def named(tables: list[Table], name: str) -> Table:
    return next(table for table in tables if table.name == name)


def cells(table: Table, line: str) -> list[float | None]:
    found = [one for one in table.rows if one.name == line]
    assert len(found) == 1
    return [None if cell is None else round(cell.value, 6) for cell in found[0].cells]


def test_published_rows_are_those_of_the_paper() -> None:
    tables = {table["number"]: table["rows"] for table in published()["tables"]}
    assert tables == {
        2: {
            "LAION": [29.49, 36.99, 71.40, 45.38, 28.31],
            "Pengi": [50.07, 41.34, 72.88, 46.22, 35.25],
            "MINT": [68.26, 46.72, 77.91, 49.28, 49.66],
        },
        3: {
            "MMT": [6.7, 21.6, 33.2],
            "ML-ACT": [14.4, 36.6, 49.9],
            "LAION": [16.4, 39.0, 51.0],
            "Pengi": [9.4, 26.1, 36.8],
            "MINT": [19.1, 39.3, 51.4],
        },
        4: {
            "BART-AAC": [16.7, 31.8, 8.3],
            "ACT": [20.9, 35.1, 10.5],
            "PT-AAC": [21.5, 36.6, 11.1],
            "Pengi": [27.1, 37.5, 12.6],
            "MINT": [34.3, 36.2, 13.4],
        },
        5: {
            "ALC": [61.31, 41.27],
            "ALC+ATG": [66.72, 43.34],
            "ALC+ALM": [62.76, 46.13],
            "ALC+ALM+ATG": [68.26, 49.66],
        },
        6: {"Stage1": [55.91, 41.87], "Stage1+2": [68.26, 49.66]},
    }


def test_without_a_value_of_the_papers_corpora_only_quoted_rows_stand_there(tmp_path: Path) -> None:
    tables = tables_of([results(tmp_path / "a.json", [row("bells", "accuracy", "stage2", 0.5)])])
    assert [table.name for table in tables] == ["table2", "table2-own", "table3", "table4", "table5", "table6"]
    for table in tables:
        assert all((line.run is None) == (table.name != "table2-own") for line in table.rows)
        assert (table.source is None) == (table.name == "table2-own")


def test_our_values_stand_in_the_column_of_their_corpus_and_missing_ones_stay_empty(tmp_path: Path) -> None:
    first = results(
        tmp_path / "a.json",
        [
            row("NSynth", "accuracy", "stage2", 0.7),
            row("nsynth", "accuracy", "stage1", 0.6),
            row("OpenMIC-2018", "roc_auc", "stage2", 0.8),
            row("fma_large", "accuracy", "stage2", 0.4),
        ],
    )
    tables = tables_of([first])
    assert cells(named(tables, "table2"), "stage2") == [70.0, None, 80.0, 40.0, None]
    assert cells(named(tables, "table2"), "stage1") == [60.0, None, None, None, None]
    ours = [line for line in named(tables, "table6").rows if line.run is not None]
    assert [(line.name, line.cells[0] and round(line.cells[0].value), line.cells[1]) for line in ours] == [
        ("Stage1", 60, None),
        ("Stage1+2", 70, None),
    ]
    text = markdown(tables)
    assert "| stage2 | [1] | 70.00 [60.00, 80.00] |  | 80.00 [70.00, 90.00] | 40.00 [30.00, 50.00] |  |" in text
    assert "| MINT | *quoted* | 68.26 | 46.72 | 77.91 | 49.28 | 49.66 |" in text


@pytest.mark.parametrize(
    "extra", [{"corpora": {"retrieval": ["Clotho"], "captioning": ["Clotho"]}}, {"manifests": ["data/clotho_v2.jsonl"]}]
)
def test_retrieval_and_captions_belong_to_the_corpus_that_the_file_names(tmp_path: Path, extra: Any) -> None:
    rows = [row("retrieval", f"recall@{k}", "stage1", k / 100) for k in (1, 5, 10)]
    rows += [row("retrieval", "recall@10", "stage1+alm", 0.2), row("captioning", "spider", "stage2", 0.25)]
    tables = tables_of([results(tmp_path / "a.json", rows, **extra)])
    assert cells(named(tables, "table3"), "stage1") == [1.0, 5.0, 10.0]
    assert cells(named(tables, "table3"), "stage1+alm") == [None, None, 20.0]
    assert cells(named(tables, "table4"), "stage2") == [25.0, None, None]
    assert not any(table.name.endswith("-own") for table in tables)


def test_how_captions_were_decoded_stands_below_the_tables_of_captions(tmp_path: Path) -> None:
    rows = [row("captioning", "spider", "stage2", 0.25), row("nsynth", "accuracy", "stage2", 0.7)]
    settings = Settings("mean", decoding=Decoding(beams=3)).record()
    path = results(tmp_path / "a.json", rows, corpora={"captioning": ["Clotho"]}, settings=settings)
    tables = tables_of([path])
    said = {
        "table4": "captions by beam search with 3 beams, 30 tokens at most",
        "table2": "labels ranked by log-likelihood for each token",
    }
    for name, words in said.items():
        table = named(tables, name)
        for text in (markdown([table]), html([table])):
            assert f"; {words}; held-out clips" in text
            assert not any(other in text for other in said.values() if other != words)
        ours = [line for line in csv.DictReader(io.StringIO(csv_text(table))) if line["origin"] == "measured"]
        assert {line["settings"] for line in ours} == {words}


def test_retrieval_of_other_corpora_never_stands_in_the_papers_table(tmp_path: Path) -> None:
    rows = [row("retrieval", "recall@1", "stage1", 0.5)]
    unknown = results(tmp_path / "a.json", rows)
    several = results(tmp_path / "b.json", rows, recipe="other", corpora={"retrieval": ["clotho", "audiocaps"]})
    tables = tables_of([unknown, several])
    assert all(line.run is None for line in named(tables, "table3").rows)
    own = named(tables, "table3-own")
    assert [column.title for column in own.columns] == [
        "retrieval, test, recall@1",
        "retrieval (clotho, audiocaps), test, recall@1",
    ]


def test_several_seeds_give_mean_and_spread(tmp_path: Path) -> None:
    values = [0.5, 0.6, 0.8]
    files = [
        results(tmp_path / f"{seed}.json", [row("notes", "accuracy", "stage2", value)], seed)
        for seed, value in enumerate(values)
    ]
    table = named(tables_of(files), "table2-own")
    (line,) = table.rows
    (cell,) = line.cells
    assert cell is not None
    assert cell.value == pytest.approx(100 * statistics.mean(values))
    assert cell.spread == pytest.approx(100 * statistics.stdev(values))
    assert (cell.seeds, cell.low, cell.n) == (3, None, 50)
    assert "63.3 ± 15.3" in markdown([table])
    assert "seeds 0, 1, 2" in markdown([table])


def test_files_of_one_run_are_put_together_and_must_agree(tmp_path: Path) -> None:
    notes, chords = row("notes", "accuracy", "stage2", 0.5), row("chords", "accuracy", "stage2", 0.1)
    files = [results(tmp_path / "a.json", [notes]), results(tmp_path / "b.json", [notes, chords])]
    assert cells(named(tables_of(files), "table2-own"), "stage2") == [50.0, 10.0]
    files.append(results(tmp_path / "c.json", [row("notes", "accuracy", "stage2", 0.51)]))
    with pytest.raises(MintError, match=r"a\.json and .*c\.json differ on notes / test / accuracy by stage2"):
        tables_of(files)


def test_objectives_and_other_axes_have_their_tables(tmp_path: Path) -> None:
    cells_of = {
        "base": {"objectives": "ALC+ALM+ATG", "queries": "8"},
        "objectives=ALC": {"objectives": "ALC"},
        "queries=16": {"queries": "16"},
        "queries=4": {"queries": "4"},
    }
    files = [
        results(
            tmp_path / f"{name}.json",
            [row("notes", "accuracy", "stage2", 0.5 - place / 10), row("notes", "accuracy", "stage1", 0.3)],
            ablation={"cell": name, "axes": axes},
        )
        for place, (name, axes) in enumerate(cells_of.items())
    ]
    tables = tables_of(files)
    assert [line.name for line in named(tables, "table5-own").rows] == ["ALC", "ALC+ALM+ATG"]
    assert cells(named(tables, "table5-own"), "ALC") == [40.0]
    assert [line.name for line in named(tables, "ablation-queries").rows] == ["4", "8", "16"]
    assert cells(named(tables, "table6-own"), "Stage1+2") == [50.0]  # the base alone stands for the recipe
    assert cells(named(tables, "table2-own"), "stage2") == [50.0]


def test_table_5_by_the_objectives_of_stage_1(tmp_path: Path) -> None:
    files = [
        results(
            tmp_path / f"{objectives}.json",
            [row("nsynth", "accuracy", "stage2", value)],
            recipe="paper-stage2",
            objectives=objectives,
        )
        for objectives, value in (("ALC+ALM+ATG", 0.6), ("ALC", 0.5))
    ]
    tables = tables_of(files)
    ours = [(line.name, line.cells[0] and line.cells[0].value) for line in named(tables, "table5").rows if line.run]
    assert ours == [("ALC", 50.0), ("ALC+ALM+ATG", 60.0)]
    assert cells(named(tables, "table2"), "stage2") == [60.0, None, None, None, None]


def test_what_made_a_value_stands_below_its_table(tmp_path: Path) -> None:
    file = results(
        tmp_path / "a.json",
        [row("notes", "accuracy", "stage2", 0.5, n=220), row("notes", "accuracy", "stage2", 0.4, "unseen", 165)],
        seed=7,
        leakage={"splits": [{"task": "notes", "corpus": "notes", "by_id": 0, "by_file": 3, "by_caption": 0}]},
    )
    text = markdown(tables_of([file]))
    assert (
        "- [1] recipe mine; commit cccccccccccc; seed 7; clips: notes test 220, notes unseen 165; "
        "held-out clips that are also trained on: by recording 0, by file 3, by caption 0\n" in text
    )


@pytest.mark.parametrize(
    ("leakage", "words"),
    [
        (None, NOT_RECORDED),
        ({}, NOT_RECORDED),
        ({"not_computed": "no clips"}, "not computed (no clips)"),
        (
            {
                "splits": [{"by_id": 1, "by_file": 0, "by_caption": 2}],
                "blacklists": {"a.json": {"ids": 9, "clips": 3, "unread": 0}, "b.json": {"ids": 1, "clips": 4}},
            },
            "by recording 1, by file 0, by caption 2; training clips on blacklists 7",
        ),
    ],
)
def test_leakage_in_words(leakage: Any, words: str) -> None:
    assert describe_leakage(leakage) == words


def test_leakage_as_the_data_side_records_it(tmp_path: Path) -> None:
    training = [Example("a", tmp_path / "1.wav", "captioning", "train", "wavcaps", captions=("A dog barks.",))]
    tests = [Example("b", tmp_path / "2.wav", "captioning", "test", "clotho", captions=("a dog barks",))]
    record = asdict(find_leakage(training, tests))
    assert describe_leakage(record) == "by recording 0, by file 0, by caption 1"
    file = results(tmp_path / "a.json", [row("retrieval", "recall@1", "stage1", 0.25)], leakage=record)
    assert cells(named(tables_of([file]), "table3"), "stage1") == [25.0, None, None]


def test_recipes_of_one_name_are_no_seeds_of_each_other(tmp_path: Path) -> None:
    score = [row("nsynth", "accuracy", "stage2", 0.5)]
    first, second = (
        results(tmp_path / f"{seed}.json", score, seed=seed, recipe_digest=digest)
        for seed, digest in ((0, "a" * 64), (1, "b" * 64))
    )
    with pytest.raises(MintError, match=r"0.json and .*1.json are of two recipes that are both called 'mine'"):
        tables_of([first, second])
    same = results(tmp_path / "2.json", score, seed=2, recipe_digest="a" * 64)
    assert "; seeds 0, 2;" in markdown(tables_of([first, same]))
    assert "by its name alone" not in markdown(tables_of([first, same]))
    # A file that does not say of which recipe it is goes by its name, and the note says so.
    silent = results(tmp_path / "3.json", score, seed=3)
    assert "recipe mine (by its name alone); commit" in markdown(tables_of([first, silent]))
    assert "by its name alone" not in markdown(tables_of([silent]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": 3}, "rows is 3"),
        ({"rows": [[1, 2]]}, "rows.0 is"),
        ({"rows": [{"task": "a"}]}, "field required"),
        ({"seed": "zero"}, "seed is 'zero'"),
        ({"recipe": None}, "recipe is None"),
        ({"leakage": 4}, "AttributeError"),
        ({"leakage": {"splits": [{"by_id": "x"}]}}, "leakage"),
        ({"leakage": {"held_out": 3}}, "KeyError"),
        ({"settings": "all"}, "TypeError"),
        ({"settings": {"scoring": 1}}, "KeyError"),
        ({"corpora": ["clotho"]}, "AttributeError"),
        ({"ablation": 3}, "AttributeError"),
        ({"ablation": {"cell": ["a"]}}, "TypeError"),
        ({"manifests": 7}, "TypeError"),
    ],
)
def test_damaged_results_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, words: str
) -> None:
    file = results(tmp_path / "a.json", [row("retrieval", "recall@1", "stage1", 0.25)])
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change), encoding="utf-8")
    assert main(["tables", str(file), "--output", str(tmp_path / "tables")]) == 2
    message = capsys.readouterr().err
    assert str(file) in message
    assert "unexpected" not in message
    assert message.count("\n") == 1
    if words != "leakage":
        assert words.lower() in message.lower()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"rows": ' * 100_000, "", "\x00\x01", "[]", "3", '{"rows": []}', "{"])
@pytest.mark.parametrize("verb", ["tables", "compare"])
def test_what_is_no_results_file_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, verb: str
) -> None:
    good, bad = results(tmp_path / "good.json", [row("a", "accuracy", "stage1", 0.25)]), tmp_path / "bad.json"
    bad.write_text(text, encoding="utf-8")
    options = ["--output", str(tmp_path / "tables")] if verb == "tables" else []
    assert main([verb, str(good), str(bad), *options]) == 2
    message = capsys.readouterr().err
    assert f"{bad} is not a results file" in message
    assert message.count("\n") == 1


def test_csv_has_one_line_for_each_value(tmp_path: Path) -> None:
    file = results(tmp_path / "a.json", [row("nsynth", "accuracy", "stage2", 0.7)])
    table = named(tables_of([file]), "table2")
    lines = list(csv.DictReader(io.StringIO(csv_text(table))))
    assert len(lines) == 3 * 5 + 1
    assert list(lines[0]) == list(FIELDS)
    assert lines[0]["origin"] == "quoted"
    assert lines[0]["source"] == published()["source"]
    assert (lines[-1]["origin"], lines[-1]["value"], lines[-1]["low"], lines[-1]["clips"]) == (
        "measured",
        "70.0",
        "60.0",
        "50",
    )
    assert lines[-1]["commit"] == "c" * 12


class Rows(HTMLParser):
    """The cells of each row of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.scripts = 0
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.scripts += tag == "script"
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data.strip()


def test_html_shows_the_same_cells_and_trusts_no_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    file = results(
        tmp_path / "a.json",
        [row(hostile, "accuracy", "stage2", 0.5), row("gtzan", "accuracy", "stage2", 0.25)],
        0,
        hostile,
    )
    text = html(tables_of([file]))
    page = Rows(text)
    assert page.scripts == 0
    assert ["LAION", "quoted", "29.49", "36.99", "71.40", "45.38", "28.31"] in page.rows
    assert ["stage2", "[1]", "", "", "", "", "25.00 [15.00, 35.00]"] in page.rows
    assert ["method", "origin", f"{hostile}, test, accuracy"] in page.rows
    assert "http://" not in text
    assert "https://" not in text


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = results(tmp_path / "a.json", [row("notes", "accuracy", "stage2", 0.5)])
    output = tmp_path / "new" / "tables"
    assert main(["tables", str(file), "--output", str(output)]) == 0
    names = {path.name for path in output.iterdir()}
    assert names == {"tables.md", "tables.html", "table2-own.csv", *(f"table{n}.csv" for n in (2, 3, 4, 5, 6))}
    assert (output / "tables.md").read_text(encoding="utf-8") in capsys.readouterr().out
    assert main(["tables", str(tmp_path / "none.json"), "--output", str(output)]) == 2
    assert "no results file" in capsys.readouterr().err


def test_what_was_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "tables.md").write_text("old")
    write_tables([], tmp_path)
    assert "old" not in (tmp_path / "tables.md").read_text(encoding="utf-8")
