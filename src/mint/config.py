"""Recipes: one YAML file describes a whole run, read into frozen, typed dataclasses.

A recipe names the frozen audio encoder, Bridge-Net, the frozen language model, the corpora and the schedule; nothing
else in the code knows at which scale it runs. An unknown key, a wrong type or a contradiction is refused with its
dotted key and the nearest valid name. The `training` section is handed to transformers' `TrainingArguments` as it is
(checked against its fields when the trainer is built, so that reading a recipe needs no torch).
"""

from __future__ import annotations

import hashlib
import json
import typing
from dataclasses import field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mint.files import write_whole
from mint.recipe_text import apply_override, read_yaml, refuse_unknown_keys
from mint.text_files import read_text
from mint.types import MintError

NOT_IN_DIGEST = ("seed", "start")
"""Keys of a recipe in which the runs of one recipe may differ; the paths in its `data` section may differ too."""
STRICT = ConfigDict(extra="forbid", strict=False, use_attribute_docstrings=True)


@dataclass(frozen=True, config=STRICT)
class EncoderConfig:
    """The frozen audio encoder."""

    family: Literal["yamnet", "waveform", "spectrogram", "tiny"] = "yamnet"
    """Adapter: `yamnet`; `waveform` (data2vec-audio, wav2vec2, HuBERT, WavLM); `spectrogram` (Whisper, AST, CLAP); or
    `tiny` (random weights, for tests)."""
    weights: str = "asset:yamnet"
    """`asset:NAME`, a local folder or a hub name."""
    revision: str | None = None
    """Revision of a hub name; pinned in the run."""
    layer: int | None = None
    """Hidden state of a transformers model: null the last, 0 the input of the first block, n the output of block n."""
    cache_dtype: Literal["float16", "bfloat16"] = "float16"
    """Precision of the features, with a cache and without: float16 ends at 65504, bfloat16 has fewer digits."""

    def __post_init__(self) -> None:
        """Refuse a layer where there is none to choose."""
        if self.layer is not None and self.family not in ("waveform", "spectrogram"):
            raise ValueError(f"encoder.layer is {self.layer}, but {self.family} has no layers to choose; leave it out")


@dataclass(frozen=True, config=STRICT)
class BridgeConfig:
    """Bridge-Net (paper, section 2.1). Width, heads and vocabulary are those of the checkpoint it starts from."""

    weights: str = "asset:minilm"
    """BERT, BLIP-2 or InstructBLIP checkpoint to start from: `asset:NAME`, a local folder or a hub name."""
    revision: str | None = None
    """Revision of a hub name."""
    tokenizer: str | None = None
    """Folder or hub name of a BERT's tokenizer; null: the one that stands beside the weights."""
    num_layers: int = 12
    """Blocks, taken from the checkpoint at even distances, its first and last among them (paper, section 3.2: 12)."""
    num_queries: int = 32
    """Learnable queries (paper, section 3.2: 32)."""
    cross_attention_every: int = 2
    """Number of blocks from one cross-attention to the next (the paper is silent; 2 as in BLIP-2)."""
    dropout: float = 0.1
    """Share of hidden states and attention weights that is dropped in training (the paper is silent; BERT's own)."""
    max_text_tokens: int = 30
    """Longest caption or instruction that Bridge-Net reads (paper, section 3.2: 30)."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        for name in ("num_layers", "num_queries", "cross_attention_every", "max_text_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"bridge.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"bridge.dropout is {self.dropout}; it must lie in [0, 1)")


@dataclass(frozen=True, config=STRICT)
class ObjectivesConfig:
    """Stage 1's objectives (paper, section 2.2; Table 5 switches them). Equal weights."""

    alc: bool = True
    """Audio-language contrastive learning."""
    alm: bool = True
    """Audio-language matching; its hard negatives are drawn by ALC's similarities."""
    atg: bool = True
    """Audio-grounded text generation."""
    shared_width: int = 256
    """Width E of the space in which queries and [CLS] are compared (BLIP-2)."""
    temperature: float = 0.07
    """Initial value of ALC's temperature, which is learnt and kept in [0.001, 0.5] (BLIP-2)."""
    label_smoothing: float = 0.1
    """Label smoothing of ALC and ATG (BLIP-2)."""

    def __post_init__(self) -> None:
        """Refuse an empty sum of losses."""
        if not (self.alc or self.alm or self.atg):
            raise ValueError("objectives: alc, alm and atg are all false; switch at least one on")
        if not 0.001 <= self.temperature <= 0.5:
            raise ValueError(f"objectives.temperature is {self.temperature}; it must lie in [0.001, 0.5]")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"objectives.label_smoothing is {self.label_smoothing}; it must lie in [0, 1)")


@dataclass(frozen=True, config=STRICT)
class LoraConfig:
    """Low-rank adapters in the frozen language model (ours; the paper trains nothing in it). Needs the package peft."""

    rank: int = 8
    """Rank of the matrices that are added."""
    alpha: int = 16
    """Scale: what the matrices add is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Share of their input that is dropped in training."""
    targets: tuple[str, ...] = ()
    """Ends of the names of the layers that get an adapter, such as `q_proj`; none: those that peft knows for the
    model."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        if self.rank < 1:
            raise ValueError(f"language.lora.rank is {self.rank}; it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"language.lora.dropout is {self.dropout}; it must lie in [0, 1)")


@dataclass(frozen=True, config=STRICT)
class LanguageConfig:
    """The frozen language model."""

    family: Literal["causal", "seq2seq", "tiny"] = "causal"
    """Adapter: `causal` (Llama, SmolLM, Qwen, OPT and more), `seq2seq` (T5, FlanT5, mT5), or `tiny` (random weights,
    for tests)."""
    weights: str = "asset:smollm2"
    """`asset:NAME`, a local folder or a hub name."""
    revision: str | None = None
    """Revision of a hub name; pinned in the run."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen weights."""
    answer_end: str | None = None
    """Text of one token that ends an answer of a causal model; null: the tokenizer's end of sequence."""
    chat_template: bool = False
    """Put soft prompt and instruction where the chat template of a causal model has a user's message, and the answer
    where the model's own begins: as instruct models were tuned."""
    earlier_turn: bool = False
    """Put the soft prompt of a causal model where an answer to the same instruction stood before, [instruction; soft
    prompt; end; instruction; answer; end]: language models copy what they have just read."""
    lora: LoraConfig | None = None
    """Adapters that are trained beside Bridge-Net; null: the language model is left as it is."""
    shard: bool = False
    """Let each of several ranks hold a part of the weights, for a model that is larger than one accelerator."""

    def __post_init__(self) -> None:
        """Refuse what the family cannot do."""
        if self.family == "seq2seq" and self.chat_template:
            raise ValueError(
                "language.chat_template is true, but chat templates are not supported for seq2seq models; leave it out"
            )
        if self.family == "seq2seq" and self.earlier_turn:
            raise ValueError(
                "language.earlier_turn is true, but seq2seq models read the soft prompt in their encoder; leave it out"
            )
        if self.chat_template and self.earlier_turn:
            raise ValueError("language.earlier_turn and language.chat_template are both true; choose one of them")
        if self.family == "seq2seq" and self.answer_end is not None:
            raise ValueError(
                f"language.answer_end is {self.answer_end!r}, but seq2seq models have their own end token; leave it out"
            )


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """The data that a run learns from."""

    manifests: tuple[str, ...] = ()
    """JSON Lines or Parquet files, relative to the working directory."""
    blacklists: tuple[str, ...] = ()
    """JSON files in WavCaps' format with recordings that are tested on: results say how many training clips are
    among them."""
    mixture: dict[str, float] = field(default_factory=dict)
    """Weight of each task, corpus (where several share a task) or `TASK/CORPUS`; the weight of what is not named is the
    square root of its size (InstructBLIP)."""
    examples_per_epoch: int | None = None
    """Length of an epoch; null: the number of training examples."""
    group_by_length: bool = False
    """Fill batches with texts of like length, which saves padding; not for stage 1, where texts are each other's
    negatives."""
    max_seconds: float = 30.0
    """Longest window of audio (paper, section 3.2: 30)."""

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to draw or to hear."""
        if self.examples_per_epoch is not None and self.examples_per_epoch < 1:
            raise ValueError(f"data.examples_per_epoch is {self.examples_per_epoch}; it must be at least 1")
        if not self.max_seconds > 0:
            raise ValueError(f"data.max_seconds is {self.max_seconds:g}; it must be above 0")


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """A whole training run."""

    name: str
    """Name of the run, in results and tables and of its default folder."""
    stage: Literal[1, 2]
    """1: representation learning (section 2.2); 2: instruction tuning (section 2.3)."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The frozen audio encoder."""
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    """Bridge-Net."""
    data: DataConfig = field(default_factory=DataConfig)
    """The data that the run learns from."""
    objectives: ObjectivesConfig | None = None
    """The objectives of stage 1."""
    language: LanguageConfig | None = None
    """The frozen language model of stage 2."""
    instruction_aware: bool = True
    """Stage 2: whether Bridge-Net reads the instruction too (section 2.3); its ablation is `false`."""
    aligned_start: bool = False
    """Stage 2: whether the projection starts from a least-squares fit to the answers' embeddings with whitened inputs,
    not at random (ours)."""
    soft_prompts: int | None = None
    """Stage 2: how many soft prompts one layer over all query outputs together gives (ours); null: one for each query,
    by a layer that the queries share (paper)."""
    reference_clips: int = 0
    """Stage 2: how many training clips of each instruction are kept with the weights, which the scoring `calibrated`
    compares with (ours); 0: none."""
    bridge_lr_share: float = 1.0
    """Stage 2: Bridge-Net's learning rate as a share of the projection's, which alone is new (ours)."""
    start: str | None = None
    """Stage 2: the folder of the stage-1 run that Bridge-Net starts from."""
    accumulate_negatives: bool = False
    """Stage 1 with `training.gradient_accumulation_steps`: whether clips and texts are contrasted with those of the
    whole batch, not of their micro-batch alone (ours, after GradCache)."""
    seed: int = 0
    """Seed of the new weights, of the order of the data and of the negatives."""
    training: dict[str, Any] = field(default_factory=dict)
    """Arguments of transformers' `TrainingArguments`, such as `training.max_steps`, under their own names."""

    def __post_init__(self) -> None:
        """Fill the section of the stage and refuse the other stage's."""
        if not 0 <= self.bridge_lr_share <= 1:
            raise ValueError(f"bridge_lr_share is {self.bridge_lr_share}; it must lie in [0, 1]")
        if self.soft_prompts is not None and self.soft_prompts < 1:
            raise ValueError(f"soft_prompts is {self.soft_prompts}; it must be at least 1, or null")
        if self.reference_clips < 0:
            raise ValueError(f"reference_clips is {self.reference_clips}; it must be at least 1, or 0 for none")
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed is {self.seed}; it must lie in [0, 2^32)")
        if self.stage == 1:
            self._settle_stage1()
        else:
            self._settle_stage2()

    def _settle_stage1(self) -> None:
        if self.language is not None or self.start is not None:
            raise ValueError("`language` and `start` belong to stage 2; remove them or set `stage: 2`")
        of_stage2 = {
            "aligned_start": self.aligned_start,
            "soft_prompts": self.soft_prompts is not None,
            "reference_clips": self.reference_clips > 0,
            "bridge_lr_share": self.bridge_lr_share != 1.0,
        }
        for key, is_set in of_stage2.items():
            if is_set:
                raise ValueError(f"`{key}` belongs to stage 2; remove it or set `stage: 2`")
        if not self.instruction_aware:
            raise ValueError("`instruction_aware` belongs to stage 2; remove it or set `stage: 2`")
        # The dataclass is frozen for everybody but its own beginning.
        objectives = self.objectives or ObjectivesConfig()
        object.__setattr__(self, "objectives", objectives)  # recipes are frozen once they are complete
        if self.accumulate_negatives and not (objectives.alc or objectives.alm):
            raise ValueError("`accumulate_negatives` is true, but no objective has negatives; switch alc or alm on")

    def _settle_stage2(self) -> None:
        if self.objectives is not None:
            raise ValueError("`objectives` belongs to stage 1; remove it or set `stage: 1`")
        if self.accumulate_negatives:
            raise ValueError("`accumulate_negatives` belongs to stage 1; remove it or set `stage: 1`")
        # A recipe without the section means its defaults.
        language = self.language or LanguageConfig()
        object.__setattr__(self, "language", language)
        if language.family == "seq2seq" and (self.training.get("fp16") or self.training.get("fp16_full_eval")):
            raise ValueError("training.fp16 is true, but T5 overflows in float16; set `bf16: true` in its place")


def load_recipe(source: str | Path, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Return a recipe that is read from a file.

    Args:
        source: a YAML file, or the name of a shipped recipe such as `quickstart/stage1`.
        overrides: `key=value` with dotted keys, the value in YAML: `training.max_steps=10`.

    Raises:
        MintError: no such recipe, or a key or value that it cannot have.
    """
    path = find_recipe(source)
    values = read_yaml(read_text(path), str(path))
    if not isinstance(values, dict):
        raise MintError(f"{path} holds {type(values).__name__}, not a mapping of recipe keys")
    for override in overrides:
        apply_override(values, override)
    return recipe_from_dict(values, source=str(path))


def recipe_from_dict(values: dict[str, Any], source: str = "recipe") -> Recipe:
    """Return a recipe of plain values, checked and typed; `source` opens the error message.

    Raises:
        MintError: a key or value that it cannot have.
    """
    refuse_unknown_keys(Recipe, values, source, "")
    try:
        return TypeAdapter(Recipe).validate_python(values)
    except ValidationError as error:
        # One fault at a time: the others often follow from the first.
        problem = error.errors()[0]
        key = ".".join(str(step) for step in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "tuple_type" and isinstance(problem["input"], str):
            message = f"it is a list; write {key}=[{problem['input']}]"  # a mistake of command lines, mostly
        value = "" if isinstance(problem["input"], dict) else f" (found {problem['input']!r})"
        raise MintError(f"{source}: {key + ': ' if key else ''}{message}{value}") from None


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the resolved recipe as plain values, ready for YAML or JSON."""
    return typing.cast("dict[str, Any]", TypeAdapter(Recipe).dump_python(recipe, mode="json"))


def recipe_digest(recipes: typing.Iterable[Recipe]) -> str:
    """Return what tells the runs of different recipes apart: 16 hexadecimal digits.

    The recipes are those of a run's stages, in their order. Runs with other seeds or in other folders have the same
    digest: it leaves out the seed, where stage 2 starts, and the paths of manifests and blacklists.
    """
    # Two runs are repetitions of one experiment if nothing but these keys differs.
    described = []
    for recipe in recipes:
        values = recipe_to_dict(recipe)
        for key in NOT_IN_DIGEST:
            del values[key]
        for key in ("manifests", "blacklists"):
            del values["data"][key]
        described.append(values)
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]  # 64 bits


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe, whole or not at all."""
    write_whole(path, yaml.safe_dump(recipe_to_dict(recipe), sort_keys=False))


def shipped_recipes() -> dict[str, Path]:
    """Return the paths of the recipes that come with the package, by name."""
    root = Path(str(resources.files("mint") / "recipes"))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def find_recipe(source: str | Path) -> Path:
    """Return the file of a recipe that is given by its path or by its shipped name."""
    if Path(source).is_file():
        return Path(source)
    # A file of that name in the working folder comes first.
    shipped = shipped_recipes()
    name = str(source).removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    raise MintError(f"no recipe {str(source)!r}: give a YAML file or one of {', '.join(shipped)}")
