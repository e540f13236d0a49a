"""The commands in the headers of the paper's recipes lead to Tables 5 and 6, on tiny models."""

from __future__ import annotations

import glob
import json
import re
import shlex
from pathlib import Path

import pytest

from mint.cli import main
from mint.config import shipped_recipes
from mint.evaluation.results.file import read_results
from mint.evaluation.results.paper_tables import tables_of
from tiny_runs import write_corpus

TINY = [
    "encoder.family=tiny",
    "encoder.weights=tiny",
    "bridge.weights=tiny",
    "bridge.num_layers=2",
    "bridge.num_queries=4",
    "data.manifests=[nsynth.jsonl]",
    "training.max_steps=2",
    "training.warmup_steps=0",
    "training.per_device_train_batch_size=4",
    "training.dataloader_num_workers=0",
    "training.report_to=[]",
    "training.optim=adamw_torch",
    "training.use_cpu=true",
    "training.bf16=false",
]
TINY_LANGUAGE = ["language.family=tiny", "language.dtype=float32"]


def commands(recipe: str) -> list[list[str]]:
    """The commands of a recipe's header, without their launcher and without the filling of the cache."""
    lines = []
    for line in shipped_recipes()[recipe].read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    text = "\n".join(lines).replace("\\\n", " ")
    found = [shlex.split(line) for line in re.findall(r"^(?:torchrun .*)?(mint .*)$", text, re.MULTILINE)]
    return [command[1:] for command in found if command[1] != "cache"]


def run(command: list[str]) -> None:
    """Run a command of a header over tiny models, with the files that a shell would put in place of a pattern."""
    words = []
    for word in command:
        words += sorted(glob.glob(word)) if "*" in word else [word]  # noqa: PTH207  # as the shell has them
    if words[0] == "train":
        words += TINY + (TINY_LANGUAGE if words[1] == "paper/stage2" else [])
    if words[0] == "evaluate":
        words += ["--task", "pitch", "--output", f"{words[1]}/results-all.json"]  # no captions: Java is slow
    assert main(words) == 0, words


def test_headers_lead_to_tables_5_and_6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    lines = [json.loads(line) for line in write_corpus(tmp_path).read_text(encoding="utf-8").splitlines()]
    named = [json.dumps({**line, "corpus": "nsynth"}) for line in lines]
    (tmp_path / "nsynth.jsonl").write_text("\n".join(named), encoding="utf-8")

    for recipe in ("paper/stage1", "paper/stage2", "paper/ablation-alc"):
        for command in commands(recipe):
            run(command)

    names = {"paper-stage2": "ALC+ALM+ATG", "paper-ablation-alc-stage2": "ALC"}
    files = [tmp_path / "runs" / name / "results-all.json" for name in names]
    for file, (name, objectives) in zip(files, names.items(), strict=True):
        results = read_results(file)
        assert (results.recipe, results.extra["objectives"]) == (name, objectives)
        assert {row.method for row in results.rows} >= {"stage1", "stage2"}
    assert len({read_results(file).extra["recipe_digest"] for file in files}) == 2

    tables = {table.name: table for table in tables_of(files)}
    measured = {
        number: {line.name for line in tables[number].rows if line.run is not None and line.cells[0] is not None}
        for number in ("table5", "table6")
    }
    assert measured == {"table5": {"ALC", "ALC+ALM+ATG"}, "table6": {"Stage1", "Stage1+2"}}
    written = (tmp_path / "tables" / "tables.md").read_text(encoding="utf-8")
    for name in ("ALC", "ALC+ALM+ATG", "Stage1", "Stage1+2"):
        assert re.search(rf"^\| {re.escape(name)} \| \[\d\] \| \d", written, re.MULTILINE), name


@pytest.mark.parametrize("row", ["alc", "alc-atg", "alc-alm"])
def test_each_ablation_has_a_name_of_its_own(row: str) -> None:
    (stage2,) = [command for command in commands(f"paper/ablation-{row}") if command[:2] == ["train", "paper/stage2"]]
    assert stage2[2:] == [f"name=paper-ablation-{row}-stage2", f"start=runs/paper-ablation-{row}"]
    assert ["evaluate", f"runs/paper-ablation-{row}-stage2"] in commands(f"paper/ablation-{row}")
