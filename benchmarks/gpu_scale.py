"""Both stages at the paper's full size on one GPU, with random weights: clips a second, peak memory, utilisation.

    python benchmarks/gpu_scale.py [--batch 64] [--seconds 10] [--steps 10] [--output FILE]

Batches of 64 clips of 10 s by default, bf16 autocast, AdamW, FlanT5-XL's configuration in bf16. Utilisation is the
FLOPs that `mint.training.dry_run.estimate` counts, over time and the maker's dense bf16 peak. Losses and gradients of
the same small models on padded batches are compared: on the CPU in float32 with the GPU in float32, the losses with its
bf16.
What does not fit into memory is named, and stops nothing else. Without a GPU it says so and measures nothing;
`--rehearse` runs all of it on the CPU with tiny sizes, to see that it works.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModel, Data2VecAudioConfig, T5Config

from mint.encoders.waveform import WaveformEncoder
from mint.language.seq2seq import Seq2SeqLanguageModel
from mint.model.bridge_net import BridgeNet
from mint.model.freeze import freeze
from mint.model.stage1 import Stage1
from mint.model.stage2 import Stage2
from mint.training.dry_run.estimate import (
    PEAK_FLOPS,
    BridgeSizes,
    LanguageSizes,
    Shapes,
    Work,
    memory_bytes,
    stage1_work,
    stage2_work,
)
from paper_size import BRIDGE, data2vec_base, flan_t5_xl, t5

PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, **PEAK_FLOPS, "H200": 989e12}
"""Dense bf16 FLOP/s by what stands in the card's name; the first that does counts."""
TINY_BRIDGE = {**BRIDGE, "width": 48, "num_heads": 4, "intermediate": 96, "num_layers": 2, "vocab_size": 99}
TINY_T5: dict[str, Any] = {
    **{"vocab_size": 99, "d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_heads": 4},
    **{"feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0},
}
TINY_DATA2VEC: dict[str, Any] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
    **{"conv_dim": (16, 16), "conv_kernel": (10, 8), "conv_stride": (80, 4), "num_conv_pos_embedding_groups": 4},
    **{"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5},
}
TOLERANCES = {"float32": 1e-4, "gradients": 1e-3, "bf16": 0.02}
"""Relative: of the losses in float32, of all gradients as one vector, of the losses in bf16."""


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--steps", type=int, default=10, help="measured steps, after three that are not")
    options.add_argument("--output", type=Path, default=Path("benchmarks/results/gpu_scale.json"))
    options.add_argument("--rehearse", action="store_true", help="tiny sizes on the CPU: no figures of any use")
    chosen = options.parse_args()
    if not chosen.rehearse and not torch.cuda.is_available():
        print("no GPU here: nothing is measured; --rehearse runs the script on the CPU with tiny sizes")
        return 0
    device = torch.device("cpu" if chosen.rehearse else "cuda")
    results = measure(chosen, device)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))
    return 0 if all(row["agrees"] for row in results["agreement"]) else 1


def measure(chosen: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    tiny = chosen.rehearse
    name = "cpu, rehearsal" if tiny else torch.cuda.get_device_name()
    peak = next((flops for key, flops in PEAKS.items() if key in name), None)
    frames = 20 if tiny else round(chosen.seconds * 50) - 1
    shapes = Shapes(min(chosen.batch, 4) if tiny else chosen.batch, frames, text=30, prompt=12, answer=30)
    record: dict[str, Any] = {
        "device": name,
        "peak_flops": peak,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "shapes": dataclasses.asdict(shapes),
        "seconds_of_audio": chosen.seconds,
        "weights": "random, of the published sizes",
        "cases": {},
    }
    cases: dict[str, Callable[[], dict[str, Any]]] = {
        "encoder": lambda: encoder_case(shapes.batch, chosen, device),
        "stage 1": lambda: step_case(1, shapes, chosen, device, peak),
        "stage 2": lambda: step_case(2, shapes, chosen, device, peak),
    }
    for case, run in cases.items():
        try:
            record["cases"][case] = run()
        except torch.OutOfMemoryError as error:
            record["cases"][case] = {"out_of_memory": str(error).splitlines()[0]}
        if device.type == "cuda":
            torch.cuda.empty_cache()
    record["agreement"] = [agreement(stage, device) for stage in (1, 2)]
    return record


def build_stage1(shapes: Shapes, tiny: bool) -> tuple[nn.Module, Work]:
    sizes = TINY_BRIDGE if tiny else BRIDGE
    model = Stage1(bridge=BridgeNet(**sizes), dec_token=sizes["vocab_size"] - 1)
    return model, stage1_work(BridgeSizes.of(sizes), shapes)


def build_stage2(shapes: Shapes, tiny: bool, dtype: torch.dtype = torch.bfloat16) -> tuple[nn.Module, Work]:
    sizes = TINY_BRIDGE if tiny else BRIDGE
    config = T5Config(**TINY_T5) if tiny else flan_t5_xl()
    language = t5(config, dtype)
    freeze(language)
    model = Stage2(bridge=BridgeNet(**sizes), language=Seq2SeqLanguageModel(language, None, "random"))
    return model, stage2_work(BridgeSizes.of(sizes), LanguageSizes.of(config), shapes)


def batch_of(
    stage: int, shapes: Shapes, model: Any, device: torch.device | str, padded: bool = False
) -> dict[str, Tensor]:
    """Random clips and texts, of full length or of all lengths from a half on."""
    generator = torch.Generator().manual_seed(0)

    def ids(length: int, vocabulary: int) -> Tensor:
        return torch.randint(3, vocabulary - 1, (shapes.batch, length), generator=generator)

    def real(length: int) -> Tensor:
        lengths = torch.linspace(length // 2 if padded else length, length, shapes.batch).long()
        return torch.arange(length) < lengths[:, None]

    width, words = model.bridge.audio_norm.normalized_shape[0], model.bridge.word_embeddings.num_embeddings
    audio = torch.randn(shapes.batch, shapes.frames, width, generator=generator)
    batch = {"audio_features": audio, "audio_mask": real(shapes.frames)}
    text = {"ids": ids(shapes.text, words), "mask": real(shapes.text)}
    if stage == 1:
        batch |= {f"text_{name}": value for name, value in text.items()} | {"draws": torch.arange(shapes.batch)}
    else:
        batch |= {f"instruction_{name}": value for name, value in text.items()}
        vocabulary = model.language.embedding.num_embeddings
        batch |= {"prompt_ids": ids(shapes.prompt, vocabulary), "prompt_mask": real(shapes.prompt)}
        batch["labels"] = ids(shapes.answer, vocabulary).masked_fill(~real(shapes.answer), -100)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def step_case(
    stage: int, shapes: Shapes, chosen: argparse.Namespace, device: torch.device, peak: float | None
) -> dict[str, Any]:
    """Time and memory of whole training steps."""
    with torch.device(device):
        model, work = (build_stage1 if stage == 1 else build_stage2)(shapes, chosen.rehearse)
    batch, on_gpu = batch_of(stage, shapes, model, device), device.type == "cuda"
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=on_gpu)
    losses: list[Tensor] = []

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = model(**batch)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.detach())

    model.train()
    seconds = timed(step, chosen.steps, on_gpu)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    language: Any = getattr(model, "language", None)
    frozen = sum(int(parameter.numel()) for parameter in language.model.parameters()) if language is not None else 0
    return {
        "seconds_a_step": seconds,
        "clips_a_second": shapes.batch / seconds,
        "flop_a_step": work.flops,
        "utilisation": work.flops / seconds / peak if peak else None,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "computed_memory_bytes": memory_bytes(work, trained, frozen, mixed=True, frozen_bytes=2)["in all"],
        "trained": trained,
        "frozen": frozen,
        "first_loss": float(losses[0]),
        "last_loss": float(losses[-1]),
    }


def encoder_case(batch: int, chosen: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time and memory of encoding, as the feature cache does it, in float32 and under bf16 autocast."""
    config = Data2VecAudioConfig(**TINY_DATA2VEC) if chosen.rehearse else data2vec_base()
    with torch.device(device):
        auto: Any = AutoModel
        encoder = WaveformEncoder(auto.from_config(config), "random").to(device)
    on_gpu = device.type == "cuda"
    waveform = torch.randn(batch, round(16000 * (0.5 if chosen.rehearse else chosen.seconds)), device=device)
    lengths = torch.full((batch,), waveform.shape[1], device=device)
    case: dict[str, Any] = {}
    for name, enabled in (("float32", False), ("bf16", True)):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
            seconds = timed(lambda: encoder.encode(waveform, lengths), chosen.steps, on_gpu)
        memory = torch.cuda.max_memory_allocated() if on_gpu else None
        case[name] = {"clips_a_second": batch / seconds, "peak_memory_bytes": memory}
    return case


def timed(call: Callable[[], object], steps: int, on_gpu: bool) -> float:
    """Seconds of one call, the mean of `steps` after three."""

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        call()
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        call()
    wait()
    return (time.perf_counter() - start) / steps


def agreement(stage: int, device: torch.device) -> dict[str, Any]:
    """Losses and gradients of the same small model and padded batch, on the CPU and on the device."""
    torch.manual_seed(0)
    shapes = Shapes(batch=8, frames=50, text=12, prompt=9, answer=7)
    model: Any
    model, _ = build_stage1(shapes, True) if stage == 1 else build_stage2(shapes, True, torch.float32)
    batch = batch_of(stage, shapes, model, "cpu", padded=True)
    model.eval()
    plain, gradients = losses_and_gradients(model, batch)
    moved = copy.deepcopy(model).to(device)
    on_device = {name: tensor.to(device) for name, tensor in batch.items()}
    if stage == 2:
        moved.language.model.to(device)
    same, moved_gradients = losses_and_gradients(moved, on_device)
    if stage == 2:
        moved.language.model.to(torch.bfloat16)
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
        half = {name: float(value) for name, value in moved(**on_device).items()}
    differences = {
        "float32": max(abs(same[name] - value) / abs(value) for name, value in plain.items()),
        "gradients": float((moved_gradients - gradients).norm() / gradients.norm()),
        "bf16": max(abs(half[name] - value) / abs(value) for name, value in plain.items()),
    }
    agrees = all(differences[name] <= tolerance for name, tolerance in TOLERANCES.items())
    return {"stage": stage, "losses": plain, "relative_differences": differences, "agrees": agrees}


def losses_and_gradients(model: nn.Module, batch: dict[str, Tensor]) -> tuple[dict[str, float], Tensor]:
    """Losses by name, and the gradients of all weights as one vector on the CPU."""
    model.zero_grad()
    losses = model(**batch)
    losses["loss"].backward()
    gradients = [parameter.grad.flatten().cpu() for parameter in model.parameters() if parameter.grad is not None]
    return {name: float(value) for name, value in losses.items()}, torch.cat(gradients)


if __name__ == "__main__":
    sys.exit(main())
