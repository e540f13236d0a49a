"""The plain endpoints: a sound as a file in a form, and an answer as JSON."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from starlette.responses import JSONResponse, Response

from mint.data.manifests.prompts import SOUND_PROMPT
from mint.evaluation.report.attention_figure import png, spectrogram
from mint.inference.ranking import rank_labels
from mint.serve import reading
from mint.serve.limits import Refused, unprocessable
from mint.serve.questions import Attend, EmbedClips, EmbedTexts, Job, Question, RankByLanguage, RankBySimilarity, Write
from mint.types import CAPTION_PROMPT, Clip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.datastructures import FormData
    from starlette.requests import Request

    from mint.serve.service import Service
    from mint.serve.uploads import Sound

METHODS = ("auto", "vocabulary", "similarity")
COLUMNS = 600
"""Pairs of the lowest and the highest sample that a waveform is drawn by."""
MOST_HITS = 100


async def caption(request: Request, service: Service) -> Response | None:
    """Answer `POST /caption`: the form's `file` in words."""
    async with request_form(request, service) as form:
        return await _write(request, service, form, CAPTION_PROMPT, "caption")


async def ask(request: Request, service: Service) -> Response | None:
    """Answer `POST /ask`: the answer to the form's `prompt` about its `file`."""
    async with request_form(request, service) as form:
        return await _write(request, service, form, reading.text(form, "prompt"), "answer")


async def classify(request: Request, service: Service) -> Response | None:
    """Answer `POST /classify`: the form's `labels` by how well they fit its `file`, the best first."""
    async with request_form(request, service) as form:
        labels = reading.labels(form)
        prompt = reading.text(form, "prompt", SOUND_PROMPT)
        method = reading.text(form, "method", "auto")
        # Before the sound is decoded, which is the costly part.
        if method not in METHODS:
            raise unprocessable(f"'method' is {method!r}; choose one of {', '.join(METHODS)}", "method")
        question = ranking(service, labels, prompt, method)

        answered = await _answered(request, service, form, Job(question, prompt=prompt))

    if answered is None:
        return None
    sound, scores = answered
    ranked = rank_labels(dict(zip(labels, scores, strict=True)))
    return JSONResponse({"label": ranked[0]["label"], "labels": ranked, "seconds": sound.seconds})


async def attention(request: Request, service: Service) -> Response | None:
    """Answer `POST /attention`: where each query listens in the first window of the form's `file`."""
    async with request_form(request, service) as form:
        prompt = reading.text(form, "prompt", CAPTION_PROMPT)
        answered = await _answered(request, service, form, Job(Attend(), prompt=prompt))
    if answered is None:
        return None

    # Five digits are more than a picture shows, and a third of the bytes.
    sound, weights = answered  # [Q, steps]
    encoder = service.run.encoder
    return JSONResponse(
        {
            "attention": np.round(weights.numpy().astype(np.float64), 5).tolist(),
            "step_seconds": encoder.step_seconds,
            "window_seconds": len(sound.windows[0]) / encoder.sample_rate,
            "seconds": sound.seconds,
        }
    )


async def picture(request: Request, service: Service) -> Response | None:
    """Answer `POST /picture`: waveform and spectrogram of the first window of the form's `file`."""
    async with request_form(request, service) as form:
        sound = await service.within_time(request, service.decoded(reading.file_of(form).file))
        if sound is None:
            return None

    samples, rate = sound.windows[0], service.run.encoder.sample_rate
    # Drawing takes tens of milliseconds, in which other requests would wait.
    drawn = await service.in_thread(lambda: png(spectrogram(Clip(samples, rate))))
    return JSONResponse(
        {
            "waveform": waveform(samples),
            "spectrogram": f"data:image/png;base64,{base64.b64encode(drawn).decode()}",
            "window_seconds": len(samples) / rate,
            "seconds": sound.seconds,
        }
    )


async def search(request: Request, service: Service) -> Response | None:
    """Answer `POST /search`: the clips of the index that fit the form's `query`, or are like its `file`."""
    index = service.index
    if index is None:
        raise Refused(404, "this server has no index; start it with --index INDEX")

    async with request_form(request, service) as form:
        top = reading.whole_number(form, "top", 1, MOST_HITS) or 10
        if form.get("query") is not None:
            query = reading.text(form, "query")
            job = Job(EmbedTexts(), texts=[query])
            embedded = await service.within_time(request, service.answer(job))
            find: Any = None if embedded is None else lambda: index.search(embedded[0], top)
        elif form.get("file") is not None:
            answered = await _answered(request, service, form, Job(EmbedClips()))
            find = None if answered is None else lambda: index.like(answered[1], top)
        else:
            raise unprocessable("the form has neither 'query' nor 'file'; give one of them", "query")

    if find is None:
        return None
    hits = await service.in_thread(find)
    rows = [{"audio": hit.path, "score": hit.score, "start": hit.start, "end": hit.end} for hit in hits]
    return JSONResponse({"hits": rows})


def about(service: Service) -> JSONResponse:
    """Answer `GET /about`: what this server can do, for the page."""
    has_text = 2 in service.run.folders
    return JSONResponse(
        {
            "model": service.name,
            "text": has_text,
            "timeline": True,
            "labels": True,
            "embeddings": 1 in service.run.folders,
            "search": service.index is not None,
            "clips": None if service.index is None else len(service.index),
            "most_seconds": service.limits.seconds,
            "most_bytes": service.limits.upload_bytes,
        }
    )


@asynccontextmanager
async def request_form(request: Request, service: Service) -> AsyncIterator[FormData]:
    """Read the form of a request, whose file is closed at the end of the block; errors as `read_form`."""
    form = await reading.read_form(request, service.limits)

    try:
        yield form
    finally:
        await form.close()


async def _write(request: Request, service: Service, form: FormData, prompt: str, field: str) -> Response | None:
    """Answer with a text about the form's file."""
    # An object of its own keeps the question out of others' batches: draws must not depend on them.
    sampling = reading.sampling(form)
    question = Write(sampling, None if sampling is None else object())
    job = Job(question, prompt=prompt, max_tokens=reading.max_tokens(form))
    answered = await _answered(request, service, form, job)
    if answered is None:
        return None
    sound, text = answered
    return JSONResponse({field: text, "prompt": prompt, "is_cut": job.is_cut, "seconds": sound.seconds})


async def _answered(request: Request, service: Service, form: FormData, job: Job) -> tuple[Sound, Any] | None:
    """Return the form's sound and the answer about it; None if the client went away."""
    file: BinaryIO = reading.file_of(form).file

    async def work() -> tuple[Sound, Any]:
        sound = await service.decoded(file)
        job.windows = sound.windows
        return sound, await service.answer(job)

    return await service.within_time(request, work())


def ranking(service: Service, labels: Sequence[str], prompt: str, method: str) -> Question:
    """Return the question that ranks labels.

    Raises:
        Refused: the run has not the stage that the method needs.
    """
    stages = service.run.folders
    # As `Mint.classify` chooses.
    if method == "auto":
        method = "vocabulary" if 2 in stages else "similarity"
    needed = 2 if method == "vocabulary" else 1
    if needed not in stages:
        raise Refused(404, f"this run has no stage {needed}, which the method {method!r} needs", "method")

    if method == "vocabulary":
        return RankByLanguage(tuple(labels))
    return RankBySimilarity(tuple(f"{prompt} {label}" for label in labels))


def waveform(samples: Any) -> list[list[float]]:
    """Return the lowest and the highest sample of each of some stretches of equal length."""
    # One stretch for each column of the picture, or for each sample of a very short sound.
    edges = np.linspace(0, len(samples), min(COLUMNS, len(samples)) + 1).astype(int)[:-1]
    lowest, highest = np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)
    return np.round(np.stack([lowest, highest], axis=1).astype(np.float64), 4).tolist()
