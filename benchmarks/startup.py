"""How long does training take to start on a manifest of a million lines, and how much memory does that need?

The clips are hard links to a few files, each line a part of its own, so that there are as many paths, as many parts
and as many features as lines; the features are made up. Each phase of a start, as `mint train` has them, up to the
first batch, in a process of its own: the first time, when nothing is known of manifest and files but that the features
are there, and once more. Models are tiny: what a real one takes comes on top. Then the check of the lines
(`mint data validate --audio none`) and the leakage report, on the same manifest.

    python benchmarks/startup.py [--lines 1000000]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

START = time.perf_counter()

import torch  # noqa: E402

from common import Row, in_child, parser, report  # noqa: E402

Found = dict[str, tuple[float, float, int]]
"""Of each phase: seconds, seconds of processor time, and the peak of the memory up to its end."""
STAGES = {"first start": "stage1", "next start": "stage1", "next start, stage 2": "stage2"}
FILES, LINKS = 32, 60_000
"""Real files; links to one that the common file systems allow."""
STEP = 0.001
"""Seconds from the start of one line's clip to that of the next in its file."""
SHARD = 256
TESTS = 1000
SECONDS, BYTES, VALIDATION = 10.0, 2.0**30, 60.0
"""What is wanted of a start, and of the validation of the lines."""
RECIPE: dict[str, Any] = {
    "encoder": {"family": "tiny"},
    "bridge": {"weights": "tiny", "num_layers": 2, "num_queries": 4},
    "training": {"max_steps": 1, "per_device_train_batch_size": 64, "report_to": [], "disable_tqdm": True},
}


def main() -> None:
    options = read_options()
    if options.child:
        print(json.dumps(CHILDREN[options.child](options.folder)))
        return
    lines = 2000 if options.quick else options.lines
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        os.environ["MINT_CACHE"] = str(folder / "cache")
        make_manifest(folder, lines)
        rows = [Row(f"{lines} files", "digests of all files, once", "s", child("digests", folder)["all"][0])]
        make_features(folder)
        for case in ("first start", "next start", "next start, stage 2"):
            rows += of_start(f"{lines} lines, {case}", child(STAGES[case], folder), case != "first start")
        for name, limit in (("validate", VALIDATION), ("leakage", None)):
            seconds, processor, peak = child(name, folder)["all"]
            rows.append(Row(f"{lines} lines", name, "s", seconds, "the aim" if limit else "", limit, aim=limit and 1.0))
            rows.append(Row(f"{lines} lines", f"{name}, processor time", "s", processor))
            rows.append(Row(f"{lines} lines", f"{name}, peak memory", "B", peak))
    report("startup", rows, options)


def read_options() -> argparse.Namespace:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--lines", type=int, default=1_000_000, help="of the manifest (1000000)")
    options.add_argument("--scratch", type=Path, help="folder for some GB of files (the system's)")
    options.add_argument("--child", choices=sorted(CHILDREN), help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return options.parse_args()


def of_start(case: str, found: Found, is_wanted: bool) -> list[Row]:
    """Rows of a start: its phases, and what they come to."""
    rows = [Row(case, phase, "s", seconds) for phase, (seconds, _, _) in found.items()]
    seconds, processor = (sum(values[place] for values in found.values()) for place in (0, 1))
    aim = 1.0 if is_wanted else None
    return [
        *rows,
        Row(case, "in all", "s", seconds, "the aim", SECONDS, aim),
        Row(case, "in all, processor time", "s", processor),
        Row(case, "peak memory", "B", max(peak for _, _, peak in found.values()), "the aim", BYTES, aim),
    ]


def child(name: str, folder: Path) -> Found:
    """What a child measured."""
    found: Found = in_child("startup.py", ["--child", name, "--folder", str(folder)])
    return found


def make_manifest(folder: Path, lines: int) -> None:
    """A manifest of parts of hard links, with captions and labels of four tasks."""
    import numpy as np
    import soundfile

    for number in range(FILES):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 2000)
        soundfile.write(folder / f"{number}.flac", noise, 16000)
    with (folder / "clips.jsonl").open("w", encoding="utf-8") as manifest:
        for number in range(lines):
            place = f"audio/{number // 1000}/{number}.flac"
            if number % 1000 == 0:
                (folder / place).parent.mkdir(parents=True)
            os.link(folder / f"{number // LINKS % FILES}.flac", folder / place)
            line = {
                "id": f"{number:09d}",
                "audio": place,
                "start": round(number * STEP, 3),
                "duration": 0.5,
                "task": ("sounds", "music", "notes", "captioning")[number % 4],
                "prompt": "This is a sound of",
                "answer": f"thing {number % 527}",
                "labels": [f"thing {number % 527}"],
                "captions": [f"Thing {number} is heard beside a road, twice, and then thing {number % 1009} answers."],
                "split": "train",
                "corpus": "made up",
                "metadata": {"youtube_id": f"{number:011d}"},
            }
            manifest.write(json.dumps(line) + "\n")
    time.sleep(3)  # files that were touched just now are not remembered


def make_features(folder: Path) -> None:
    """Features of all clips, one moment each, under the keys that the clips have."""
    from mint.data.features.cache import FeatureCache, part_key
    from mint.data.features.prepare import open_cache
    from mint.encoders.tiny import TinyEncoder

    cache: FeatureCache = open_cache(TinyEncoder(), 30.0)
    moment = torch.zeros(1, TinyEncoder.width)
    batch: dict[bytes, list[torch.Tensor]] = {}
    with (folder / "clips.jsonl").open(encoding="utf-8") as manifest:
        for text in manifest:
            line = json.loads(text)
            whole = cache.digests.of(folder / line["audio"])
            batch[part_key(whole, line["start"], line["duration"])] = [moment]
            if len(batch) == SHARD:
                cache.write(batch)
                batch = {}
    if batch:
        cache.write(batch)


def start(folder: Path, stage: int) -> Found:
    """A start of training to its first batch."""
    from mint.builders.encoder import build_encoder
    from mint.config import recipe_from_dict
    from mint.data.features.prepare import open_examples, prepare_features
    from mint.training.train import prepare, split, used_splits

    values: dict[str, Any] = {"name": "tiny", "stage": stage, **RECIPE}
    if stage == 2:
        values |= {"language": {"family": "tiny"}, "data": {"group_by_length": True}}
    recipe = recipe_from_dict(values)
    recipe = replace(recipe, data=replace(recipe.data, manifests=(str(folder / "clips.jsonl"),)))
    phases = Phases()
    phases.done("imports")
    examples = open_examples(recipe.data.manifests, used_splits(recipe))
    phases.done("manifest")
    encoder = build_encoder(recipe.encoder)
    features = prepare_features(encoder, examples)
    if features.encoded or features.skipped:
        raise SystemExit("not all features were there")
    phases.done("features")
    usable = split(features.usable(examples))
    trainer = prepare(recipe, folder / "run", *usable, features.draw, encoder).trainer
    phases.done("models, items and mixture")
    next(iter(trainer.get_train_dataloader()))
    phases.done("first batch")
    return phases.found


class Phases:
    """Measures phases, from the start of the process."""

    def __init__(self) -> None:
        self.found: Found = {}
        self._before = START
        self._processor = 0.0

    def done(self, name: str) -> None:
        """Note a phase."""
        now, processor = time.perf_counter(), time.process_time()
        self.found[name] = (now - self._before, processor - self._processor, peak())
        self._before, self._processor = now, processor


def peak() -> int:
    """Largest resident size of this process, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def timed(call: Callable[[], object]) -> Found:
    phases = Phases()
    phases.done("imports")
    call()
    phases.done("all")
    return {"all": phases.found["all"]}


def digests(folder: Path) -> Found:
    from mint.data.features.file_digests import Digests

    kept = Digests(folder / "cache" / "features" / "digests")

    def read() -> None:
        for path in sorted((folder / "audio").rglob("*.flac")):
            kept.of(path)
        kept.save()

    return timed(read)


def validation(folder: Path) -> Found:
    from mint.data.manifests.validate import validate

    return timed(lambda: validate([folder / "clips.jsonl"], audio="none"))


def leakage(folder: Path) -> Found:
    """All lines against some of them, taken as a test split with files of its own."""
    from itertools import islice

    from mint.data.manifests.leakage import find_leakage
    from mint.data.manifests.manifest import read_manifest

    def tests() -> Iterator[Any]:
        for example in islice(read_manifest(folder / "clips.jsonl"), TESTS):
            yield replace(example, split="test", corpus="tested", audio=folder / "clips.jsonl")

    return timed(lambda: find_leakage(read_manifest(folder / "clips.jsonl"), tests()))


CHILDREN: dict[str, Callable[[Path], Found]] = {
    "digests": digests,
    "stage1": lambda folder: start(folder, 1),
    "stage2": lambda folder: start(folder, 2),
    "validate": validation,
    "leakage": leakage,
}


if __name__ == "__main__":
    main()
