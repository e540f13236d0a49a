"""The public corpora of the paper's Table 1, and three beyond it: what they are, how large, under which licence.

Sizes are those that the corpora's own papers or pages state; what can still be had of corpora from YouTube is less.
Nothing is downloaded from here: `where` says by name where a corpus is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """One public corpus."""

    title: str
    task: str
    """In words; the `task` of its clips is the corpus's name, or `captioning`."""
    clips: int
    hours: float
    licence: str
    where: str
    """Where to get it, by name."""
    published: Mapping[str, int] = field(default_factory=dict)
    """Clips of each split that whole official files name, less those that the reader leaves out; empty: not known."""


# Counts by split are those of the official files, so that a file that was cut off can be told from a whole one. Where
# the reader leaves out what cannot be known beforehand (blacklists, tracks without a genre), none are given.
CATALOGUE = {
    "audioset": Entry(
        "AudioSet",
        "sound events, 527 classes, several a clip",
        2_084_320,
        5790,
        "CC BY 4.0 (labels); the recordings are YouTube's",
        "the segment CSVs and class_labels_indices.csv from Google Research's AudioSet page; the audio from YouTube",
        {"train": 2_063_949, "test": 20_371},
    ),
    "vggsound": Entry(
        "VGGSound",
        "sound events, 309 classes",
        199_176,
        550,
        "CC BY 4.0 (labels); the recordings are YouTube's",
        "vggsound.csv from the VGG group's page at Oxford; the audio from YouTube",
        {"train": 183_730, "test": 15_446},
    ),
    "openmic": Entry(
        "OpenMIC-2018",
        "instruments, 20 classes, several a clip, most of them unlabelled",
        20_000,
        56,
        "CC BY 4.0; per track (audio)",
        "the archive openmic-2018-v1.0.0 on Zenodo",
        {"train": 14_915, "test": 5_085},
    ),
    "fma-small": Entry(
        "FMA-small",
        "genre, 8 classes, balanced",
        8_000,
        66,
        "CC BY 4.0 (metadata); per track (audio)",
        "the archives fma_metadata and fma_small of the FMA project on GitHub",
        {"train": 6_400, "validation": 800, "test": 800},
    ),
    "fma-medium": Entry(
        "FMA-medium",
        "genre, 16 classes",
        25_000,
        208,
        "CC BY 4.0 (metadata); per track (audio)",
        "the archives fma_metadata and fma_medium of the FMA project on GitHub",
        {"train": 19_922, "validation": 2_505, "test": 2_573},
    ),
    "fma-large": Entry(
        "FMA-large",
        # About half of the subset has no top genre and is left out: no counts by split are given.
        "genre, 16 classes (of the 49,598 tracks that have a top genre)",
        106_574,
        888,
        "CC BY 4.0 (metadata); per track (audio)",
        "the archives fma_metadata and fma_large of the FMA project on GitHub",
    ),
    "nsynth": Entry(
        "NSynth",
        "instrument family, 11 classes",
        305_979,
        340,
        "CC BY 4.0",
        "the JSON/WAV archives nsynth-train, nsynth-valid and nsynth-test from Google's Magenta project",
        {"train": 289_205, "validation": 12_678, "test": 4_096},
    ),
    "fsd50k": Entry(
        "FSD50K",
        "sound events, 200 classes, several a clip",
        51_197,
        108.3,
        "CC BY 4.0; per clip (audio)",
        "the archives of FSD50K on Zenodo",
        {"train": 36_796, "validation": 4_170, "test": 10_231},
    ),
    "music4all-key": Entry(
        "Music4All",
        "key, 24 classes",
        109_269,
        911,
        "research only, on request",
        "the authors of Music4All, after signing their agreement",
    ),
    "music4all-genre": Entry(
        "Music4All",
        "genres, several a track",
        109_269,
        911,
        "research only, on request",
        "the authors of Music4All, after signing their agreement",
    ),
    "gtzan": Entry(
        "GTZAN",
        # With lists 930 tracks in three splits, without them 1,000 for testing.
        "genre, 10 classes",
        1_000,
        8.3,
        "none stated",
        "the archive genres.tar.gz of George Tzanetakis, or its copy on Kaggle",
    ),
    "wavcaps": Entry(
        "WavCaps",
        "captions, one a clip",
        403_050,
        7568,
        "academic use only",
        "the data set cvssp/WavCaps on the Hugging Face Hub (Zip_files unpacked, and json_files)",
    ),
    "freesound": Entry(
        "Freesound captions",
        "captions, from titles and descriptions",
        515_581,
        3033,
        "Creative Commons, per clip",
        "Freesound, in the form of LAION's audio-dataset project (a JSON beside each recording)",
    ),
    "clotho": Entry(
        "Clotho v2",
        "captions, five a clip",
        5_929,
        37,
        "non-commercial (captions); Creative Commons, per clip (audio)",
        "the archives of Clotho on Zenodo",
        {"train": 3_839, "validation": 1_045, "test": 1_045},
    ),
    "audiocaps": Entry(
        "AudioCaps",
        "captions, one a clip for training, five for validation and test",
        51_308,
        142,
        "MIT (captions); the recordings are YouTube's",
        "train.csv, val.csv and test.csv of the AudioCaps project on GitHub; the audio from YouTube",
        {"train": 49_838, "validation": 495, "test": 975},
    ),
    "esc50": Entry(
        "ESC-50",
        "environmental sounds, 50 classes, 5 folds",
        2_000,
        2.8,
        "CC BY-NC 3.0",
        "the project ESC-50 on GitHub",
        {"train": 1_200, "validation": 400, "test": 400},
    ),
    "musiccaps": Entry(
        "MusicCaps",
        "captions of music, one a clip",
        5_521,
        15.3,
        "CC BY-SA 4.0 (captions); the recordings are YouTube's",
        "musiccaps-public.csv from Google's MusicCaps on Kaggle or the Hugging Face Hub; the audio from YouTube",
        {"train": 2_663, "test": 2_858},
    ),
}
"""Name of the corpus, as in `mint data prepare` -> what it is."""
