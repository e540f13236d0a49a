"""How fast is a finished quickstart model in use, from an audio file to a caption and to a class?

One file and 16 at once; how long the first answer takes in a new process; how long the command line takes to start, and
which heavy packages it imports on the way. Without `--run` the model is one of the quickstart's sizes that was trained
for one step: captions are 12 tokens long whatever was learnt, so that the time does not depend on it.

    python benchmarks/inference.py [--run runs/quickstart]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from common import Row, alternate, compare, in_child, parser, report, stopwatch
from mint import Mint
from mint.builders.encoder import build_encoder
from mint.config import Recipe, load_recipe, recipe_from_dict
from mint.data.features.cache import FeatureCache
from mint.data.features.encode import fill_cache
from mint.data.features.prepare import Features
from mint.training.train import train
from mint.types import CAPTION_PROMPT, Example

RATE, SECONDS, FILES = 44100, 10.0, 16
LABELS = ["dog", "rain", "piano", "guitar", "speech", "engine", "applause", "drum", "bird", "bell"]
LENGTH: dict[str, Any] = {"max_new_tokens": 12, "min_new_tokens": 12}
HEAVY = ("torch", "transformers", "sklearn", "scipy", "matplotlib", "soundfile", "accelerate", "pydantic", "numpy")
TINY: dict[str, Any] = {
    "encoder": {"family": "tiny"},
    "bridge": {"weights": "tiny", "num_layers": 2, "num_queries": 4, "max_text_tokens": 40},
}
TRAINING: dict[str, Any] = {"max_steps": 1, "per_device_train_batch_size": 4, "report_to": [], "disable_tqdm": True}


def main() -> None:
    options = read_options()
    if options.first is not None:
        print(json.dumps(first_answer(options.run, options.first)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = write_clips(folder, RATE, SECONDS, FILES)
        run = options.run or make_run(folder / "run", files, options.quick)
        rows = [*measure_calls(run, files, options), *measure_first(run, files[0]), *measure_start(run, files[0])]
        imported = {name: heavy_imports(arguments) for name, arguments in commands(run, files[0]).items()}
    report("inference", rows, options, run=str(options.run or "one step of training"), imported=imported)


def read_options() -> argparse.Namespace:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--run", type=Path, help="folder of a finished run (a model trained for one step)")
    options.add_argument("--first", type=Path, help=argparse.SUPPRESS)
    return options.parse_args()


def write_clips(folder: Path, rate: int, seconds: float, count: int) -> list[Path]:
    """Stereo FLAC files of tones in noise."""
    generator = np.random.default_rng(0)
    times = np.arange(round(rate * seconds)) / rate
    paths = [folder / f"clip{number}.flac" for number in range(count)]
    for number, path in enumerate(paths):
        tone = 0.3 * np.sin(2 * np.pi * 110 * (number + 1) * times)
        soundfile.write(path, tone[:, None] + 0.02 * generator.standard_normal((len(times), 2)), rate)
    return paths


def make_run(folder: Path, files: Sequence[Path], tiny: bool) -> Path:
    """Both stages, trained for one step on the clips: what they say means nothing, what they cost does not change."""
    examples = [
        Example(
            id=path.stem,
            audio=path,
            task="labels",
            split="train",
            corpus="tones",
            prompt=CAPTION_PROMPT,
            answer=LABELS[number % len(LABELS)],
            captions=(f"A tone, number {number}.",),
        )
        for number, path in enumerate(files[:4])
    ]
    recipes = [_recipe(1, tiny), replace(_recipe(2, tiny), start=str(folder / "stage1"))]
    encoder = build_encoder(recipes[0].encoder)
    cache = FeatureCache(folder / "features", encoder.identity)
    filled = fill_cache(cache, encoder, examples, 30.0)
    for recipe in recipes:
        train(recipe, folder / f"stage{recipe.stage}", examples, Features(cache, filled.files, filled.skipped), encoder)
    return folder


def measure_calls(run: Path, files: Sequence[Path], options: argparse.Namespace) -> list[Row]:
    """One file at a time and all at once, in a process that has answered before."""
    mint = Mint.from_pretrained(run)
    rows = []
    paths = [str(file) for file in files]
    calls: dict[str, Callable[[Any], object]] = {
        "caption": lambda audio: mint.caption(audio, **LENGTH),
        "class, 10 labels": lambda audio: mint.classify(audio, LABELS),
    }
    for name, call in calls.items():
        single = alternate({"MINT": partial(call, paths[0])}, options.rounds)
        rows += compare(f"one file of {SECONDS:g} s", f"file to {name}", single)
        factor = statistics.median(single["MINT"]) / SECONDS
        rows.append(Row(f"one file of {SECONDS:g} s", f"file to {name}, seconds a second of audio", "", factor))
        many: dict[str, Callable[[], object]] = {
            "MINT": partial(call, paths),
            "one by one": partial(_each, call, paths),
        }
        rounds = alternate(many, max(1, options.rounds // 2))
        rows += compare(f"{len(files)} files of {SECONDS:g} s, each", f"file to {name}", rounds, per=len(files))
    return rows


def measure_first(run: Path, file: Path) -> list[Row]:
    """The first answer in a new process, from its imports on."""
    found = in_child("inference.py", ["--run", str(run), "--first", str(file)])
    return [Row("new process", name, "s", seconds) for name, seconds in found.items()]


def first_answer(run: Path, file: Path) -> dict[str, float]:
    """What the parent reads: seconds to load and to answer once and once more. Imports came before."""
    loaded: list[Mint] = []
    seconds = {"loading": stopwatch(lambda: loaded.append(Mint.from_pretrained(run)))}
    for name in ("first caption, language model loaded", "second caption"):
        seconds[name] = stopwatch(lambda: loaded[0].caption(str(file), **LENGTH))
    return seconds


def measure_start(run: Path, file: Path) -> list[Row]:
    """Whole processes of the command line, beside one of Python that does nothing."""
    started = {"python -c ''": [sys.executable, "-c", ""]}
    for name, arguments in commands(run, file).items():
        started[name] = [sys.executable, "-m", "mint", *arguments]
    rounds = alternate({name: partial(_run, command) for name, command in started.items()}, 3)
    return [Row("command line", name, "s", statistics.median(seconds)) for name, seconds in rounds.items()]


def commands(run: Path, file: Path) -> dict[str, list[str]]:
    """Command lines by name."""
    return {
        "mint --help": ["--help"],
        "mint classify --help": ["classify", "--help"],
        "mint classify": ["classify", str(run), str(file), "--labels", ",".join(LABELS)],
    }


def heavy_imports(arguments: Sequence[str]) -> list[str]:
    """Which heavy packages a command has imported by its end."""
    code = (
        "import sys, io, contextlib\n"
        "from mint.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    main({list(arguments)!r})\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    return _run([sys.executable, "-c", code]).splitlines()[-1].split()


def _recipe(stage: int, tiny: bool) -> Recipe:
    if tiny:
        language = {"language": {"family": "tiny"}} if stage == 2 else {}
        return recipe_from_dict({"name": "tiny", "stage": stage, **TINY, **language, "training": TRAINING})
    recipe = load_recipe(f"quickstart/stage{stage}")
    return replace(recipe, training={**recipe.training, **TRAINING, "warmup_steps": 0})


def _each(call: Callable[[Any], object], paths: Sequence[str]) -> list[object]:
    return [call(path) for path in paths]


def _run(command: Sequence[str]) -> str:
    finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return finished.stdout or "\n"


if __name__ == "__main__":
    main()
