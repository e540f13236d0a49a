"""The whole of MINT on one machine: corpora, frozen features, both stages, evaluation, results and report.

Each step leaves its result in the output folder and is not done twice: an interrupted quickstart that is started again
goes on where it was.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers

import mint
from mint.assets import fetch
from mint.builders.encoder import build_encoder
from mint.builders.stages import load_trained
from mint.config import Recipe, load_recipe, recipe_digest
from mint.data.corpora.drawn.sounds import prepare_sounds
from mint.data.corpora.drawn.words import SoundWords
from mint.data.corpora.outputs import read_skipped
from mint.data.corpora.own.folder import read_source
from mint.data.corpora.own.weak import hear, is_unlabelled
from mint.data.corpora.recordings import audio_files
from mint.data.corpora.rendered.quickstart import prepare_quickstart
from mint.data.features.encode import Skipped
from mint.data.features.prepare import Features, prepare_features, read_examples
from mint.data.manifests.leakage import leakage_record
from mint.evaluation.evaluate import evaluate, settle
from mint.evaluation.report.collect import report_of_run
from mint.evaluation.report.page import write_report
from mint.evaluation.results.file import Results, markdown_table, read_results, write_results
from mint.evaluation.settings import QUICK
from mint.files import owning, write_json
from mint.machine import git_commit, peak_memory_bytes
from mint.run_folder import is_finished
from mint.text_files import read_json
from mint.training.train import train
from mint.types import AudioEncoder, Example, MintError, classes_of

OPTIONS = "quickstart.json"
"""The file in the output folder that says with which options it was begun."""
SMOKE_SCALE = 0.25
"""Share of the clips that a smoke run renders: it only shows, in minutes, that all parts work together."""
SOURCE_OVERRIDES: tuple[tuple[str, ...], ...] = (
    (
        "training.max_steps=250",
        "training.per_device_train_batch_size=16",
        "training.learning_rate=3.0e-4",
        "data.group_by_length=false",
    ),
    (
        "training.max_steps=520",
        "training.per_device_train_batch_size=4",
        "training.learning_rate=3.0e-4",
        "training.warmup_steps=0.1",
        "bridge_lr_share=0.0667",
    ),
)
"""Changes of both recipes for recordings of one's own, which are fewer and have fewer labels."""
SMOKE_OVERRIDES: tuple[tuple[str, ...], ...] = (
    (
        "training.max_steps=100",
        "training.per_device_train_batch_size=16",
        "data.mixture={notes: 6, sounds: 2, percussion: 1, ensembles: 1, chords: 0}",
    ),
    (
        "training.max_steps=160",
        "training.per_device_train_batch_size=4",
        "data.mixture={notes: 9, captioning/notes: 1, "
        "captioning: 0, sounds: 0, percussion: 0, ensembles: 0, chords: 0}",
    ),
)
"""Changes to both recipes in a smoke run; of the tasks, stage 2 then has the time for one, `notes`."""


@dataclass(frozen=True)
class Quickstart:
    """The options of one quickstart."""

    output: Path
    """The folder of everything that it makes."""
    source: Path | None = None
    """A folder, CSV or manifest of recordings; None: the rendered corpora and `sounds`."""
    seed: int = 0
    """The seed of the data, of the new weights and of the order."""
    smoke: bool = False
    """Whether clips and steps are few: enough to show that all parts work together."""

    @property
    def name(self) -> str:
        """The name of the recipe in the results."""
        kind = "quickstart" if self.source is None else f"quickstart on {self.source.absolute().name}"
        return f"{kind}, smoke" if self.smoke else kind


def run(quickstart: Quickstart) -> Results:
    """Run what is not done yet and return the results; `results.json` and `report.html` are in the output folder.

    Raises:
        MintError: the source cannot be used, the output folder belongs to a quickstart with other options, or another
            process is writing into it.
    """
    with owning(quickstart.output):
        return _run(quickstart)


def _run(quickstart: Quickstart) -> Results:
    output = quickstart.output
    _refuse_other_options(quickstart)
    clock = Clock(output / "seconds.json")
    with clock.step("data"):
        # Without manifests, which are not there yet: only the encoder of the recipe is wanted.
        encoder = build_encoder(_recipe(1, quickstart, ()).encoder)
        manifests = _prepare_data(quickstart, encoder)
        examples = read_examples(manifests)
        write_json(output / OPTIONS, _options(quickstart))  # now, so that a mistake in them leaves the folder free

    folders = {stage: output / f"stage{stage}" for stage in (1, 2)}
    recipes = [_recipe(stage, quickstart, manifests) for stage in folders]
    with clock.step("features"):
        features = prepare_features(encoder, examples, recipes[0].data.max_seconds)

    # A step that is done is passed over, one that was cut off goes on from its last checkpoint.
    for recipe in recipes:
        folder = folders[recipe.stage]
        if not is_finished(folder):
            with clock.step(f"stage{recipe.stage}"):
                train(recipe, folder, examples, features, encoder)

    with clock.step("evaluation"):
        # Loaded from the folders, as any later command does, and not handed over from the training.
        trained = load_trained(folders)
        by_stage = dict.fromkeys(folders, features)
        evaluation = evaluate(trained, examples, by_stage, seed=quickstart.seed, classes=classes_of(encoder))

    skipped = _skipped(features, manifests)
    write_results(
        output / "results.json",
        evaluation.rows,
        seconds=round(clock.total(), 1),
        peak_memory_bytes=peak_memory_bytes(),
        recipe=quickstart.name,
        recipe_digest=recipe_digest(recipes),
        commit=git_commit(),
        seed=quickstart.seed,
        seconds_by_step=clock.seconds,
        versions={"mint": mint.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
        clips=_count_clips(examples, features),
        leakage=leakage_record(manifests, evaluation.clips(), recipes[0].data.blacklists),
        skipped=[asdict(clip) for clip in skipped],
        settings=settle(QUICK, trained).record(),
        **evaluation.record(),
    )

    results = read_results(output / "results.json")
    title, commands = f"MINT: {quickstart.name}", _commands(quickstart)
    report = report_of_run(title, results, evaluation, encoder, folders, skipped, commands)
    write_report(output / "report.html", report)
    return results


def summary(quickstart: Quickstart, results: Results) -> str:
    """Return what a person reads at the end: the table, the cost and commands to go on with."""
    report = quickstart.output / "report.html"
    return (
        f"\n{markdown_table(results.rows)}\n"
        f"{results.seconds / 60:.1f} minutes, {(results.peak_memory_bytes or 0) / 2**30:.1f} GiB of memory at most.\n"
        f"The report: {report}\n"
        "On a file of your own:\n" + "\n".join(f"  {command}" for command in _commands(quickstart))
    )


class Clock:
    """The seconds of each step, kept in a file, so that an interruption loses none.

    Args:
        path: the JSON file; one that is missing or broken counts as empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}
        with suppress(OSError, MintError):
            record = read_json(path)
            if isinstance(record, dict) and all(isinstance(value, int | float) for value in record.values()):
                self.seconds = record

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; the time before an interruption is added, and a mistake of the user takes none."""
        # Added to the record at the end, also by Ctrl-C: a run that was resumed took the sum.
        begun = time.perf_counter()
        try:
            yield
        except MintError:
            raise
        except BaseException:
            self._add(name, time.perf_counter() - begun)
            raise
        self._add(name, time.perf_counter() - begun)

    def total(self) -> float:
        """Return the seconds of all steps."""
        return sum(self.seconds.values())

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 1)
        write_json(self.path, self.seconds)


def _options(quickstart: Quickstart) -> dict[str, object]:
    """Return what `quickstart.json` holds; one source has one form, however it was written."""
    source = None if quickstart.source is None else str(quickstart.source.resolve())
    return {"source": source, "seed": quickstart.seed, "smoke": quickstart.smoke}


def _refuse_other_options(quickstart: Quickstart) -> None:
    """Refuse a folder that belongs to a quickstart with other options."""
    begun: object = None
    with suppress(OSError, MintError):  # there is none, or it is broken
        begun = read_json(quickstart.output / OPTIONS)
    asked = _options(quickstart)
    # Otherwise clips of one source would be measured with a model of another.
    if isinstance(begun, dict) and begun != asked:
        raise MintError(f"{quickstart.output} holds a quickstart of {begun}, not of {asked}; give another --output")


def _print_note(line: str) -> None:
    """Print what a person should know of the recordings, on standard error like all that is told in the meantime."""
    print(f"note: {line}", file=sys.stderr)


def _prepare_data(quickstart: Quickstart, encoder: AudioEncoder) -> list[Path]:
    """Return the manifests: of the source, or of the rendered corpora and of the sounds that the encoder can name."""
    folder = quickstart.output / "data"
    if quickstart.source is not None:
        heard = _hear_unlabelled(quickstart.source, encoder)
        return [read_source(quickstart.source, folder, quickstart.seed, _print_note, heard=heard)]

    # Without recordings of one's own: music is rendered, and everyday sounds are drawn as features.
    font = fetch("soundfont") / "TimGM6mb.sf2"
    scale = SMOKE_SCALE if quickstart.smoke else 1.0
    rendered = prepare_quickstart(folder, font, seed=quickstart.seed, scale=scale)
    return [*rendered, prepare_sounds(folder, encoder, seed=quickstart.seed, scale=scale)]


def _hear_unlabelled(source: Path, encoder: AudioEncoder) -> dict[Path, SoundWords] | None:
    """Return what the encoder hears in the recordings of a folder without labels; None for a source with labels."""
    classes = classes_of(encoder)
    if classes is None or not is_unlabelled(source):
        return None
    heard = hear(audio_files(source), encoder, classes)
    # The surest class of each recording, the most frequent first.
    counts = Counter(words.labels[0] for words in heard.values())
    told = ", ".join(f"{label} {count}" for label, count in counts.most_common())
    print(
        f"{source} has no labels. What the frozen encoder hears stands in their place: {told or 'nothing'}.\n"
        "These are weak labels: figures on them show agreement with the encoder, not whether it is right."
    )
    return heard


def _recipe(stage: int, quickstart: Quickstart, manifests: Sequence[Path]) -> Recipe:
    """Return the recipe of a stage, with its manifests, its seed and, for stage 2, its start."""
    overrides: list[str] = []
    if quickstart.source is not None:
        overrides += SOURCE_OVERRIDES[stage - 1]
    if quickstart.smoke:
        overrides += SMOKE_OVERRIDES[stage - 1]
    if quickstart.source is not None:  # the recipe weighs tasks that a source does not have
        overrides.append("data.mixture={}")
    recipe = load_recipe(f"quickstart/stage{stage}", overrides)
    data = dataclasses.replace(recipe.data, manifests=tuple(str(path) for path in manifests))
    start = str(quickstart.output / "stage1") if stage == 2 else None
    return dataclasses.replace(recipe, data=data, start=start, seed=quickstart.seed)


def _count_clips(examples: Sequence[Example], features: Features) -> dict[str, int]:
    """Return the number of usable clips in each split, in the order in which the splits appear."""
    counts: dict[str, int] = {}
    for example in examples:
        counts[example.split] = counts.get(example.split, 0) + features.has(example)
    return counts


def _skipped(features: Features, manifests: Sequence[Path]) -> list[Skipped]:
    """Return the clips that could not be used, from the making of the manifests on."""
    skipped = []
    for manifest in manifests:
        for clip in read_skipped(manifest):
            skipped.append(Skipped(clip.get("id", ""), clip["audio"], clip["reason"]))
    return skipped + features.skipped


def _commands(quickstart: Quickstart) -> list[str]:
    """Return commands that use the trained model."""
    folder = quickstart.output
    return [
        f"mint caption {folder} FILE.wav",
        f"mint classify {folder} FILE.wav --labels guitar,piano,rain",
        f'mint search {folder} "a loud drum" FOLDER',
    ]
