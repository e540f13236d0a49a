"""The notebook runs from its first cell to its last, in an empty folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "own_recordings.ipynb"


def results_of(cell: Any) -> str:
    """Return what a cell printed and what its last line is worth, as text."""
    texts = []
    for output in cell.outputs:
        texts.append(output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"])
    return "".join(texts)


@pytest.mark.slow
def test_notebook_runs_and_says_something(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()

    assert (tmp_path / "runs" / "own" / "report.html").is_file()
    trained, caption, scores, hits = [results_of(cell) for cell in notebook.cells if cell.cell_type == "code"][1:]
    assert "| labels | test | accuracy (%) |" in trained
    assert caption.strip().strip("'")
    assert {"'tone'", "'noise'", "'clicks'"} <= {word.strip("{} ").split(":")[0] for word in scores.split(",")}
    assert hits.count(".wav") == 5
