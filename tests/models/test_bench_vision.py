"""The benchmark of the models counts right: words, boxes, and the layouts of public data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.vision import datasets
from bench.vision.boxes import Finding, judge, overlap, recall_at
from bench.vision.samples import FaceSample, TextSample
from bench.vision.words import Tally, score
from tests.models import pictures

_QUAD = [[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]]


def test_words_match_as_a_multiset_whatever_their_case() -> None:
    """A word counts as often as it is there; case and punctuation do not."""
    sample = TextSample("", "", ["The door, the key", "42"])
    lines = [{"text": "THE the the", "quad": _QUAD}, {"text": "Door 43", "quad": _QUAD}]

    assert Tally(matched=3, expected=5, found=5) == score(sample, lines)


def test_unexpected_words_over_ignored_text_are_no_mistakes() -> None:
    """What was read where nobody wrote down the truth is not held against the reader."""
    elsewhere = [[20.0, 20.0], [30.0, 20.0], [30.0, 30.0], [20.0, 30.0]]
    sample = TextSample("", "", ["exit"], [[(0, 0), (10, 0), (10, 10), (0, 10)]])
    lines = [{"text": "exit blurred", "quad": _QUAD}, {"text": "wrong", "quad": elsewhere}]

    assert Tally(matched=1, expected=1, found=2) == score(sample, lines)


def test_a_face_found_twice_is_right_once() -> None:
    """The second box on one face is a mistake."""
    sample = FaceSample("", "", [(0.0, 0.0, 10.0, 10.0)])
    faces = [{"confidence": 0.8, "box": [1, 0, 10, 10]}, {"confidence": 0.9, "box": [0, 0, 10, 10]}]

    assert [Finding(0.9, True), Finding(0.8, False)] == judge(sample, faces)


def test_overlap_is_intersection_over_union() -> None:
    """Half of each of two equal boxes shared is a third of their union."""
    assert pytest.approx(1 / 3) == overlap((0, 0, 10, 10), (5, 0, 10, 10))
    assert overlap((0, 0, 10, 10), (20, 0, 10, 10)) == 0


def test_recall_is_taken_where_the_precision_still_holds() -> None:
    """Of the thresholds whose precision suffices, the one that finds most counts."""
    findings = [Finding(0.9, True), Finding(0.8, False), Finding(0.7, True), Finding(0.6, True)]

    assert recall_at(findings, 4, precision_min=1.0) == 0.25
    assert recall_at(findings, 4, precision_min=0.75) == 0.75


def test_icdar_2015_is_read_with_what_it_ignores(tmp_path: Path) -> None:
    """Transcriptions may hold commas; ### is an ignored quad; an image without truth is left out."""
    (tmp_path / "images").mkdir()
    for name in ("img_1.jpg", "img_2.jpg"):
        (tmp_path / "images" / name).write_bytes(pictures.blank())
    truth = "\ufeff1,2,11,2,11,8,1,8,Fish, chips\n5,5,9,5,9,9,5,9,###\n"
    (tmp_path / "gt_img_1.txt").write_text(truth, encoding="utf-8")

    (sample,) = datasets.read(tmp_path).texts

    assert ["Fish, chips"] == sample.lines
    assert [[(5, 5), (9, 5), (9, 9), (5, 9)]] == sample.ignored
    assert sample.path.endswith("img_1.jpg")


def test_wider_and_fddb_are_read(tmp_path: Path) -> None:
    """Invalid faces of WIDER are ignored, ellipses of FDDB become the boxes around them."""
    for name in ("0--Parade/a.jpg", "2002/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(pictures.blank())
    rows = (
        "0--Parade/a.jpg\n2\n10 20 30 40 0 0 0 0 0 0\n1 1 5 5 0 0 0 1 0 0\n0--Parade/none.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"
    )
    (tmp_path / "wider_face_val_bbx_gt.txt").write_text(rows)
    (tmp_path / "FDDB-fold-01-ellipseList.txt").write_text("2002/b\n1\n40 30 0 100 90  1\n")

    wider, fddb = datasets.read(tmp_path).faces

    assert ([(10, 20, 30, 40)], [(1, 1, 5, 5)]) == (wider.boxes, wider.ignored)
    assert [pytest.approx((60, 60, 80, 60))] == fddb.boxes


def test_a_broken_truth_file_is_named(tmp_path: Path) -> None:
    """A row that is none says which file and line it is."""
    (tmp_path / "img_1.jpg").write_bytes(pictures.blank())
    (tmp_path / "gt_img_1.txt").write_text("1,2,3\n")

    with pytest.raises(datasets.BadDataset, match=r"gt_img_1\.txt:1 is not"):
        datasets.read(tmp_path)
