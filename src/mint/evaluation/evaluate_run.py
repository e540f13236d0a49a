"""Evaluation of a finished run, from its folder to a results file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from mint.builders.encoder import build_encoder
from mint.builders.language import build_language
from mint.builders.stages import load_stage1, load_stage2
from mint.config import Recipe, load_recipe, recipe_digest
from mint.data.features.prepare import prepare_features, read_examples
from mint.data.manifests.leakage import leakage_record
from mint.evaluation.evaluate import Trained, evaluate
from mint.evaluation.report.collect import report_of_run
from mint.evaluation.report.page import Skipped, write_report
from mint.evaluation.results.compare import record_predictions
from mint.evaluation.results.file import Results, read_results, write_results
from mint.evaluation.settings import Settings
from mint.machine import git_commit, peak_memory_bytes
from mint.run_folder import check_frozen, load_tokenizer
from mint.types import MintError


def stage_folders(run: Path) -> dict[int, Path]:
    """The finished stages of a run, given by its folder or by that of one of its stages.

    Raises:
        MintError: there is none.
    """
    places = [run, run / "stage1", run / "stage2", run.parent / "stage1", run.parent / "stage2"]
    near = places if (run / "recipe.yaml").is_file() else places[:3]
    found: dict[int, Path] = {}
    for folder in near:
        if (folder / "model.safetensors").is_file() and (folder / "recipe.yaml").is_file():
            found.setdefault(load_recipe(folder / "recipe.yaml").stage, folder)
    if not found:
        raise MintError(f"{run} holds no finished run; give a folder with stage1 or stage2 and their model.safetensors")
    return found


def load_trained(run: Path) -> Trained:
    """The stages of a run, on the accelerator where there is one; errors as `stage_folders`."""
    folders = stage_folders(run)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    stage1 = load_stage1(folders[1]).to(device) if 1 in folders else None
    stage2 = None
    if 2 in folders:
        language = load_recipe(folders[2] / "recipe.yaml").language
        assert language is not None
        stage2 = load_stage2(folders[2], build_language(language, device)).to(device)
    any_folder = next(iter(folders.values()))
    recipe = load_recipe(any_folder / "recipe.yaml")
    return Trained(stage1, stage2, load_tokenizer(any_folder), recipe.bridge.max_text_tokens)


def evaluate_run(
    run: Path,
    tasks: Sequence[str] | None = None,
    manifests: Sequence[str] | None = None,
    settings: Settings | None = None,
    output: Path | None = None,
    report: Path | None = None,
) -> tuple[Results, Path]:
    """Evaluate a run and write a results file.

    Args:
        run: folder of the run, or of one of its stages.
        tasks: which; None: all.
        manifests: what to evaluate on; None: what the recipe names.
        settings: scoring, decoding, and of how many clips; None: the defaults, on all clips.
        output: results file; None: in the run's folder, named after the tasks.
        report: HTML page to write; None: none.

    Returns:
        The results and where they were written.
    """
    begun = time.perf_counter()
    settings = settings or Settings()
    folders = stage_folders(run)
    recipes: list[Recipe] = [load_recipe(folders[stage] / "recipe.yaml") for stage in sorted(folders)]
    recipe = recipes[-1]
    examples = read_examples(manifests or recipe.data.manifests)
    encoder = build_encoder(recipe.encoder)
    check_frozen(folders[recipe.stage], "encoder", encoder.identity)
    features = prepare_features(encoder, examples, recipe.data.max_seconds)
    evaluation = evaluate(load_trained(run), examples, features, tasks=tasks, settings=settings, seed=recipe.seed)
    tested = [example for example in examples if not tasks or example.task in tasks or example.captions]
    captioned = sorted({example.corpus for example in tested if example.captions and example.split == "test"})
    path = output or run / f"results-{'-'.join(tasks) if tasks else 'all'}.json"
    write_results(
        path,
        evaluation.rows,
        seconds=round(time.perf_counter() - begun, 1),
        peak_memory_bytes=peak_memory_bytes(),
        recipe=recipe.name,
        recipe_digest=recipe_digest(recipes),
        commit=git_commit(),
        seed=recipe.seed,
        manifests=[str(manifest) for manifest in manifests or recipe.data.manifests],
        settings=settings.record(),
        leakage=leakage_record(
            [name for recipe in recipes for name in recipe.data.manifests],
            tested,
            [name for recipe in recipes for name in recipe.data.blacklists],
        ),
        corpora=dict.fromkeys(("retrieval", "captioning"), captioned),
        objectives=_objectives(recipes[0]),
        predictions=record_predictions(evaluation.predictions),
        per_clip=[one.record() for one in evaluation.per_clip],
        not_computed=evaluation.not_computed,
    )
    results = read_results(path)
    if report is not None:
        skipped = [Skipped(clip.audio, clip.reason) for clip in features.skipped]
        title = f"MINT: {recipe.name}"
        write_report(report, report_of_run(title, results, evaluation, encoder, folders, skipped))
    return results, path


def _objectives(recipe: Recipe) -> str | None:
    """What stage 1 was trained with, as Table 5 names it; None for a run without stage 1."""
    switches = recipe.objectives
    if switches is None:
        return None
    return "+".join(name.upper() for name in ("alc", "alm", "atg") if getattr(switches, name))
