"""The class `Mint`: what a user of a trained model calls.

It wires audio of any form to the predictions of `mint.predict`, so that a model says of a file what it said of it in
evaluation. Long clips are read as evenly spaced windows, one in memory at a time.

Several threads may use one model: audio is decoded side by side, and the models load and compute for one call at a
time.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar, get_args, overload

import torch
from torch import Tensor

from mint import hub, predict
from mint.data.audio.decode import AudioSource
from mint.data.audio.pieces import check_times
from mint.data.features.prepare import open_cache
from mint.data.features.stream import Source
from mint.data.manifests.prompts import SOUND_PROMPT
from mint.evaluation.metrics.similarity import similarity
from mint.index import Index, Updated
from mint.inference.indexing import make_index, open_index
from mint.inference.loading import MODELS, LoadedRun
from mint.inference.questions import (
    Answer,
    Method,
    Question,
    answer_each,
    embedding_question,
    similarity_question,
    text_question,
    vocabulary_question,
)
from mint.inference.timeline import Stretch, label_question, query_question, stretches
from mint.predict import Scoring, finish_scores
from mint.text_files import one_line
from mint.types import CAPTION_PROMPT, Clip, MintError
from mint.user_input import checked_labels, checked_text, listed

Result = TypeVar("Result")


class Mint(LoadedRun):
    """A trained model: stage 1 (embeddings, similarity), stage 2 (text), or both.

    `audio` is everywhere a path, a `Clip` or (samples, rate in Hz), in any format, rate and number of channels; or a
    list of these. One clip gives one result, a list gives a list. The methods whose names end in `_each` take any
    iterable, however long, and yield an `Answer` for each clip as soon as it is there; a clip that cannot be used is
    answered with its error, and does not end the others. Stages are loaded when they are first needed: what asks
    stage 1 alone never loads the language model.
    """

    @overload
    def caption(self, audio: AudioSource, **options: Any) -> str: ...
    @overload
    def caption(self, audio: list[Any], **options: Any) -> list[str]: ...
    def caption(self, audio: AudioSource | list[Any], **options: Any) -> str | list[str]:
        """Describe clips in words.

        Options are those of transformers' `generate` that leave one text for a clip, such as `num_beams=3`, and `seed`
        for those that draw. Without any, the likeliest token is taken at each step, 40 of them at most.

        Raises:
            MintError: audio that cannot be decoded, an unknown option or value of one, or there is no stage 2.
        """
        return self._collect(text_question(self, CAPTION_PROMPT, options), audio)

    def caption_each(self, audio: Iterable[Source], **options: Any) -> Iterator[Answer[str]]:
        """Yield a description of each clip, in order; options and errors as `caption`."""
        return answer_each(self, text_question(self, CAPTION_PROMPT, options), audio)

    @overload
    def ask(self, audio: AudioSource, prompt: str, **options: Any) -> str: ...
    @overload
    def ask(self, audio: list[Any], prompt: str, **options: Any) -> list[str]: ...
    def ask(self, audio: AudioSource | list[Any], prompt: str, **options: Any) -> str | list[str]:
        """Answer an instruction, such as "The genre of this music is"; options and errors as `caption`."""
        return self._collect(self._instruction(prompt, options), audio)

    def ask_each(self, audio: Iterable[Source], prompt: str, **options: Any) -> Iterator[Answer[str]]:
        """Yield an answer to an instruction for each clip, in order; options and errors as `caption`."""
        return answer_each(self, self._instruction(prompt, options), audio)

    @overload
    def classify(
        self,
        audio: AudioSource,
        labels: Iterable[str],
        prompt: str | None = None,
        method: Method = "auto",
        scoring: Scoring | None = None,
    ) -> dict[str, float]: ...
    @overload
    def classify(
        self,
        audio: list[Any],
        labels: Iterable[str],
        prompt: str | None = None,
        method: Method = "auto",
        scoring: Scoring | None = None,
    ) -> list[dict[str, float]]: ...
    def classify(
        self,
        audio: AudioSource | list[Any],
        labels: Iterable[str],
        prompt: str | None = None,
        method: Method = "auto",
        scoring: Scoring | None = None,
    ) -> dict[str, float] | list[dict[str, float]]:
        """Score labels of one's choice; a softmax over the scores of a clip gives probabilities among the labels.

        Args:
            audio: clips.
            labels: the candidates: a list, an array, a column of a table or any other iterable of texts.
            prompt: instruction that a label answers; None: "This is a sound of".
            method: `vocabulary`, log-likelihood as the language model's answer (stage 2); `similarity`, to the prompt
                with the label, over the learnt temperature (stage 1); `auto`: vocabulary where there is a stage 2.
            scoring: of vocabulary ranking, see `mint.predict.finish_scores`; `prior` compares the clips of a list.
                None: `calibrated` where the run keeps reference clips, else `sum`.

        Returns:
            Score of each label.

        Raises:
            MintError: audio that cannot be decoded, no labels, an unknown method or scoring, a scoring that the method
                does not have, or the stage is missing.
        """
        # The mean over the clips would leave nothing of the scores of a single one.
        if scoring == "prior" and not (isinstance(audio, list) and len(audio) > 1):
            raise MintError("scoring 'prior' compares several clips; give a list of at least two, or another scoring")

        labels, question = self._ranking(labels, prompt, method, scoring)
        scores = torch.stack(self._collected(question, audio))  # [N, C]
        if scoring == "prior":
            scores = finish_scores(scores, torch.empty(0), scoring)

        results = [dict(zip(labels, row, strict=True)) for row in scores.tolist()]
        return results if isinstance(audio, list) else results[0]

    def classify_each(
        self,
        audio: Iterable[Source],
        labels: Iterable[str],
        prompt: str | None = None,
        method: Method = "auto",
        scoring: Scoring | None = None,
    ) -> Iterator[Answer[dict[str, float]]]:
        """Yield the scores of labels for each clip, in order; arguments and errors as `classify`.

        Raises:
            MintError: also the scoring `prior`, which needs all clips before it can score one.
        """
        if scoring == "prior":
            raise MintError("scoring 'prior' compares all clips of a list; give another scoring, or call `classify`")
        names, question = self._ranking(labels, prompt, method, scoring)

        def ask(clips: list[list[Tensor]]) -> list[dict[str, float]]:
            return [dict(zip(names, row.tolist(), strict=True)) for row in question.ask(clips)]

        return answer_each(self, Question(question.stage, ask), audio)

    def embed_audio(self, audio: AudioSource | list[Any]) -> Tensor:
        """Return clips in the space shared with text, L2-normalised, on the CPU.

        Returns:
            One vector a query: [Q, E], of a list [N, Q, E].

        Raises:
            MintError: audio that cannot be decoded, or there is no stage 1.
        """
        embeddings = torch.stack(self._collected(embedding_question(self), audio))  # [N, Q, E]
        return embeddings if isinstance(audio, list) else embeddings[0]

    def embed_each(self, audio: Iterable[Source], cached: bool = False) -> Iterator[Answer[Tensor]]:
        """Yield the embeddings [Q, E] of each clip, in order; errors as `embed_audio`.

        Args:
            audio: clips.
            cached: whether their features are looked up in the feature cache, and kept there for the next time.
        """
        question = embedding_question(self)
        cache = open_cache(self.encoder, question.stage.max_seconds) if cached else None
        return answer_each(self, question, audio, cache=cache, keep=cached)

    def embed_text(self, text: str | Iterable[str]) -> Tensor:
        """Return texts in the space shared with audio, L2-normalised, on the CPU.

        Returns:
            [E] of one text; [N, E] of a list, or of any other iterable of texts.

        Raises:
            MintError: no text, something that is no text, or there is no stage 1.
        """
        texts = [text] if isinstance(text, str) else listed("texts", text, "['a dog', 'rain']")
        texts = [checked_text("the text", one, "one, such as 'a dog'") for one in texts]
        stage = self.load_stage1()

        with MODELS:
            embeddings = predict.embed_texts(stage, texts).cpu()  # [N, E]
        return embeddings[0] if isinstance(text, str) else embeddings

    def search(self, query: str, audio: list[Any]) -> list[tuple[int, float]]:
        """Rank clips by similarity to a description.

        Returns:
            Index in the list and cosine of each clip, the best first.

        Raises:
            MintError: audio that cannot be decoded, audio that is no list, no query, or there is no stage 1.
        """
        query = checked_text("the query", query, "a description, such as 'a loud drum'")
        if isinstance(audio, str | Path | Clip | tuple | dict):  # each of these is one clip everywhere
            raise MintError(f"the clips are {reprlib.repr(audio)}; give a list, such as ['a.wav', 'b.wav']")
        clips = listed("the clips", audio, "['a.wav', 'b.wav']")

        # The text goes first: it takes a moment, and may be refused, where thousands of clips take hours.
        texts = self.embed_text([query])  # [1, E]
        cosines = similarity(self.embed_audio(clips), texts)[:, 0].tolist()
        return sorted(enumerate(cosines), key=lambda scored: -scored[1])

    def index(
        self,
        sources: str | Path | Iterable[str | Path],
        output: str | Path,
        every: float | None = None,
        progress: predict.Progress = predict.no_progress,
    ) -> Updated:
        """Make an index of audio, or bring one up to date: only what is new or changed is embedded.

        Args:
            sources: folders, which stand for all audio files below them, manifests, and audio files. Without any, those
                that the index knows.
            output: the folder of the index.
            every: seconds of the windows that longer recordings are heard through; None: those of the index, or of the
                run.
            progress: wraps the clips that are read; it is called with them and their number.

        Returns:
            The numbers of new, changed, removed and unchanged clips, the clips that could not be used, and the open
            index as `index`.

        Raises:
            MintError: a source is missing, another model made the index or another process writes it, `every` is not
                that of the index or longer than the windows of the run, or there is no stage 1.
        """
        return make_index(self, sources, output, every, progress)

    def open_index(self, folder: str | Path) -> Index:
        """Open an index that this model made, for its methods `search` and `like`.

        Raises:
            MintError: there is no index, another model made it, or there is no stage 1.
        """
        return open_index(self, folder)

    def timeline(
        self,
        audio: AudioSource,
        every: float,
        hop: float | None = None,
        labels: Iterable[str] | None = None,
        query: str | None = None,
        prompt: str | None = None,
        method: Method = "auto",
        **options: Any,
    ) -> Iterator[Stretch]:
        """Yield what is heard where in a recording of any length, which is decoded once, in bounded memory.

        The recording is heard in pieces. Each answer stands for the middle of its piece, as long as the hop, and
        neighbours with the same answer are one stretch.

        Args:
            audio: one recording.
            every: length of a piece in seconds.
            hop: seconds from one piece to the next, at most `every`; None: `every`.
            labels: the candidates of which the best is the answer, as in `classify`; None: the answer is a text.
            query: a description, as in `search`: each piece gets its cosine, and none are merged.
            prompt: the instruction that a text or a label answers; None: that of `caption` or `classify`.
            method: how labels are scored, as in `classify`.
            options: of texts, as in `caption`.

        Raises:
            MintError: audio that cannot be decoded, times that leave gaps, or as the methods named above.
        """
        # All is checked before a model is loaded, which may take minutes.
        hop = every if hop is None else hop
        check_times(every, hop)
        if isinstance(audio, list):
            raise MintError("a timeline is that of one recording; give them one by one")
        if (labels is not None or query is not None) and options:
            raise MintError(f"{', '.join(options)}: options of texts; leave them out with labels or a query")
        if labels is not None and query is not None:
            raise MintError("a timeline has labels or a query; leave one out")

        # Cosines differ from piece to piece, so that there is nothing to merge.
        if query is not None:
            query = checked_text("the query", query, "a description, such as 'a loud drum'")
            return stretches(self, query_question(self, query), audio, every, hop, merge=False)
        if labels is not None:
            names, ranking = self._ranking(labels, prompt, method, "sum")
            return stretches(self, label_question(names, ranking), audio, every, hop)
        texts = self._instruction(CAPTION_PROMPT if prompt is None else prompt, options)
        return stretches(self, texts, audio, every, hop)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Copy what is needed to use the model, with a model card, into a new folder, and return the folder.

        Raises:
            MintError: the folder holds a model already, or cannot be written to.
        """
        if not isinstance(folder, str | Path):
            raise MintError(f"the folder is {reprlib.repr(folder)}; give a path")

        try:
            return hub.save(self.folders, Path(folder))
        except MintError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            reason = one_line(str(error))
            raise MintError(f"cannot write a model to {str(folder)!r} ({reason}); choose another folder") from error

    def push_to_hub(self, repo: str, private: bool = False) -> str:
        """Upload the model to the Hugging Face hub as `user/name`, and return its address there.

        Raises:
            MintError: no such name can be given, or the hub refuses or cannot be reached.
        """
        repo = checked_text("the repository", repo, "its name on the hub, such as 'user/name'")
        return hub.push(self.folders, repo, private)

    def _instruction(self, prompt: str, options: dict[str, Any]) -> Question[str]:
        """Return the question for the answer to an instruction, which is checked."""
        prompt = checked_text("the prompt", prompt, "an instruction, such as 'The genre of this music is'")
        return text_question(self, prompt, options)

    def _ranking(
        self, labels: Iterable[str], prompt: str | None, method: Method, scoring: Scoring | None
    ) -> tuple[list[str], Question[Tensor]]:
        """Return the labels, each once, and the question for their scores [C]; all arguments are checked."""
        # All is checked before a model is loaded, which may take minutes.
        names = checked_labels(labels)
        prompt = SOUND_PROMPT if prompt is None else checked_text("the prompt", prompt, f"one such as {SOUND_PROMPT!r}")

        for name, value, choices in (("method", method, get_args(Method)), ("scoring", scoring, get_args(Scoring))):
            if name == "scoring" and value is None:
                continue
            if not isinstance(value, str) or value not in choices:
                raise MintError(f"{name} is {reprlib.repr(value)}; choose one of {', '.join(choices)}")

        if method == "vocabulary" or (method == "auto" and 2 in self.folders):
            return names, vocabulary_question(self, prompt, names, scoring)
        if scoring not in (None, "sum"):
            raise MintError(
                f"scoring {scoring!r} belongs to the method 'vocabulary', not to 'similarity'; leave it out"
            )
        return names, similarity_question(self, [f"{prompt} {name}" for name in names])

    @overload
    def _collect(self, question: Question[Result], audio: list[Any]) -> list[Result]: ...
    @overload
    def _collect(self, question: Question[Result], audio: AudioSource) -> Result: ...
    def _collect(self, question: Question[Result], audio: AudioSource | list[Any]) -> Result | list[Result]:
        """Return the answer of one clip, or of each in a list."""
        results = self._collected(question, audio)
        return results if isinstance(audio, list) else results[0]

    def _collected(self, question: Question[Result], audio: AudioSource | list[Any]) -> list[Result]:
        """Return the answers of all clips; the first error is raised."""
        clips = audio if isinstance(audio, list) else [audio]
        if not clips:
            raise MintError("the list of audio is empty; give at least one clip")

        # Nobody sees the first answers before the last.
        answers = answer_each(self, question, clips, growing=False)
        with closing(answers):
            return [answer.get() for answer in answers]
