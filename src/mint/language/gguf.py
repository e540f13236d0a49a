"""Turn a GGUF file into a folder that transformers loads fast: safetensors in float32, configuration, tokenizer.

The reading is transformers' own GGUF support; it takes tens of seconds, so it is done once. One detail is mended: it
leaves out SmolLM's splitting of digits (GGUF's `tokenizer.ggml.pre`), so that white space before a digit came out as
other tokens than in training.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from mint.assets import build_once
from mint.types import MintError

if TYPE_CHECKING:
    from pathlib import Path


def converted(folder: Path) -> Path:
    """Return the folder, beside `folder`, that holds its one .gguf file converted; it is made on the first call.

    Raises:
        MintError: not exactly one .gguf file, or the package `gguf` is not installed.
    """
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise MintError(f"{folder} holds {len(files)} .gguf files; exactly one is needed")
    return build_once(folder.with_name(f"{folder.name}-safetensors"), lambda target: _convert(files[0], target))


def _convert(file: Path, target: Path) -> None:
    """Write the model and the tokenizer of a .gguf file into a folder."""
    if importlib.util.find_spec("gguf") is None:
        raise MintError(f"reading {file.name} needs the package gguf; pip install 'mint-audio[quickstart]'")

    import torch
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # In float32, which all devices compute in; a quantised model would be unpacked at every start.
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.model_max_length = model.config.max_position_embeddings
    # transformers leaves this field out: SmolLM's tokenizer splits numbers into digits before anything else.
    style = GGUFReader(file).get_field("tokenizer.ggml.pre")
    if style is not None and style.contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), tokenizer.backend_tokenizer.pre_tokenizer]
        )
    tokenizer.save_pretrained(target)
