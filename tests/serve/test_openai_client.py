"""The official client of OpenAI against the server: chats, streams, embeddings, models and errors."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openai
import pytest

from mint.types import CAPTION_PROMPT
from tiny_server import Running, audio_part, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mint import Mint


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, messages: Any, **options: Any) -> Any:
    return client.chat.completions.create(model="tiny", messages=messages, **options)


def test_a_sound_alone_is_captioned(client: openai.OpenAI, mint: Mint, clips: list[Path]) -> None:
    answer = ask(client, [message(clips[0])])
    assert answer.choices[0].message.content == mint.caption(clips[0])
    assert answer.object == "chat.completion"


def test_a_sound_with_a_text_is_asked(client: openai.OpenAI, mint: Mint, clips: list[Path]) -> None:
    answer = ask(client, [message(clips[0], "The pitch is")], max_tokens=7)
    assert answer.choices[0].message.content == mint.ask(clips[0], "The pitch is", max_new_tokens=7)
    assert answer.choices[0].finish_reason == "length"
    # Four queries, and a byte a token.
    assert answer.usage.prompt_tokens == 4 + len("The pitch is")


def test_the_last_sound_and_the_last_text_count(client: openai.OpenAI, mint: Mint, clips: list[Path]) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        message(clips[0], "What is it?"),
        {"role": "assistant", "content": "A tone."},
        message(clips[1]),
        {"role": "assistant", "content": "A tone."},
        {"role": "user", "content": "The pitch is"},
    ]
    assert ask(client, turns).choices[0].message.content == mint.ask(clips[1], "The pitch is")


def test_streams_are_the_same_text_in_pieces(client: openai.OpenAI, mint: Mint, clips: list[Path]) -> None:
    for clip in clips[:4]:
        for usage in (True, False):
            stream = ask(client, [message(clip)], stream=True, stream_options={"include_usage": usage})
            chunks = list(stream)
            texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
            assert "".join(texts) == mint.caption(clip)
            assert len([text for text in texts if text]) > 1
            reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
            assert reasons[-1] in ("stop", "length")
            assert (chunks[-1].usage is not None) is usage


def test_drawn_texts_depend_on_their_seed_alone(client: openai.OpenAI, mint: Mint, clips: list[Path]) -> None:
    def draw(seed: int) -> str:
        answer = ask(client, [message(clips[0])], temperature=1.5, top_p=0.9, seed=seed, max_completion_tokens=12)
        return str(answer.choices[0].message.content)

    texts = [draw(seed) for seed in (1, 2, 1)]
    assert texts[0] == texts[2] != texts[1]
    options: dict[str, Any] = {"do_sample": True, "temperature": 1.5, "top_p": 0.9, "top_k": 0, "max_new_tokens": 12}
    assert texts[0] == mint.ask(clips[0], CAPTION_PROMPT, seed=1, **options)


def test_a_temperature_of_zero_draws_nothing(client: openai.OpenAI, mint: Mint, clips: list[Path]) -> None:
    assert ask(client, [message(clips[0])], temperature=0).choices[0].message.content == mint.caption(clips[0])


def test_embeddings_of_texts(client: openai.OpenAI, mint: Mint) -> None:
    texts = ["a low tone", "rain"]
    expected = mint.embed_text(texts).numpy()
    for options in ({}, {"encoding_format": "float"}):  # without, the client asks for base64
        answer = client.embeddings.create(model="tiny", input=texts, **options)  # type: ignore[arg-type]
        np.testing.assert_allclose([row.embedding for row in answer.data], expected, atol=1e-5)
        assert [row.index for row in answer.data] == [0, 1]
    one = client.embeddings.create(model="tiny", input="rain")
    np.testing.assert_allclose(one.data[0].embedding, expected[1], atol=1e-5)


def test_embeddings_of_sounds(client: openai.OpenAI, mint: Mint, clips: list[Path]) -> None:
    expected = mint.embed_audio(clips[0]).numpy()
    inputs: Any = ["rain", audio_part(clips[0])]
    text, sound = client.embeddings.create(model="tiny", input=inputs).data
    assert len(text.embedding) == expected.shape[1]
    assert sound.shape == list(expected.shape)  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.reshape(sound.embedding, expected.shape), expected, atol=1e-5)


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_errors_are_the_clients_own(client: openai.OpenAI, clips: list[Path]) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'other'; this server has 'tiny'"):
        client.chat.completions.create(model="other", messages=[message(clips[0])])  # type: ignore[list-item]
    with pytest.raises(openai.UnprocessableEntityError, match="there is no sound in the messages") as refused:
        ask(client, [{"role": "user", "content": "hello"}])
    assert refused.value.param == "messages"
    with pytest.raises(openai.UnprocessableEntityError, match="'n' is 2, which this model cannot do"):
        ask(client, [message(clips[0])], n=2)
    broken = {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"RIFFno").decode(), "format": "wav"}}
    for stream in (False, True):
        with pytest.raises(openai.UnprocessableEntityError, match="upload: not audio that can be decoded"):
            ask(client, [{"role": "user", "content": [broken]}], stream=stream)


def test_the_token_is_the_key(mint: Mint, clips: list[Path]) -> None:
    with Running(mint, token="open-sesame") as running:
        address = f"{running.address}/v1"
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=address, api_key="open-sesam", max_retries=0).models.list()
        client = openai.OpenAI(base_url=address, api_key="open-sesame", max_retries=0)
        assert ask(client, [message(clips[0])]).choices[0].message.content == mint.caption(clips[0])
