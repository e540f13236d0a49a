"""Encoders that were trained to name sounds offer their classifier: YAMNet, and AST with its head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ASTForAudioClassification

from mint.builders.encoder import build_encoder
from mint.config import EncoderConfig
from mint.data.corpora.drawn.draw import draw_maps, make_pool
from mint.encoders.spectrogram import SpectrogramEncoder
from mint.encoders.yamnet import CLASSES, YamNet
from mint.types import NamesClasses
from tiny_encoders import tiny_spectrogram_model
from tiny_models import randomise

NAMES = ("Dog", "Rain", "Speech")


@pytest.fixture(scope="module")
def ast_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny AST with a random head of three classes, as it is kept on disk."""
    model, extractor = tiny_spectrogram_model("ast")
    model.config.id2label = dict(enumerate(NAMES))
    model.config.label2id = {name: number for number, name in enumerate(NAMES)}
    whole = ASTForAudioClassification(model.config)
    randomise(whole, seed=0)
    folder = tmp_path_factory.mktemp("ast")
    whole.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def test_yamnets_classes_give_the_scores_of_its_graph() -> None:
    torch.manual_seed(0)
    encoder = YamNet([f"class {number}" for number in range(CLASSES)])
    assert isinstance(encoder, NamesClasses)
    classes = encoder.named_classes
    sounds = torch.rand(2, classes.samples) - 0.5
    lengths = torch.full((2,), classes.samples)
    features, _ = encoder.encode(sounds, lengths)
    assert features.shape[1] == classes.tokens
    torch.testing.assert_close(
        classes.logits(features.mean(dim=1)).sigmoid(), encoder.class_scores(sounds, lengths), rtol=1e-5, atol=1e-6
    )


def test_an_ast_with_its_head_names_classes(ast_folder: Path) -> None:
    encoder = build_encoder(EncoderConfig(family="spectrogram", weights=str(ast_folder)))
    assert isinstance(encoder, SpectrogramEncoder)
    classes = encoder.named_classes
    assert classes is not None
    assert classes.names == NAMES
    assert classes.least is None
    features, mask = encoder.encode(torch.randn(2, classes.samples), torch.full((2,), classes.samples))
    assert features.shape == (2, classes.tokens, encoder.width)
    assert mask.all()

    # The head of transformers, on vectors that its own normalisation leaves as they are.
    whole: Any = ASTForAudioClassification.from_pretrained(ast_folder)  # in eval mode
    vectors = torch.nn.functional.layer_norm(torch.randn(4, encoder.width), (encoder.width,))
    torch.testing.assert_close(classes.logits(vectors), whole.classifier(vectors), rtol=1e-4, atol=1e-4)


def test_maps_can_be_drawn_for_an_ast(ast_folder: Path) -> None:
    encoder = build_encoder(EncoderConfig(family="spectrogram", weights=str(ast_folder)))
    assert isinstance(encoder, SpectrogramEncoder)
    classes = encoder.named_classes
    assert classes is not None
    features, _ = encoder.encode(torch.randn(20, classes.samples), torch.full((20,), classes.samples))
    targets = torch.tensor([0, 1, 2] * 5)
    are_rivals = torch.ones(3, dtype=torch.bool)
    drawn = draw_maps(make_pool(features, classes), classes, targets, are_rivals, torch.Generator().manual_seed(0))
    assert drawn.shape == (15, classes.tokens, encoder.width)
    assert (classes.logits(drawn.mean(dim=1)).argmax(dim=1) == targets).float().mean() > 0.9


def test_without_the_head_there_are_no_classes(ast_folder: Path) -> None:
    model, extractor = tiny_spectrogram_model("ast")
    assert SpectrogramEncoder(model, extractor, "tiny").named_classes is None
    earlier = EncoderConfig(family="spectrogram", weights=str(ast_folder), layer=1)
    encoder = build_encoder(earlier)
    assert isinstance(encoder, SpectrogramEncoder)
    assert encoder.named_classes is None  # the head reads the last layer
