"""Write the computed tables of docs/scale.md: FLOPs, memory, hours, the feature cache and what moves, at paper size.

    python benchmarks/scale_tables.py

puts them between their marks in that page; a test holds the page to them. Nothing is measured; the counts are those of
`mint.training.dry_run.estimate`, and of torch's counter for the audio encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from mint.encoders.waveform import WaveformEncoder
from mint.language.seq2seq import Seq2SeqLanguageModel
from mint.model.bridge_net import BridgeNet
from mint.model.freeze import freeze
from mint.model.stage1 import Stage1
from mint.model.stage2 import Stage2
from mint.training.dry_run.costs import encode_one
from mint.training.dry_run.estimate import (
    PEAK_FLOPS,
    UTILISATION,
    BridgeSizes,
    Work,
    memory_bytes,
    stage1_work,
    stage2_work,
    step_seconds,
)
from paper_size import (
    ALL_CLIPS,
    BATCH,
    BRIDGE,
    EPOCHS,
    FRAMES,
    RANKS,
    SECONDS,
    WAVCAPS,
    bridge_sizes,
    data2vec_base,
    flan_t5_xl,
    language_sizes,
    shapes,
    t5,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scale.md"
GIB = 2**30
TERA = 1e12
CLIP_BYTES = FRAMES * BRIDGE["audio_width"] * 2
"""Of a cached clip, in float16."""
SHARED = 256
"""Width of the space in which ALC compares."""


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, tables()), encoding="utf-8")
    print(f"{PAGE}: tables written")


def filled(page: str, made: Mapping[str, str]) -> str:
    """The page with each table between its marks."""
    for name, text in made.items():
        before, mark, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        assert end, f"{PAGE} has no place for the table {name!r}"
        page = before + mark + text + end + after
    return page


def tables() -> dict[str, str]:
    """All tables by the names of their marks."""
    numbers = sizes_of_models()
    frames, encoding = encode_one(WaveformEncoder(data2vec(), "random"), SECONDS)
    assert frames == FRAMES
    sizes = bridge_sizes()
    return {
        "models": table(("", "numbers"), [(name, f"{count:,}") for name, count in numbers.items()]),
        "steps": steps(sizes, list(numbers.values()), encoding),
        "runs": runs(sizes),
        "cache": cache(encoding),
        "traffic": traffic(sizes, list(numbers.values())),
    }


def sizes_of_models() -> dict[str, int]:
    with torch.device("meta"):
        language = t5(flan_t5_xl())
        frozen = count(language)
        freeze(language)
        stage1 = Stage1(bridge=BridgeNet(**BRIDGE), dec_token=1)
        stage2 = Stage2(bridge=BridgeNet(**BRIDGE), language=Seq2SeqLanguageModel(language, None, "random"))
        encoder = count(data2vec())
    return {
        "stage 1: Bridge-Net and its heads, trained": count(stage1),
        "stage 2: Bridge-Net and the projection, trained": count(stage2),
        "data2vec-base, frozen": encoder,
        "FlanT5-XL, frozen": frozen,
    }


def steps(sizes: BridgeSizes, numbers: Sequence[int], encoding: int) -> str:
    stage1, stage2, _, language = numbers
    saving = BridgeSizes.of(BRIDGE, checkpointed=True)
    cases = (
        ("stage 1, batch 64, one of 8 ranks", stage1_work(sizes, shapes(ranks=RANKS)), stage1, 0),
        ("stage 1, batch 64, alone", stage1_work(sizes, shapes()), stage1, 0),
        ("stage 1, batch 512, alone", stage1_work(sizes, shapes(BATCH * RANKS)), stage1, 0),
        ("the same, activation checkpointing", stage1_work(saving, shapes(BATCH * RANKS)), stage1, 0),
        ("stage 1, batch 64, ALC alone", stage1_work(sizes, shapes(), True, False, False), stage1, 0),
        ("stage 1, batch 64, 30 s clips", stage1_work(sizes, shapes(frames=1499)), stage1, 0),
        ("stage 2, batch 64", stage2_work(sizes, language_sizes(), shapes()), stage2, language),
    )
    rows = []
    for name, work, trained, frozen in cases:
        memory = memory_bytes(work, trained, frozen, mixed=True, frozen_bytes=2)["in all"]
        rows.append((name, *flops(work), f"{memory / GIB:.1f}", *seconds(work)))
    added = Work(forward=encoding * BATCH)
    rows.append(("encoding 64 clips of 10 s in the step adds", *flops(added), "", *seconds(added)))
    head = ("step of one GPU", "forward, TFLOP", "with backward, TFLOP", "memory, GiB", "A100, s", "H100, s")
    return table(head, rows)


def runs(sizes: BridgeSizes) -> str:
    cases = {
        "stage 1, WavCaps, 10 epochs": (
            WAVCAPS,
            stage1_work(sizes, shapes(ranks=RANKS)),
            stage1_work(sizes, shapes(BATCH * RANKS)),
        ),
        "stage 2, 3 M pairs, 10 epochs": (
            ALL_CLIPS,
            stage2_work(sizes, language_sizes(), shapes()),
            stage2_work(sizes, language_sizes(), shapes()) * RANKS,
        ),
    }
    rows = []
    for name, (clips, many, one) in cases.items():
        number = math.ceil(clips / (BATCH * RANKS)) * EPOCHS
        hours = step_seconds(many, "A100") * number / 3600, step_seconds(one, "H100") * number / 3600
        rows.append((name, f"{number:,}", f"{hours[0]:.2f}", f"{hours[1]:.2f}"))
    return table(("run", "steps", "8 A100, h", "1 H100, h"), rows)


def cache(encoding: int) -> str:
    rows = []
    for name, clips in (("one clip", 1), (f"WavCaps, {WAVCAPS:,}", WAVCAPS), (f"3 M, {ALL_CLIPS:,}", ALL_CLIPS)):
        work = Work(forward=encoding * clips)
        hours = step_seconds(work, "A100") / RANKS / 3600, step_seconds(work, "H100") / 3600
        whole = clips > 1
        size = f"{CLIP_BYTES * clips / TERA:.2f} TB" if whole else f"{CLIP_BYTES / 1e6:.3f} MB"
        done = f"{work.forward / 1e15:.1f} PFLOP" if whole else f"{work.forward / 1e9:.1f} GFLOP"
        rows.append((name, size, done, *(f"{value:.2f}" if whole else "" for value in hours)))
    faster = SECONDS / step_seconds(Work(forward=encoding), "A100")
    lines = table(("clips of 10 s", "cache", "encoding", "8 A100, h", "1 H100, h"), rows)
    return f"{lines}\nAt {UTILISATION:.0%} of its peak an A100 encodes {faster:,.0f} times faster than real time.\n"


def traffic(sizes: BridgeSizes, numbers: Sequence[int]) -> str:
    """What is read and what travels."""
    stage1, stage2, *_ = numbers
    rows = []
    for name, work in (
        ("stage 1, one of 8 ranks", stage1_work(sizes, shapes(ranks=RANKS))),
        ("stage 2", stage2_work(sizes, language_sizes(), shapes())),
    ):
        read = [BATCH * CLIP_BYTES / step_seconds(work, device) for device in PEAK_FLOPS]
        rows.append((f"{name}: features that a GPU reads", *(f"{value / 1e6:,.0f} MB/s" for value in read)))
        rows.append((f"{name}: that eight GPUs read", *(f"{value * RANKS / 1e9:.1f} GB/s" for value in read)))
    gathered = BATCH * (sizes.num_queries + 1) * SHARED * 4
    for name, size in (
        ("stage 1: gradients", stage1 * 4),
        ("stage 1: embeddings that ALC gathers from each rank", gathered),
        ("stage 1: features that ALM fetches, at most, for each rank", BATCH * CLIP_BYTES * 2),
        ("stage 2: gradients", stage2 * 4),
    ):
        rows.append((name, *[f"{size / 1e6:,.1f} MB a step"] * 2))
    return table(("", "A100", "H100"), rows)


def flops(work: Work) -> tuple[str, str]:
    return f"{work.forward / TERA:.2f}", f"{work.flops / TERA:.1f}"


def seconds(work: Work) -> list[str]:
    return [f"{step_seconds(work, device):.3f}" for device in PEAK_FLOPS]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def data2vec() -> Any:
    auto: Any = AutoModel
    return auto.from_config(data2vec_base())


def count(module: torch.nn.Module) -> int:
    """Numbers that are trained; of a module that is not frozen, all."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


if __name__ == "__main__":
    main()
