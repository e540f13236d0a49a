"""What a step costs, before it is run: FLOPs, memory and, under a stated assumption, seconds.

A count of the matrix products of `Stage1.forward` and `Stage2.forward`, term by term in the order of their code; what
is not a matrix product (norms, activations, softmax) is left out of the FLOPs, as by torch's own counter. The backward
pass costs two products for each one of a trained layer, and one for a frozen layer through which a gradient passes.
Nothing here needs weights or a GPU; the tests hold the count to torch's counter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mint.types import MintError

PEAK_FLOPS = {"A100": 312e12, "H100": 989e12}
"""Dense bf16 operations a second, as the makers state them."""
UTILISATION = 0.35
"""Share of the peak that a step is assumed to reach: an assumption, not a measurement."""
ADAM_BYTES = 16
"""Bytes for each trained number: weight, gradient and both moments in float32."""
GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "olmo2", "smollm3", "stablelm")
PLAIN = ("opt", "phi", "gpt_neox")
"""`model_type` of the causal models whose cost is known, with a feed-forward of three matrices and of two."""


@dataclass(frozen=True)
class Work:
    """FLOPs, and numbers that are kept for the backward pass."""

    forward: int = 0
    backward: int = 0
    kept: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.forward + other.forward, self.backward + other.backward, self.kept + other.kept)

    def __mul__(self, times: int) -> Work:
        return Work(self.forward * times, self.backward * times, self.kept * times)

    @property
    def flops(self) -> int:
        """Return the FLOPs of both passes."""
        return self.forward + self.backward

    @property
    def untrained(self) -> Work:
        """Return the work where the graph is kept, but no gradient comes back through it."""
        return Work(self.forward, kept=self.kept)


@dataclass(frozen=True)
class Shapes:
    """The sizes of one rank's batch."""

    batch: int
    frames: int
    """T of the audio."""
    text: int
    """L of captions (stage 1) or instructions (stage 2) in Bridge-Net's tokens."""
    prompt: int = 0
    """Tokens of the prompt in the language model."""
    answer: int = 0
    """Tokens of the answer, its end included."""
    ranks: int = 1


@dataclass(frozen=True)
class BridgeSizes:
    """Those of `BridgeNet`'s arguments that cost something, and how it is run."""

    width: int
    num_layers: int
    intermediate: int
    audio_width: int
    num_queries: int
    vocab_size: int
    cross_attention_every: int
    checkpointed: bool = False
    """Blocks keep their inputs alone, and run again in the backward pass."""

    @classmethod
    def of(cls, arguments: Mapping[str, Any], checkpointed: bool = False) -> BridgeSizes:
        """Return the sizes that the arguments of `BridgeNet` give."""
        names = cls.__dataclass_fields__.keys() - {"checkpointed"}
        return cls(**{name: arguments[name] for name in names}, checkpointed=checkpointed)

    @property
    def crossing(self) -> int:
        """Return how many blocks cross-attend."""
        # Rounded up: the first block of each group of `cross_attention_every` does.
        return -(-self.num_layers // self.cross_attention_every)


@dataclass(frozen=True)
class LanguageSizes:
    """A transformer language model as far as its cost goes."""

    encoder_layers: int
    """0: a causal model."""
    decoder_layers: int
    width: int
    inner: int
    """Heads x width of a head."""
    key_value_inner: int
    """The same for keys and values; smaller with grouped queries."""
    intermediate: int
    gated: bool
    """The feed-forward has three matrices, not two."""
    vocab_size: int

    @classmethod
    def of(cls, config: Any) -> LanguageSizes:
        """Return the sizes that a configuration of transformers gives.

        Raises:
            MintError: a family whose blocks are not known here.
        """
        if config.model_type in ("t5", "mt5"):
            inner = config.num_heads * config.d_kv
            layers = (config.num_layers, config.num_decoder_layers)
            sizes = (config.d_model, inner, inner, config.d_ff, bool(config.is_gated_act))
        elif config.model_type in GATED + PLAIN:
            head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            # Grouped queries: several heads share keys and values.
            groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
            wide = config.ffn_dim if config.model_type == "opt" else config.intermediate_size
            gated = config.model_type in GATED
            layers = (0, config.num_hidden_layers)
            sizes = (config.hidden_size, config.num_attention_heads * head, groups * head, wide, gated)
        else:
            raise MintError(f"the cost of a {config.model_type!r} language model is not known")
        return cls(*layers, *sizes, config.vocab_size)


@dataclass(frozen=True)
class Adapter:
    """A low-rank adapter in a layer of the language model."""

    inputs: int
    outputs: int
    rank: int
    reads_prefix: bool
    """Of an encoder-decoder model: the layer runs on the soft prompt and the prompt, not on the answer."""


def stage1_work(bridge: BridgeSizes, shapes: Shapes, alc: bool = True, alm: bool = True, atg: bool = True) -> Work:
    """Return the work of one rank's step of stage 1 (paper, section 2.2)."""
    represented = _represent(bridge, shapes, contrast=alc or alm, generate=atg)
    work = _project_audio(bridge, shapes) + (represented if alc or atg else represented.untrained)
    if alc or alm:
        scores = _heads(bridge, shapes) + _contrast(bridge, shapes)
        work += scores if alc else scores.untrained
    return work + _matching_and_generation(bridge, shapes, alm, atg)


def accumulated_work(
    bridge: BridgeSizes, shapes: Shapes, parts: int, alc: bool = True, alm: bool = True, atg: bool = True
) -> Work:
    """Return the work of one micro-batch of stage 1 whose negatives are accumulated over `parts` of them.

    It is embedded twice, the first time without gradients. ALC or ALM is among its objectives.
    """
    embedding = _project_audio(bridge, shapes) + _represent(bridge, shapes, contrast=True, generate=atg)
    first = Work((embedding + _heads(bridge, shapes)).forward)
    whole = replace(shapes, ranks=shapes.ranks * parts)  # the other parts are as far away as other ranks
    # Only ALC sends a gradient back into the embeddings; without it the second pass is ATG's alone.
    if alc:
        return first + stage1_work(bridge, whole, alm=alm, atg=atg)
    first += Work(_contrast(bridge, whole).forward)
    if atg:
        first += _represent(bridge, shapes, contrast=False, generate=True)
    return first + _project_audio(bridge, shapes) + _matching_and_generation(bridge, whole, alm, atg)


def stage2_work(
    bridge: BridgeSizes,
    language: LanguageSizes,
    shapes: Shapes,
    instruction_aware: bool = True,
    adapters: Sequence[Adapter] = (),
    soft_prompts: int | None = None,
) -> Work:
    """Return the work of one rank's step of stage 2 (paper, section 2.3), with that of the frozen language model.

    Without a number of soft prompts, each query gives one.
    """
    text = shapes.text if instruction_aware else 0
    work = _project_audio(bridge, shapes)
    # The soft prompt is made of the queries' outputs: those of the instruction are not computed at the end.
    work += _blocks(bridge, shapes.batch, bridge.num_queries, text, shapes.frames, last_text=0)
    if soft_prompts is None:
        soft_prompts = bridge.num_queries
        work += _dense(shapes.batch * bridge.num_queries, bridge.width, language.width)
    else:
        work += _dense(shapes.batch, bridge.num_queries * bridge.width, soft_prompts * language.width)
    for adapter in adapters:
        work += _adapter(adapter, language, soft_prompts, shapes)
    return work + language_work(language, soft_prompts, shapes)


def language_work(language: LanguageSizes, soft_prompts: int, shapes: Shapes) -> Work:
    """Return the work of a frozen language model's loss and of its gradient down to the soft prompt."""
    batch, answer, width = shapes.batch, shapes.answer, language.width
    prefix = soft_prompts + shapes.prompt

    # A causal model reads soft prompt, prompt and answer as one text, and predicts the answer.
    if not language.encoder_layers:
        blocks = _language_block(language, batch, prefix + answer) * language.decoder_layers
        return blocks + _head(language, batch * answer)

    # The decoder of T5 writes the answer and cross-attends to what the encoder made of the rest.
    work = _language_block(language, batch, prefix) * language.encoder_layers
    cross = (
        _frozen(batch * answer, width, language.inner)
        + _frozen(batch * prefix, width, language.inner) * 2
        + _attention(batch, answer, prefix, language.inner)
        + _frozen(batch * answer, language.inner, width)
    )
    work += (_language_block(language, batch, answer) + cross) * language.decoder_layers

    # No gradient reaches what the first decoder block asks with: below it stand frozen embeddings.
    asking = _self_attention(language, batch, answer) + _frozen(batch * answer, width, language.inner)
    missing = asking.backward + _attention(batch, answer, prefix, language.inner).forward // 2
    return work + Work(backward=-missing) + _head(language, batch * answer)


def memory_bytes(
    work: Work,
    trained: int,
    frozen: int,
    *,
    mixed: bool,
    frozen_bytes: int = 4,
    shards: int = 1,
    features: int = 0,
) -> dict[str, int]:
    """Return the bytes that a rank holds in a step, by what they are needed for.

    Args:
        work: the work of a micro-batch, of which one is under way at a time.
        trained: the number of trained parameters.
        frozen: the number of parameters of the frozen models that stand on the device.
        mixed: bf16 autocast: what is kept for the backward pass has 2 bytes a number, else 4.
        frozen_bytes: the bytes of one frozen parameter.
        shards: ranks over which fully sharded training spreads the trained weights and their moments; each of them
            gathers all weights for the step, and has all gradients before they are spread.
        features: numbers of the frozen features that are held besides.
    """
    width = 2 if mixed else 4
    parts = {
        "trained weights, gradients and moments": trained * ADAM_BYTES // shards,
        "gathered weights and gradients": 2 * trained * width if shards > 1 else 0,
        "frozen weights": frozen * frozen_bytes,
        "features of the whole batch, twice": features * 4,
        "kept for the backward pass": work.kept * width,
    }
    return {**parts, "in all": sum(parts.values())}


def step_seconds(work: Work, device: str, utilisation: float = UTILISATION) -> float:
    """Return the seconds of a step on a device of `PEAK_FLOPS`, if it reaches that share of the peak."""
    return work.flops / (PEAK_FLOPS[device] * utilisation)


def _dense(rows: int, inputs: int, outputs: int) -> Work:
    """Return the work of a trained layer."""
    # A multiplication and an addition each; backwards one product for the weights and one for the inputs.
    product = 2 * rows * inputs * outputs
    return Work(product, 2 * product)


def _frozen(rows: int, inputs: int, outputs: int) -> Work:
    """Return the work of a frozen layer that a gradient passes."""
    # Its weights take no gradient: backwards one product, for the inputs.
    product = 2 * rows * inputs * outputs
    return Work(product, product)


def _attention(batch: int, rows: int, columns: int, inner: int) -> Work:
    """Return the work of attention: scores, and the sum of values."""
    # Two products forward; backwards two for each, since queries, keys and values all take a gradient.
    products = 4 * batch * rows * columns * inner
    return Work(products, 2 * products)


def _project_audio(bridge: BridgeSizes, shapes: Shapes) -> Work:
    """Return the work of making keys and values of the audio, once for each block that cross-attends."""
    rows = shapes.batch * shapes.frames
    kept = Work(kept=rows * (bridge.audio_width + 2 * bridge.crossing * bridge.width))
    product = _dense(rows, bridge.audio_width, bridge.width).forward
    return Work(product, product) * (2 * bridge.crossing) + kept  # the frozen features take no gradient


def _matching_and_generation(bridge: BridgeSizes, shapes: Shapes, alm: bool, atg: bool) -> Work:
    """Return the work of ALM's pairs, and of what ATG has after its pass."""
    batch, text, queries = shapes.batch, shapes.text, bridge.num_queries
    work = Work()
    if alm:
        if shapes.ranks > 1:  # the clips that were drawn may be another rank's
            work += _project_audio(bridge, shapes)
        else:  # fetched twice, so that their scores are computed twice
            again = _attention(batch, queries, shapes.frames, bridge.width) * bridge.crossing
            work += Work(backward=again.forward // 2)
        # The pair itself, the text with a wrong clip, and the clip with a wrong text.
        work += _blocks(bridge, 3 * batch, queries, text, shapes.frames, last_text=0)
        work += _dense(3 * batch * queries, bridge.width, 2)
    if atg:
        # The first token is given. Head and embedding share no product: a dense layer comes between.
        predicted = batch * (text - 1)
        work += _dense(predicted, bridge.width, bridge.width) + _dense(predicted, bridge.width, bridge.vocab_size)
        work += Work(kept=2 * predicted * bridge.vocab_size)  # logits and their log-softmax
    return work


def _represent(bridge: BridgeSizes, shapes: Shapes, contrast: bool, generate: bool) -> Work:
    """Return the work of the pass of ALC and ATG: queries, the text that is generated, and the text by itself."""
    # Both texts stand in the rows of one pass; at the end ALC reads one token, [CLS], and ATG all.
    text, last = shapes.text * (contrast + generate), contrast + generate * shapes.text
    return _blocks(bridge, shapes.batch, bridge.num_queries, text, shapes.frames, last)


def _blocks(bridge: BridgeSizes, batch: int, queries: int, text: int, frames: int, last_text: int) -> Work:
    """Return the work of a pass over queries and text, of whose tokens the last block computes `last_text`."""
    rows = queries + text
    cross = _dense(batch * queries, bridge.width, bridge.width) * 2
    cross += _attention(batch, queries, frames, bridge.width) + Work(kept=batch * queries * 5 * bridge.width)
    work = _block(bridge, batch, rows, rows) * (bridge.num_layers - 1)
    work += _block(bridge, batch, rows, queries + last_text) + cross * bridge.crossing
    # The whole pass runs again in the backward pass, and the inputs of the blocks are all that is kept till then.
    if bridge.checkpointed:
        return Work(work.forward, work.backward + work.forward, bridge.num_layers * batch * rows * bridge.width)
    return work


def _block(bridge: BridgeSizes, batch: int, rows: int, computed: int) -> Work:
    """Return the work of one block without its cross-attention, for `computed` of the rows."""
    # Every row gives keys and values; only those that are computed ask, and go through the feed-forward.
    width = bridge.width
    keys_values, others = _dense(batch * rows, width, width) * 2, _dense(batch * computed, width, width) * 2
    feed_forward = _dense(batch * computed, width, bridge.intermediate) * 2
    kept = batch * (2 * rows * width + computed * (8 * width + bridge.intermediate))
    return keys_values + others + feed_forward + _attention(batch, computed, rows, width) + Work(kept=kept)


def _heads(bridge: BridgeSizes, shapes: Shapes, shared: int = 256) -> Work:
    """Return the work of bringing queries and [CLS] into the shared space."""
    return _dense(shapes.batch * (bridge.num_queries + 1), bridge.width, shared)


def _contrast(bridge: BridgeSizes, shapes: Shapes, shared: int = 256) -> Work:
    """Return the work of the similarities of this rank's clips and texts to all, both ways."""
    batch, queries = shapes.batch, bridge.num_queries
    work = _dense(batch * queries, shared, batch * shapes.ranks) * 2
    return work + Work(kept=4 * batch * queries * shared + 2 * batch * batch * shapes.ranks * queries)


def _self_attention(language: LanguageSizes, batch: int, rows: int) -> Work:
    """Return the work of a frozen self-attention: queries and output, keys and values, and what is between."""
    return (
        _frozen(batch * rows, language.width, language.inner) * 2
        + _frozen(batch * rows, language.width, language.key_value_inner) * 2
        + _attention(batch, rows, rows, language.inner)
    )


def _language_block(language: LanguageSizes, batch: int, rows: int) -> Work:
    """Return the work of self-attention and feed-forward.

    The count of what is kept is rough: it depends on how a family is written.
    """
    kept = (
        batch * rows * (6 * language.width + 4 * language.inner + (5 if language.gated else 2) * language.intermediate)
    )
    feed_forward = _frozen(batch * rows, language.width, language.intermediate) * (3 if language.gated else 2)
    return _self_attention(language, batch, rows) + feed_forward + Work(kept=kept)


def _adapter(adapter: Adapter, language: LanguageSizes, queries: int, shapes: Shapes) -> Work:
    """Return the work of two trained matrices beside a frozen one.

    With adapters T5's first decoder block passes a gradient on, which it does not without; that is left out.
    """
    # A layer of T5 reads what the encoder does or what the decoder does; a causal model's reads both.
    causal = not language.encoder_layers
    rows = shapes.batch * (
        (queries + shapes.prompt) * (causal or adapter.reads_prefix)
        + shapes.answer * (causal or not adapter.reads_prefix)
    )
    products = _dense(rows, adapter.inputs, adapter.rank) + _dense(rows, adapter.rank, adapter.outputs)
    return products + Work(kept=rows * (adapter.rank + adapter.outputs))


def _head(language: LanguageSizes, rows: int) -> Work:
    """Return the work of a frozen head, and its logits and their log-softmax as what is kept."""
    return _frozen(rows, language.width, language.vocab_size) + Work(kept=2 * rows * language.vocab_size)
