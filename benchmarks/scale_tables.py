"""Print the computed tables of docs/scale.md: FLOPs, memory, hours and the feature cache at the paper's size.

    python benchmarks/scale_tables.py

Nothing is measured; the counts are those of `mint.training.estimate`, and of torch's counter for the audio encoder.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModel, AutoModelForSeq2SeqLM

from mint.encoders.waveform import WaveformEncoder
from mint.model.bridge_net import BridgeNet
from mint.model.stage1 import Stage1
from mint.training.costs import encode_one
from mint.training.estimate import (
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
)

GIB = 2**30
TERA = 1e12


def main() -> None:
    auto: Any = AutoModel
    seq2seq: Any = AutoModelForSeq2SeqLM
    with torch.device("meta"):
        bridge = BridgeNet(**BRIDGE)
        stage1 = numbers(Stage1(bridge=bridge, dec_token=1))
        stage2 = numbers(bridge) + BRIDGE["width"] * 2048 + 2048
        language = numbers(seq2seq.from_config(flan_t5_xl())) + 32128 * 2048  # its head, which the checkpoint has apart
    print(f"numbers: stage 1 {stage1:,} trained, stage 2 {stage2:,} trained, language model {language:,}\n")
    sizes = bridge_sizes()
    encoder = WaveformEncoder(auto.from_config(data2vec_base()), "random")
    frames, encoding = encode_one(encoder, SECONDS)
    assert frames == FRAMES
    print_steps(sizes, stage1, stage2, language)
    print_runs(sizes)
    print_cache(encoding, frames, encoder.width, numbers(encoder))


def print_steps(sizes: BridgeSizes, stage1: int, stage2: int, language: int) -> None:
    print("| step of one GPU | forward, TFLOP | with backward, TFLOP | memory, GiB | A100, s | H100, s |")
    print("|---|---|---|---|---|---|")
    for name, work, trained, frozen in (
        ("stage 1, batch 64, one of 8 ranks", stage1_work(sizes, shapes(ranks=RANKS)), stage1, 0),
        ("stage 1, batch 64, alone", stage1_work(sizes, shapes()), stage1, 0),
        ("stage 1, batch 512, alone", stage1_work(sizes, shapes(BATCH * RANKS)), stage1, 0),
        ("stage 1, batch 64, ALC alone", stage1_work(sizes, shapes(), True, False, False), stage1, 0),
        ("stage 1, batch 64, 30 s clips", stage1_work(sizes, shapes(frames=1499)), stage1, 0),
        ("stage 2, batch 64", stage2_work(sizes, language_sizes(), shapes()), stage2, language),
    ):
        memory = memory_bytes(work, trained, frozen, mixed=True, frozen_bytes=2)["in all"]
        seconds = [step_seconds(work, device) for device in PEAK_FLOPS]
        print(
            f"| {name} | {work.forward / TERA:.2f} | {work.flops / TERA:.1f} | {memory / GIB:.1f} "
            f"| {seconds[0]:.3f} | {seconds[1]:.3f} |"
        )


def print_runs(sizes: BridgeSizes) -> None:
    print(f"\nat {UTILISATION:.0%} of the bf16 peak, features cached\n")
    print("| run | steps | 8 A100, h | 1 H100, h |\n|---|---|---|---|")
    works: dict[str, tuple[int, Work, Work]] = {
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
    for name, (clips, many, one) in works.items():
        steps = clips // (BATCH * RANKS) * EPOCHS
        hours = step_seconds(many, "A100") * steps / 3600, step_seconds(one, "H100") * steps / 3600
        print(f"| {name} | {steps:,} | {hours[0]:.1f} | {hours[1]:.1f} |")


def print_cache(encoding: int, frames: int, width: int, size: int) -> None:
    a_clip = frames * width * 2
    print(f"\nencoder {size:,} numbers; a clip of 10 s: {encoding / 1e9:.1f} GFLOP, {a_clip / 1e6:.3f} MB in float16\n")
    print("| clips of 10 s | cache, TB | encoding, PFLOP | 8 A100, h | 1 H100, h |\n|---|---|---|---|---|")
    for name, clips in (("WavCaps", WAVCAPS), ("3 M", ALL_CLIPS)):
        work = Work(forward=encoding * clips)
        a100, h100 = step_seconds(work, "A100") / RANKS / 3600, step_seconds(work, "H100") / 3600
        size_of_all, flops = a_clip * clips / TERA, encoding * clips / 1e15
        print(f"| {name}, {clips:,} | {size_of_all:.2f} | {flops:.1f} | {a100:.2f} | {h100:.2f} |")


def numbers(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


if __name__ == "__main__":
    main()
