"""Tiny transformers audio models with random weights, and their feature extractors."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from tiny_models import randomise

WAVEFORM = ("data2vec", "wav2vec2", "wav2vec2-group", "wav2vec2-stable", "hubert", "hubert-batch-norm", "wavlm")
SPECTROGRAM = ("whisper", "ast", "clap", "clap-fused")


def tiny_waveform_model(kind: str, seed: int = 0) -> Any:
    """Two blocks of width 32 over two convolutions: a frame each 20 samples, the first of 50; SpecAugment is on."""
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "conv_dim": (16, 16),
        "conv_kernel": (10, 9),
        "conv_stride": (5, 4),
        "num_conv_pos_embedding_groups": 4,
        "mask_time_prob": 0.9,
        "mask_time_length": 2,
        "layerdrop": 0.5,
    }
    layer_norm: dict[str, Any] = {**sizes, "feat_extract_norm": "layer", "num_conv_pos_embeddings": 8}
    models = {
        "data2vec": lambda: Data2VecAudioModel(
            Data2VecAudioConfig(**sizes, num_conv_pos_embeddings=3, conv_pos_kernel_size=5)
        ),
        "wav2vec2": lambda: Wav2Vec2Model(Wav2Vec2Config(**layer_norm)),
        "wav2vec2-group": lambda: Wav2Vec2Model(Wav2Vec2Config(**{**layer_norm, "feat_extract_norm": "group"})),
        "wav2vec2-stable": lambda: Wav2Vec2Model(Wav2Vec2Config(**layer_norm, do_stable_layer_norm=True)),
        "hubert": lambda: HubertModel(HubertConfig(**layer_norm)),
        "hubert-batch-norm": lambda: HubertModel(HubertConfig(**layer_norm, conv_pos_batch_norm=True)),
        "wavlm": lambda: WavLMModel(WavLMConfig(**layer_norm, num_buckets=16, max_bucket_distance=20)),
    }
    return _random(models[kind](), seed)  # type: ignore[no-untyped-call]


def tiny_spectrogram_model(kind: str, seed: int = 0) -> tuple[Any, Any]:
    """A model of width 32 over windows of 1 s, and its feature extractor."""
    if kind == "whisper":
        config = WhisperConfig(
            vocab_size=20,
            d_model=32,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            num_mel_bins=16,
            max_source_positions=50,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
        return _random(WhisperModel(config), seed), _extractor(WhisperFeatureExtractor, feature_size=16, chunk_length=1)
    if kind == "ast":
        ast = ASTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            num_mel_bins=32,
            max_length=100,
            hidden_dropout_prob=0.5,
        )
        return _random(ASTModel(ast), seed), _extractor(ASTFeatureExtractor, num_mel_bins=32, max_length=100)
    fused = kind == "clap-fused"
    clap = ClapAudioConfig(
        window_size=4,
        num_mel_bins=16,
        spec_size=64,
        patch_embeds_hidden_size=16,
        hidden_size=32,
        depths=[1, 1],
        num_attention_heads=[2, 4],
        patch_embed_input_channels=1,
        enable_fusion=fused,
        drop_path_rate=0.5,
    )
    extractor = ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=16000,
        hop_length=160,
        max_length_s=1,
        truncation="fusion" if fused else "rand_trunc",
    )
    text = ClapTextConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    return _random(ClapModel(ClapConfig(audio_config=clap.to_dict(), text_config=text.to_dict())), seed), extractor


def waveform_extractor() -> Any:
    """The feature extractor of the waveform models."""
    return _extractor(Wav2Vec2FeatureExtractor, do_normalize=True, return_attention_mask=True)


def _extractor(kind: Any, **options: Any) -> Any:
    return kind(**options)


def _random(model: Any, seed: int) -> Any:
    randomise(model, seed, std=0.2)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(seed))
    return model
