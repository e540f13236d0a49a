"""Runs made for others: what is copied, the card, the hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from mint import Mint
from mint import hub as share
from mint.types import MintError
from tiny_runs import LABELS, train_both

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        yield train_both(folder)


class Hub:
    """A hub of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.private: dict[str, bool] = {}

    def create_repo(self, repo: str, private: bool, exist_ok: bool) -> str:
        assert exist_ok
        self.private[repo] = private
        return f"hub/{repo}"

    def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> None:
        shutil.copytree(folder_path, self.folder / repo_id)

    def snapshot_download(self, repo: str) -> str:
        if not (self.folder / repo).is_dir():
            raise FileNotFoundError(f"404\nnothing at {repo}")
        return str(self.folder / repo)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(share, "HfApi", lambda: hub)
    monkeypatch.setattr("mint.hub.snapshot_download", hub.snapshot_download)
    return hub


def answers(mint: Mint, clip: Path) -> tuple[str, dict[str, float], list[float]]:
    return mint.caption(clip), mint.classify(clip, list(LABELS)), mint.embed_audio(clip).flatten().tolist()


def test_a_copy_answers_as_the_original(run: Path, tmp_path: Path) -> None:
    mint, clip = Mint.from_pretrained(run), run.parent / "low0.wav"
    copy = mint.save_pretrained(tmp_path / "copy")
    before = answers(mint, clip)
    run.rename(run.with_name("elsewhere"))
    try:
        assert answers(Mint.from_pretrained(copy), clip) == before
    finally:
        run.with_name("elsewhere").rename(run)


def test_a_copy_holds_what_use_needs(run: Path, tmp_path: Path) -> None:
    Mint.from_pretrained(run).save_pretrained(tmp_path)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    tokenizer = {"tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"}
    needed = {"recipe.yaml", "run.json", "model.safetensors", *tokenizer}
    assert files == {"README.md", *(f"stage{stage}/{name}" for stage in (1, 2) for name in needed)}


def test_the_card(run: Path, tmp_path: Path) -> None:
    Mint.from_pretrained(run).save_pretrained(tmp_path / "my-model")
    _, front, text = (tmp_path / "my-model" / "README.md").read_text().split("---\n", maxsplit=2)
    metadata = yaml.safe_load(front)
    assert metadata["library_name"] == "mint-audio"
    assert metadata["pipeline_tag"] == "audio-text-to-text"
    assert 'Mint.from_pretrained("my-model")' in text
    code = text.partition("```python\n")[2].partition("```")[0]
    compile(code, "card", "exec")
    assert "mint.caption" in code
    assert "tiny-stage1" in text


@pytest.mark.parametrize("taken", ["stage1", "stage2", "README.md"])
def test_nothing_is_overwritten(run: Path, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).mkdir()
    with pytest.raises(MintError, match=f"{taken} is there already; choose another folder"):
        Mint.from_pretrained(run).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [taken]


def test_stage_1_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "stage1").symlink_to(run / "stage1")
    mint = Mint.from_pretrained(tmp_path)
    mint.save_pretrained(tmp_path / "copy")
    assert "mint.caption" not in (tmp_path / "copy" / "README.md").read_text()
    assert torch.equal(
        Mint.from_pretrained(tmp_path / "copy").embed_text("a tone"), Mint.from_pretrained(run).embed_text("a tone")
    )


def test_to_the_hub_and_back(run: Path, hub: Hub) -> None:
    mint, clip = Mint.from_pretrained(run), run.parent / "low0.wav"
    assert mint.push_to_hub("me/tones", private=True) == "hub/me/tones"
    assert hub.private == {"me/tones": True}
    assert 'from_pretrained("me/tones")' in (hub.folder / "me" / "tones" / "README.md").read_text()
    assert answers(Mint.from_pretrained("me/tones"), clip) == answers(mint, clip)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("me/nothing", r"no such folder: 'me/nothing'; .* which could not be fetched \(404 nothing at me/nothing\)"),
        ("runs/of/mine", "no such folder: 'runs/of/mine'; give the folder of a finished run, or a name on the hub"),
        ("../nowhere", "no such folder: '../nowhere'"),
        ("nowhere", "no such folder: 'nowhere'"),
    ],
)
def test_neither_folder_nor_name_of_the_hub(hub: Hub, name: str, message: str) -> None:
    with pytest.raises(MintError, match=message):
        Mint.from_pretrained(name)


def test_a_hub_that_refuses(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("401\nno token")

    monkeypatch.setattr(hub, "create_repo", refuse)
    with pytest.raises(MintError, match=r"cannot upload to 'me/tones' \(401 no token\); log in with"):
        Mint.from_pretrained(run).push_to_hub("me/tones")
