"""Pairs, the sample of the pool and its nearest other texts, against a slow look at all of them."""

import numpy as np
import polars as pl
import pytest

from tests.projects import write_records
from tests.texts import A, B, bag_vector
from tsds_pipeline.calibration import radius
from tsds_pipeline.calibration.edits import differ_by_an_edit
from tsds_pipeline.calibration.pairs import edited_pairs, given_pairs
from tsds_pipeline.calibration.radius import find_radius
from tsds_pipeline.calibration.texts import Nearest, PoolTexts, length_group
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import observe
from tsds_pipeline.project import Project


@pytest.fixture
def project(text_project) -> Project:
    return Project.load(text_project)


@pytest.fixture
def pool(project) -> PoolTexts:
    return PoolTexts(observe(project))


def test_a_sample_is_spread_over_sources_and_lengths(pool):
    sample = pool.sample(60, "key")
    assert sample.group_by("source", "group").len()["len"].to_list() == [10] * 6
    assert sample["weight"].sum() == pytest.approx(149)
    assert sample.filter(pl.col("source") == "a")["weight"].unique().to_list() == [3.0]
    for row in sample.iter_rows(named=True):
        assert length_group(len(row["text"].split())) == row["group"]
    assert set(pool.sample(30, "key")["content_id"]) <= set(sample["content_id"])
    assert set(pool.sample(60, "other")["content_id"]) != set(sample["content_id"])
    assert len(pool.sample(1000, "key")) == len(pool) == 149


@pytest.mark.parametrize(("words", "group"), [(1, 0), (15, 0), (16, 1), (50, 1), (51, 2)])
def test_lengths(words, group):
    assert length_group(words) == group


def test_the_nearest_other_text_is_found_past_copies_and_edits(pool):
    sample = pool.sample(1000, "key")
    found = pool.nearest_others(sample)
    texts, vectors = sample["text"].to_list(), pool.vectors(sample).astype(float)
    for row, text in enumerate(texts):
        others = [other for other in range(len(texts)) if not differ_by_an_edit(text, texts[other])]
        nearest = min(np.linalg.norm(vectors[row] - vectors[other]) for other in others)
        assert found.distances[row] == pytest.approx(nearest, abs=1e-6)
    assert found.edited.sum() == 2, "a text and the one that has a word more"
    assert len(found.table) == len(texts)


def test_edited_pairs_are_as_far_as_their_vectors(project, pool, encoder):
    sample = pool.sample(40, "key")
    found = edited_pairs(project, pool, sample, 0)
    assert 35 <= len(found.distances) <= 40, "of a few nothing changes: two equal words swapped"
    assert set(found.kinds) == {
        "a word deleted",
        "two words swapped",
        "a word doubled",
        "a typo",
        "case and full stop",
    }
    medians = [np.median(found.distances[found.groups == group]) for group in range(3)]
    assert medians == sorted(medians, reverse=True), "an edit moves a short text farther"
    again = edited_pairs(project, pool, sample, 0)
    assert np.array_equal(again.distances, found.distances)


def test_without_an_encoder_there_are_no_edits(project, pool):
    assert edited_pairs(project, pool, pool.sample(5, "key"), 0) is None


def test_a_radius_that_tells_edits_from_other_texts(project, pool, encoder):
    found = find_radius(project, pool, None, 60, 0)
    assert found.proposal is not None
    row = next(row for row in found.rows if row.proposed)
    if found.proposal.separates:
        assert row.figures.caught >= 0.9
    assert row.figures.merged <= 0.05
    assert any(row.in_use for row in found.rows)
    assert found.words == (50, 49, 50)
    assert len(found.examples)


class UnevenPool:
    """Two sources, of 40 texts that all have an edit in the pool and of 4,000 that have none, and a sample of both."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.of = np.repeat([40, 4000], 40)
        self.table = pl.DataFrame({"group": [0] * 4040})
        self._vectors = rng.normal(size=(80, 4)) * np.repeat([10.0, 0.1], 40)[:, None]

    def sample(self, n: int, key: str) -> pl.DataFrame:
        rows = np.arange(80) if n >= 80 else np.r_[:40, 40:n]
        size = np.where(self.of[rows] == 40, 40, np.sum(self.of[rows] == 4000))
        return pl.DataFrame({"row": rows, "weight": self.of[rows] / size, "text": "", "group": 0})

    def vectors(self, rows: pl.DataFrame) -> np.ndarray:
        return self._vectors[rows["row"].to_numpy()].astype(np.float32)

    def nearest_others(self, rows: pl.DataFrame) -> Nearest:
        fields = ["source", "text", "other_source", "other_text"]
        table = pl.DataFrame(schema=dict.fromkeys(fields, pl.String) | {"distance": pl.Float64})
        return Nearest(np.ones(len(rows)), table, self.of[rows["row"].to_numpy()] == 40)


def test_each_text_of_a_sample_counts_for_those_it_stands_for(project, monkeypatch):
    monkeypatch.setattr(radius, "_RANDOM", 60)
    pool = UnevenPool()
    found = find_radius(project, pool, None, 10, 0)
    assert found.natural == pytest.approx(40 / 4040)
    many = pool.vectors(pool.sample(1000, "key"))[40:]
    gaps = np.linalg.norm(many[:, None] - many, axis=2)[np.triu_indices(40, 1)]
    assert found.typical == pytest.approx(np.median(gaps), rel=0.2), (
        "of most pairs both are of the large source"
    )


def test_given_texts_are_encoded(project, pool, encoder, tmp_path):
    pairs = [("t0word1 t0word2", "t0word1 t0word3"), ("t1word5 " * 20, "t1word5 " * 19)]
    write_records(tmp_path / "pairs.jsonl", [{"a": a, "b": b} for a, b in pairs])
    settings = project.settings.model_copy(
        update={"encoder": project.settings.encoder.model_copy(update={"kind": "x"})}
    )
    found = given_pairs(Project(project.root, settings), pool, tmp_path / "pairs.jsonl")
    expected = [np.linalg.norm(bag_vector(a) - bag_vector(b)) for a, b in pairs]
    np.testing.assert_allclose(found.distances, expected, atol=1e-6)
    assert found.groups.tolist() == [0, 1]


def test_with_given_vectors_pairs_name_records(project, pool, tmp_path):
    write_records(tmp_path / "pairs.jsonl", [{"a": "a-3", "b": A[4]}, {"a": "b-0", "b": "a-5"}])
    found = given_pairs(project, pool, tmp_path / "pairs.jsonl")
    expected = [
        np.linalg.norm(bag_vector(A[3]) - bag_vector(A[4])),
        np.linalg.norm(bag_vector(B[0]) - bag_vector(A[5])),
    ]
    np.testing.assert_allclose(found.distances, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"a": "a-3", "b": "nobody"}\n',
            r'pairs.jsonl:1: no record of the pool has the id or text "nobody"',
        ),
        ('{"a": "a-3", "b": "a-4"}\n{"a": "a-3"}\n', r'pairs.jsonl:2: the field "b" holds no text'),
        ("{\n", r"pairs.jsonl:1: "),
        ("", r"pairs.jsonl: holds no pairs"),
    ],
)
def test_pairs_that_cannot_be_used(project, pool, tmp_path, content, message):
    (tmp_path / "pairs.jsonl").write_text(content)
    with pytest.raises(TsdsError, match=message):
        given_pairs(project, pool, tmp_path / "pairs.jsonl")
