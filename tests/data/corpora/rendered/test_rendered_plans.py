"""What the rendered corpora decide before a sound is made: splits, labels, captions."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from mint.data.corpora.rendered import chords, ensembles, notes, percussion, wording
from mint.data.corpora.rendered.general_midi import FAMILIES, NOTE_NAMES, PROGRAMS, UNSEEN_PROGRAMS
from mint.data.corpora.rendered.plan import ClipPlan
from mint.data.corpora.rendered.quickstart import CORPORA
from mint.types import MintError

PLANS = {name: module.plan(0, 1.0) for name, module in CORPORA.items()}
ALL = [plan for plans in PLANS.values() for plan in plans]


@pytest.mark.parametrize("name", CORPORA)
def test_the_seed_decides(name: str) -> None:
    assert CORPORA[name].plan(0, 1.0) == PLANS[name]
    assert CORPORA[name].plan(1, 1.0) != PLANS[name]


@pytest.mark.parametrize("name", CORPORA)
def test_plans_can_be_told_apart_and_played(name: str) -> None:
    plans = PLANS[name]
    assert len({plan.id for plan in plans}) == len(plans)
    assert len({(plan.notes, plan.seconds) for plan in plans}) == len(plans)
    for plan in plans:
        assert plan.notes
        for note in plan.notes:
            assert 0 <= note.start < plan.seconds
            assert note.length > 0
            assert 0 <= note.pitch <= 127
            assert 1 <= note.velocity <= 127


@pytest.mark.parametrize("name", CORPORA)
def test_labels_stand_in_the_vocabulary_and_in_its_order(name: str) -> None:
    vocabulary = list(CORPORA[name].VOCABULARY)
    for plan in PLANS[name]:
        places = [vocabulary.index(label) for label in plan.labels]
        assert places == sorted(set(places))


def test_sizes() -> None:
    counts = {name: Counter(plan.split for plan in plans) for name, plans in PLANS.items()}
    assert counts["notes"] == {"train": 2992, "validation": 154, "test": 220, "unseen": 165}
    assert counts["ensembles"] == {"train": 500, "validation": 60, "test": 150}
    assert counts["chords"] == {"train": 192, "validation": 48, "test": 96}
    assert counts["percussion"] == {"train": 448, "validation": 64, "test": 160}


@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("name", ["notes", "chords", "percussion"])
def test_classes_are_balanced_at_every_scale(name: str, scale: float) -> None:
    module = CORPORA[name]
    counts = Counter((plan.split, plan.labels[0]) for plan in module.plan(3, scale))
    for split in module.SIZES:
        assert len({counts[split, label] for label in module.VOCABULARY}) == 1
        assert counts[split, module.VOCABULARY[0]] >= 1


def test_instruments_of_ensembles_are_used_equally() -> None:
    counts = Counter(label for plan in PLANS["ensembles"] if plan.split == "train" for label in plan.labels)
    assert len(counts) == len(ensembles.VOCABULARY)
    assert max(counts.values()) - min(counts.values()) <= 3
    assert Counter(len(plan.labels) for plan in PLANS["ensembles"]).keys() == {1, 2, 3}


def test_no_note_is_in_two_splits() -> None:
    played = [(note.program, note.pitch, note.velocity) for plan in PLANS["notes"] for note in plan.notes]
    assert len(set(played)) == len(played)


def test_unseen_programs_are_in_no_other_split_of_any_corpus() -> None:
    for plan in ALL:
        programs = {note.program for note in plan.notes if not note.drum}
        assert programs.isdisjoint(UNSEEN_PROGRAMS) == (plan.split != "unseen")


def test_every_family_has_programs_to_learn_from_and_two_unseen() -> None:
    seen = Counter(program.family for program in PROGRAMS if not program.unseen)
    assert set(seen) == set(FAMILIES)
    assert min(seen.values()) >= 2
    assert set(Counter(program.family for program in PROGRAMS if program.unseen).values()) == {2}
    tested = {plan.notes[0].program for plan in PLANS["notes"] if plan.split == "test"}
    trained = {plan.notes[0].program for plan in PLANS["notes"] if plan.split == "train"}
    assert tested <= trained
    assert {plan.notes[0].program for plan in PLANS["notes"] if plan.split == "unseen"} == UNSEEN_PROGRAMS


def test_too_large_a_scale_is_refused() -> None:
    with pytest.raises(MintError, match=r"scale 50.* asks for more notes than '.*' has; give less"):
        notes.plan(0, 50.0)


def test_a_cadence_begins_and_ends_on_the_tonic() -> None:
    for plan in PLANS["chords"]:
        tonic, mode = plan.labels[0].rsplit(" ", 1)
        root = NOTE_NAMES.index(tonic)
        triad = {root, (root + (4 if mode == "major" else 3)) % 12, (root + 7) % 12}
        for group in (plan.notes[:4], plan.notes[-4:]):
            assert {note.pitch % 12 for note in group} == triad
            assert min(group, key=lambda note: note.pitch).pitch % 12 == root


def test_a_note_names_its_own_family_and_no_other() -> None:
    for plan in PLANS["notes"]:
        for caption in plan.captions:
            named = {family for family in FAMILIES if re.search(rf"\b{family}\b", caption.lower())}
            assert named == {plan.labels[0]}, caption


def test_captions_name_what_is_heard() -> None:
    for name in ("ensembles", "chords", "percussion"):
        for plan in PLANS[name]:
            for caption in plan.captions:
                assert all(label.lower() in caption.lower() for label in plan.labels), caption


@pytest.mark.parametrize("plan", ALL[::97], ids=lambda plan: plan.id)
def test_captions_are_two_or_three_short_sentences(plan: ClipPlan) -> None:
    assert len(set(plan.captions)) == len(plan.captions)
    assert len(plan.captions) in (2, 3)
    for caption in plan.captions:
        assert caption[0].isupper()
        assert caption.endswith(".")
        assert "{" not in caption
        assert "  " not in caption
        assert len(caption.split()) < 25


def test_hits_are_counted() -> None:
    for plan in PLANS["percussion"]:
        assert plan.metadata["hits"] == len(plan.notes)
        said = [word for word in percussion.COUNTS.values() if any(f"{word} times" in text for text in plan.captions)]
        assert said in ([], [percussion.COUNTS[len(plan.notes)]])


def test_prompts_are_those_of_table_1() -> None:
    assert notes.PROMPT == "The most prominent instrument in this music is"
    assert ensembles.PROMPT == "Identify the instruments in this segment of music:"
    assert chords.PROMPT == "The key of this music is"
    assert percussion.PROMPT == "This is a sound of"


def test_wording() -> None:
    assert wording.with_article("organ") == "an organ"
    assert wording.with_article("guitar") == "a guitar"
    assert wording.enumeration(["flute"]) == "flute"
    assert wording.enumeration(["flute", "drums"]) == "flute and drums"
    assert wording.enumeration(["flute", "guitar", "drums"]) == "flute, guitar and drums"
    assert [wording.loudness(velocity) for velocity in notes.VELOCITIES] == [
        "very soft",
        "soft",
        "medium loud",
        "loud",
        "very loud",
    ]
    assert [wording.register(pitch) for pitch in (47, 48, 71, 72)] == ["low", "middle", "middle", "high"]
