"""Evaluation of a finished run, from its folder to a results file."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mint.builders.encoder import build_encoder
from mint.builders.stages import load_trained
from mint.config import Recipe, load_recipe, recipe_digest
from mint.data.features.prepare import Features, prepare_features, read_examples
from mint.data.manifests.leakage import leakage_record
from mint.evaluation.evaluate import evaluate, settle
from mint.evaluation.records import Evaluation
from mint.evaluation.report.collect import report_of_run
from mint.evaluation.report.page import write_report
from mint.evaluation.results.file import Results, read_results, write_results
from mint.evaluation.settings import Settings
from mint.evaluation.steps import reason_of
from mint.files import check_writable
from mint.machine import default_device, git_commit, peak_memory_bytes
from mint.run_folder import check_frozen, find_stages, load_run_recipe
from mint.types import AudioEncoder, Example, MintError, classes_of


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
        run: the folder of the run, or of one of its stages.
        tasks: which tasks to measure; None: all.
        manifests: what to evaluate on; None: the manifests that the recipe of the last stage names.
        settings: scoring, decoding, and the number of clips; None: the defaults, on all clips.
        output: the results file; None: in the run's folder, named after the tasks.
        report: the HTML page to write; None: none.

    Returns:
        The results and where they were written.

    Raises:
        MintError: there is no finished run, a file cannot be written, or nothing could be measured.
    """
    begun = time.perf_counter()
    folders = find_stages(run)
    last = max(folders)
    recipes = {stage: load_run_recipe(folder) for stage, folder in folders.items()}
    recipe = recipes[last]

    # The paths of a recipe as it was written are the same on every machine, those that were found are not.
    as_written = {stage: load_recipe(folder / "recipe.yaml") for stage, folder in folders.items()}

    # Hours of measuring must not end with a path that cannot be written.
    path = output or run / _default_name(tasks)
    check_writable(path)
    if report is not None:
        check_writable(report)

    examples = read_examples(manifests or _manifests_of(folders[last], recipe, as_written[last]))
    encoder = build_encoder(recipe.encoder, default_device())
    # Features of another encoder would have the right shape and mean nothing.
    for folder in folders.values():
        check_frozen(folder, "encoder", encoder.identity)
    features = features_by_stage(recipes, encoder, examples)

    trained = load_trained(folders)
    settings = settle(settings or Settings(), trained)
    evaluation = evaluate(
        trained, examples, features, tasks=tasks, settings=settings, seed=recipe.seed, classes=classes_of(encoder)
    )

    write_results(
        path,
        evaluation.rows,
        seconds=round(time.perf_counter() - begun, 1),
        peak_memory_bytes=peak_memory_bytes(),
        recipe=recipe.name,
        recipe_digest=recipe_digest(as_written.values()),
        commit=git_commit(),
        seed=recipe.seed,
        manifests=[str(manifest) for manifest in manifests or as_written[last].data.manifests],
        settings=settings.record(),
        leakage=_leakage(recipes.values(), evaluation),
        objectives=_objectives(recipes[min(recipes)]),
        **evaluation.record(),
    )

    # Read back, so that the page shows what the file holds and not what it was meant to hold.
    results = read_results(path)
    if report is not None:
        skipped = features[last].skipped
        page = report_of_run(f"MINT: {recipe.name}", results, evaluation, encoder, folders, skipped)
        write_report(report, page)
    return results, path


def _default_name(tasks: Sequence[str] | None) -> str:
    """Return the name of the results file in a run's folder; a task may be called as no file can be."""
    # "a/b" -> "a-b": a bar would begin a folder, and Windows refuses colons.
    names = [re.sub(r"[^\w.-]+", "-", task) for task in dict.fromkeys(tasks or ["all"])]
    return f"results-{'-'.join(names)}.json"


def features_by_stage(
    recipes: Mapping[int, Recipe], encoder: AudioEncoder, examples: Sequence[Example]
) -> dict[int, Features]:
    """Return the features that each stage reads: windows as long as in its training."""
    features: dict[int, Features] = {}
    # Both stages usually have windows of one length, and then one object: preparing reads every file.
    by_seconds: dict[float, Features] = {}
    for stage, recipe in recipes.items():
        seconds = recipe.data.max_seconds
        if seconds not in by_seconds:
            by_seconds[seconds] = prepare_features(encoder, examples, seconds)
        features[stage] = by_seconds[seconds]
    return features


def _manifests_of(run: Path, recipe: Recipe, as_written: Recipe) -> tuple[str, ...]:
    """Return the manifests that the recipe of a run names, wherever MINT is called."""
    # The message gives both: the path that was tried, and the name under which the recipe's author knows it.
    for name, path in zip(as_written.data.manifests, recipe.data.manifests, strict=True):
        if not Path(path).is_file():
            raise MintError(
                f"{path}: no such manifest; the recipe of {run} names {name}, which is not where it was in training; "
                "give the manifests to evaluate on with --manifest FILE"
            )
    return recipe.data.manifests


def _leakage(recipes: Iterable[Recipe], evaluation: Evaluation) -> dict[str, Any]:
    """Return what the training of all stages shares with the clips that were measured, as a results file keeps it."""
    training: list[str] = []
    blacklists: list[str] = []
    for recipe in recipes:
        training += recipe.data.manifests
        blacklists += recipe.data.blacklists
    try:
        return leakage_record(training, evaluation.clips(), blacklists)
    except Exception as error:  # whatever it is, what was measured must not be lost
        return {"not_computed": reason_of(error)}


def _objectives(recipe: Recipe) -> str | None:
    """Return what stage 1 was trained with, as Table 5 names it; None for a run without stage 1."""
    switches = recipe.objectives
    if switches is None:
        return None
    return "+".join(name.upper() for name in ("alc", "alm", "atg") if getattr(switches, name))
