"""Write docs/map.md: every module of MINT with the first line of its docstring, in the order of the layers.

python tools/module_map.py           # write docs/map.md
python tools/module_map.py --check   # exit with 1 if docs/map.md is not what would be written
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "mint"
MAP = ROOT / "docs" / "map.md"

ROOMS: tuple[tuple[str, str], ...] = (
    ("", "The ground floor: records, recipes, files, and the entrances"),
    ("assets", "Offline weights"),
    ("encoders", "Frozen audio encoders"),
    ("language", "Frozen language models"),
    ("model", "Bridge-Net, its objectives and its two stages"),
    ("model/objectives", "The three losses of stage 1"),
    ("data", "From files to batches"),
    ("data/audio", "Bytes to samples"),
    ("data/manifests", "Lists of clips"),
    ("data/features", "Features of the frozen encoder, kept on disk"),
    ("data/batches", "Clips to batches"),
    ("data/corpora", "Corpora"),
    ("data/corpora/rendered", "Corpora that are made on the spot"),
    ("data/corpora/drawn", "Corpora without recordings"),
    ("data/corpora/public", "Public corpora"),
    ("data/corpora/own", "Recordings of one's own"),
    ("builders", "Recipe to objects"),
    ("training", "Training"),
    ("training/dry_run", "What a run would cost"),
    ("evaluation", "Evaluation"),
    ("evaluation/metrics", "Numbers in, numbers out"),
    ("evaluation/results", "Results files, and tables drawn from them"),
    ("evaluation/report", "The HTML report"),
    ("index", "An index of audio, and search in it"),
    ("inference", "A trained model in use"),
    ("batches", "Many clips, one file of results"),
    ("serve", "The server: an HTTP API and a web page"),
    ("ablation", "Ablations"),
    ("cli", "The command line, one file for each verb"),
)
"""The folders in reading order, each with its heading."""

HEAD = """# Map of the modules

<!-- Written by tools/module_map.py from the modules' docstrings; a test holds it to them. -->

Imports point one way, from the bottom of this picture to its top; `tests/test_imports.py` checks it.

```text
 cli                                        one file for each verb
 ablation                                   Tables 5 and 6
 quickstart                                 both stages, evaluation and report in one command
 serve                                      HTTP API and web page
 inference                                  the class Mint          hub: save, push, download
 training  |  evaluation  |  index          none knows of another
 predict                                    models are asked: scores, embeddings, text
 builders                                   recipe -> objects
 run_folder                                 the folder of a run: stages, weights, record
 model             |   data                 Bridge-Net              files -> batches
 encoders          |   language             the two frozen models
 assets                                     offline weights
 config                                     recipes, typed and refusing
 recipe_text                                their YAML, overrides and keys
 files  text_files  machine  user_input      what everything stands on; types below all
```

One example, from a file to an answer: `data/audio/decode.py` gives samples, the encoder gives
features (`data/features/` keeps them), `model/bridge_net.py` gives query outputs,
`model/stage2.py` projects them into soft prompts, and `language/` asks the frozen language model.
Evaluation, validation and the class `Mint` all use the trained models through `predict.py`.
"""


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring.

    Raises:
        ValueError: it has none.
    """
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise ValueError(f"{path} has no docstring; say in one line what it is")
    return docstring.splitlines()[0]


def module_map() -> str:
    """Return the text of docs/map.md.

    Raises:
        ValueError: a folder of the package has no heading in `ROOMS`.
    """
    folders = {path.parent.relative_to(PACKAGE).as_posix().removeprefix(".") for path in PACKAGE.rglob("*.py")}
    if strangers := folders - {room for room, _ in ROOMS}:
        raise ValueError(f"no heading for {', '.join(sorted(strangers))}; add one to ROOMS in tools/module_map.py")

    text = [HEAD]
    for room, heading in ROOMS:
        modules = sorted((PACKAGE / room).glob("*.py"))
        named = [path for path in modules if path.name != "__init__.py"]
        if not named:
            continue
        text.append(f"\n## {heading}\n\n| `src/mint/{room}` | |\n|---|---|\n".replace("/` |", "` |"))
        for path in named:
            line = first_line(path).replace("|", "\\|")
            text.append(f"| `{path.name}` | {line} |\n")
    return "".join(text)


def main(arguments: list[str]) -> int:
    """Write the map, or check it; return the exit status."""
    text = module_map()
    if "--check" not in arguments:
        MAP.write_text(text, encoding="utf-8")
        return 0
    if MAP.is_file() and MAP.read_text(encoding="utf-8") == text:
        return 0
    print("docs/map.md is not what the modules say; run `python tools/module_map.py`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
