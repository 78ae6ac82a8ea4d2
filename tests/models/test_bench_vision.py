"""The benchmark of the models counts right: words, boxes, and the layouts of public data sets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bench.vision import datasets, logos, retrieval
from bench.vision.boxes import Finding, judge, overlap, recall_at
from bench.vision.samples import FaceSample, LogoSample, PhotoSample, TextSample
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


def test_flickr_logos_27_is_read(tmp_path: Path) -> None:
    """Training rows give instances with their corners, each once; query rows name an image, or say that it has none."""
    for name in ("1.jpg", "2.jpg", "3.jpg", *(f"larger_{number}.jpg" for number in range(5))):
        (tmp_path / name).write_bytes(pictures.blank())
    # The file has a space at the end of each row, an instance in several subsets, and boxes of no size.
    rows = (
        "1.jpg Adidas 1 38 12 234 142 \n1.jpg Adidas 2 38 12 234 142 \n1.jpg Puma 1 0 0 9 9 \n1.jpg Puma 1 5 5 5 9 \n"
    )
    rows += "gone.jpg Ford 1 0 0 9 9 \n"
    rows += "".join(
        f"larger_{number}.jpg {brand} 1 0 0 500 300 \n" for number in range(5) for brand in ("Adidas", "Puma")
    )
    (tmp_path / "flickr_logos_27_dataset_training_set_annotation.txt").write_text(rows)
    (tmp_path / "flickr_logos_27_dataset_query_set_annotation.txt").write_text("2.jpg\tHP\n3.jpg\tnone\n")

    found = datasets.read(tmp_path)
    hp, none, training = found.logos

    assert ("query", ["HP"], []) == (hp.subset, hp.names, hp.quads)
    assert ("no logo", []) == (none.subset, none.names)
    assert ("training", ["Adidas", "Puma"]) == (training.subset, training.names)
    assert [(38, 12), (234, 12), (234, 142), (38, 142)] == training.quads[0]
    assert ["Adidas", "HP", "Puma"] == training.labelled
    # The largest instances are the gallery, and their photos are not searched.
    assert [("Adidas", 5), ("Puma", 5)] == sorted(Counter(crop.name for crop in found.crops).items())
    assert {"larger_0.jpg", "larger_4.jpg"} < {Path(crop.path).name for crop in found.crops}


def test_a_row_of_flickr_logos_27_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The message says in which line the truth is broken."""
    truth = tmp_path / "flickr_logos_27_dataset_training_set_annotation.txt"
    truth.write_text("1.jpg Adidas 1 38 12 234 142\n1.jpg Adidas 1 38 12\n")

    with pytest.raises(datasets.BadDataset, match=":2 is not"):
        datasets.read(tmp_path)


def test_a_logo_is_right_by_name_and_place_and_once() -> None:
    """Another name, another place and a second finding of the same mark are mistakes; spelling is not."""
    corners = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0)]
    sample = LogoSample("", "", ["Coca-Cola"], [corners])
    there, elsewhere = [list(corner) for corner in corners], [[x + 50, y] for x, y in corners]
    found = [("CocaCola", 0.9, there), ("Coca-Cola", 0.8, there), ("Pepsi", 0.7, there), ("Coca-Cola", 0.6, elsewhere)]

    findings = logos.judge(sample, [{"name": n, "confidence": c, "quad": q} for n, c, q in found])

    assert [Finding(0.9, True), Finding(0.8, False), Finding(0.7, False), Finding(0.6, False)] == findings


def test_a_photo_labelled_as_a_whole_says_nothing_of_other_brands() -> None:
    """Each name counts once, one that the labels never speak of not at all; where there is no logo, every name does."""
    quads = [[[float(x), 0.0], [x + 9.0, 0.0], [x + 9.0, 9.0], [float(x), 9.0]] for x in (0, 20, 40, 60)]
    named = zip(("Ford", "Ford", "Puma", "Nokia"), (0.9, 0.8, 0.7, 0.6), quads, strict=True)
    found = [{"name": name, "confidence": confidence, "quad": quad} for name, confidence, quad in named]

    shown = LogoSample("", "query", ["Ford"], labelled=["Ford", "Puma"])
    assert [Finding(0.9, True), Finding(0.7, False)] == logos.judge(shown, found)
    empty = LogoSample("", "no logo", [], labelled=["Ford", "Puma"])
    assert [False, False, False] == [finding.right for finding in logos.judge(empty, found)]


def test_whatever_is_named_among_strangers_is_wrong() -> None:
    """Marks that the gallery lacks are no truth to be found, even by their name."""
    corners = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0)]
    sample = LogoSample("", "", ["Nobody"], [corners], known=False)
    found = {"name": "Nobody", "confidence": 0.9, "quad": [list(corner) for corner in corners]}

    assert [Finding(0.9, False)] == logos.judge(sample, [found])


def test_flickr8k_is_read_with_all_captions_of_a_photo(tmp_path: Path) -> None:
    """Lines are FILE#NUMBER, a tab (once spaces) and a caption; absent photos are left out, a broken line is named."""
    (tmp_path / "1.jpg").write_bytes(pictures.blank())
    truth = tmp_path / "Flickr8k.token.txt"
    truth.write_text("1.jpg#0\tA dog runs .\n1.jpg#1  A brown dog .\n2.jpg#0\tNot there .\n")
    assert datasets.read(tmp_path).photos == [PhotoSample(str(tmp_path / "1.jpg"), ["A dog runs .", "A brown dog ."])]
    truth.write_text("1.jpg A dog runs\n")
    with pytest.raises(datasets.BadDataset, match=r"token\.txt:1 is not FILE#NUMBER"):
        datasets.read(tmp_path)


def test_recall_counts_equal_scores_against_the_query() -> None:
    """A photo that scores like others is not found before them."""
    scores = np.array([[0.9, 0.1, 0.1], [0.5, 0.5, 0.1]])
    assert retrieval.recalls(scores, np.array([0, 0]))["recall_at_1"] == 0.5
    assert retrieval.recalls(scores, np.array([0, 0]))["recall_at_5"] == 1.0


def test_large_sets_are_drawn_from_all_over_the_same_way_each_time(tmp_path: Path) -> None:
    """Of more images than are measured, not the first ones are taken: sets are often sorted by kind."""
    (tmp_path / "2002").mkdir()
    count = datasets.IMAGES_MAX + 50
    for number in range(count):
        (tmp_path / "2002" / f"{number}.jpg").touch()
    rows = "".join(f"2002/{number}\n1\n40 30 0 100 90  1\n" for number in range(count))
    (tmp_path / "FDDB-fold-01-ellipseList.txt").write_text(rows)

    taken = datasets.read(tmp_path).faces

    assert datasets.IMAGES_MAX == len(taken)
    assert taken == datasets.read(tmp_path).faces
    assert any(int(Path(sample.path).stem) >= datasets.IMAGES_MAX for sample in taken)


def test_conse_weighs_the_likeliest_classes_by_their_probability() -> None:
    """As published: no centre, no objects, and the classes beyond the first ten count not."""
    labels = np.eye(12)
    probabilities = np.array([0.4, 0.3, *[0.03] * 8, 0.029, 0.029])

    vector = retrieval.conse(probabilities, labels)

    assert pytest.approx(4 / 3, rel=1e-6) == vector[0] / vector[1]
    assert (0, 0) == tuple(vector[10:])
    assert pytest.approx(1) == np.linalg.norm(vector)
