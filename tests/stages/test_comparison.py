"""Methods judged by held-back queries: who sees what, and that each figure is that of its definition."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.spatial.distance import cdist

from tests.projects import WITH_REPORTS, as_jsonl, clustered, make_project, records, refreshed
from tsds_pipeline.core.baselines import METHODS
from tsds_pipeline.core.metrics import (
    energy_distance,
    facility_location,
    kl_reduction,
    maximum_mean_discrepancy,
    transport_distance,
)
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import observe, stored
from tsds_pipeline.leaks import HeldBackTexts
from tsds_pipeline.ngrams import total_counts
from tsds_pipeline.project import Project
from tsds_pipeline.stages.comparison import METRICS, OWN, Comparison, mean_metrics, verdict_table
from tsds_pipeline.stages.holdout import folds
from tsds_pipeline.stages.pool import StoredPool, read_pool

SIZE = 12


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("comparison")
    make_project(root, 2, 1, settings=WITH_REPORTS)
    refreshed(root)
    return root


def comparison(root: Path, test_texts: Sequence[str] = ()) -> Comparison:
    project = Project.load(root)
    observed, storage = observe(project), project.storage
    corpora = {s: stored(storage, f"candidate_corpus|{s}").scan() for s in observed.sources}
    return Comparison(
        "t0",
        project.settings.resolved_task("t0"),
        read_pool(observed, "t0"),
        stored(storage, "query_examples|t0").frame,
        corpora,
        SIZE,
        0.1,
        HeldBackTexts(test_texts),
    )


def test_every_method_is_judged_by_every_part(root):
    verdicts = comparison(root).verdicts((OWN, *METHODS)).of
    assert [(one.fold, one.method) for one in verdicts] == [(f, m) for f in range(4) for m in (OWN, *METHODS)]
    for one in verdicts:
        assert set(METRICS) - set(one.metrics) == (set() if one.method == OWN else {"effective_sample_size"})
        assert len(one.nearest_query) == SIZE
        assert 0 < one.metrics["unique_share"] <= 1
    assert sum(len(one.nearest_example) for one in verdicts if one.method == OWN) == 7


def test_the_figures_are_those_of_their_definitions(root):
    compared = comparison(root)
    pool = compared._weighted
    table = stored(root / "storage", "query_examples|t0").frame
    fold = folds(table["content_id"], 4, "tsds comparison t0")
    one = compared.verdicts(["top_k"]).of[2]
    held = np.flatnonzero(fold == 2)
    rest = np.flatnonzero(fold != 2)
    nearest = cdist(pool.queries[rest], pool.vectors(np.arange(pool.size))).min(axis=0)
    _, first = np.unique(pool.units, return_index=True)
    chosen = first[np.argsort(nearest[first], kind="stable")[:SIZE]]
    vectors, queries = pool.vectors(chosen), pool.queries[held]
    distances = cdist(queries, vectors)
    # Ties at the border could choose another; the distances are the same then.
    np.testing.assert_allclose(np.sort(one.nearest_query), np.sort(distances.min(axis=0)), atol=1e-6)
    np.testing.assert_allclose(np.sort(one.nearest_example), np.sort(distances.min(axis=1)), atol=1e-6)
    texts = pl.concat(stored(root / "storage", f"candidate_corpus|{s}").frame for s in ("s0", "s1"))
    by_id = dict(texts.select("content_id", "text").iter_rows())
    expected = {
        "transport_distance": transport_distance(vectors, queries),
        "energy_distance": energy_distance(vectors, queries),
        "maximum_mean_discrepancy": maximum_mean_discrepancy(vectors, queries),
        "held_back_distance": distances.min(axis=1).mean(),
        "facility_location": facility_location(queries, vectors),
        "kl_reduction": kl_reduction(
            total_counts(table["text"][held].to_list()),
            total_counts([by_id[one] for one in pool.content_ids]),
            total_counts([by_id[pool.content_ids[int(row)]] for row in chosen]),
        ),
        "leaks": 0.0,
    }
    assert {name: one.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_the_same_project_gives_the_same_verdicts(root):
    first, second = (verdict_table(comparison(root).verdicts((OWN, "random", "dsir")).of) for _ in range(2))
    assert first.equals(second)


def test_what_is_held_back_is_not_looked_at(root, monkeypatch):
    asked: set[int] = set()

    def spy(method):
        def looking(pool, rows, *more):
            asked.update(np.asarray(rows).tolist())
            return method(pool, rows, *more)

        return looking

    for name in ("nearest", "distances"):
        monkeypatch.setattr(StoredPool, name, spy(getattr(StoredPool, name)))
    compared = comparison(root)
    for method in (OWN, *METHODS):
        asked.clear()
        compared._choice(1, method, SIZE)
        assert not asked & set(np.flatnonzero(compared._fold == 1).tolist()), method
        assert asked or method in ("random", "dsir")


def test_what_cannot_choose_so_many_is_left_out(root):
    """Of 80 candidates two pairs are one text, and some are near-duplicates."""
    compared = comparison(root)
    compared._size = size = compared._weighted.examples
    compared._settings = replace(compared._settings, size=size, alpha=0.0)
    found = compared.verdicts((OWN, "random", "round_robin_deduplicated"))
    assert set(found.left_out) == {"round_robin_deduplicated"}
    assert "could be taken" in found.left_out["round_robin_deduplicated"]
    assert {one.method for one in found.of} == {OWN, "random"}


def test_all_have_the_same_budget(root):
    """At a fixed alpha the queries of one fold reach fewer candidates than were asked for."""
    compared = comparison(root)
    compared._size = 40
    compared._settings = replace(compared._settings, size=40, alpha=0.97)
    found = compared.verdicts((OWN, "random", "top_k")).of
    sizes = {fold: {one.size for one in found if one.fold == fold} for fold in range(4)}
    assert all(len(of_fold) == 1 for of_fold in sizes.values())
    assert min(min(of_fold) for of_fold in sizes.values()) < 40


def test_more_draws_than_examples(root):
    compared = comparison(root)
    compared._size = 300
    compared._settings = replace(compared._settings, size=300, with_replacement=True, alpha=0.5)
    found = compared.verdicts((OWN, "top_k"))
    assert not found.left_out
    assert {one.size for one in found.of if one.method == OWN} == {300}
    assert {one.size for one in found.of if one.method == "top_k"} == {compared._weighted.examples}


def test_texts_of_the_test_set_are_leaks(root):
    compared = comparison(root, test_texts=[f"text {i} of s0" for i in range(40)])
    leaks = verdict_table(compared.verdicts(["random"]).of)["leaks"]
    assert leaks.sum() > 0


def test_means_and_spreads():
    table = pl.DataFrame({"method": ["a", "a", "b"], "fold": [0, 1, 0], "leaks": [1.0, 3.0, 5.0]})
    found = mean_metrics(table)
    assert found.rows() == [("a", 2.0, pytest.approx(np.sqrt(2))), ("b", 5.0, None)]


def test_one_query_cannot_be_held_back(tmp_path):
    make_project(tmp_path, 1, 1)
    query = tmp_path / "tasks" / "t0" / "query.jsonl"
    query.write_text(as_jsonl(records("t0", clustered(7, 100)[:1])))
    refreshed(tmp_path)
    compared = comparison(tmp_path)
    assert not compared.possible
    with pytest.raises(TsdsError, match="task t0: all its queries are one"):
        compared.verdicts([OWN])
