"""The record of a sample's versions, and what one changed of the one before."""

import polars as pl

from tsds_pipeline.stages.history import FOLDER, SCHEMA, History

DRAWN, SOLVED = {"size": 3, "epochs": 1, "seed": 0}, {"algorithm": "knn_kde", "alpha": 0.5}


def sample(*ids: str) -> pl.DataFrame:
    return pl.DataFrame({"content_id": ids})


def record(history: History, version: str, *ids: str, **metrics: float) -> None:
    history.record(sample(*ids), version, DRAWN, SOLVED, metrics)


def test_the_first_version_has_nothing_before_it(tmp_path):
    history = History(tmp_path, "t")
    assert history.versions().schema == pl.Schema(SCHEMA)
    assert history.drift(sample("a"), "v1") is None
    record(history, "v1", "b", "a", "a", vendi_score=2.0)
    assert history.drift(sample("a", "b"), "v1") is None
    (row,) = history.versions().to_dicts()
    assert (row["number"], row["kept"], row["content_ids"]) == (1, None, ["a", "b"])
    assert row["vendi_score"] == 2.0


def test_drift_against_the_version_before(tmp_path):
    history = History(tmp_path, "t")
    record(history, "v1", "a", "b", "c")
    record(history, "v2", "b", "c", "d", "e")
    drift = history.drift(sample("b", "c", "d", "e"), "v2")
    assert (drift.kept, drift.added, drift.dropped) == (("b", "c"), ("d", "e"), ("a",))
    last = history.versions().row(1, named=True)
    assert [last[name] for name in ("number", "kept", "added", "dropped")] == [2, 2, 2, 1]


def test_a_version_that_is_made_again_stays_one(tmp_path):
    history = History(tmp_path, "t")
    record(history, "v1", "a")
    record(history, "v2", "b")
    before = history.versions()
    record(history, "v2", "b", leaks=1.0)
    after = history.versions()
    assert after.select(before.columns).equals(before)
    assert after["leaks"].to_list() == [None, 1.0]


def test_a_version_that_comes_back_is_a_new_one(tmp_path):
    history = History(tmp_path, "t")
    for version, name in (("v1", "a"), ("v2", "b"), ("v1", "a")):
        record(history, version, name)
    assert history.versions()["version"].to_list() == ["v1", "v2", "v1"]
    assert history.versions()["number"].to_list() == [1, 2, 3]


def test_tasks_have_histories_of_their_own(tmp_path):
    record(History(tmp_path, "t"), "v1", "a")
    record(History(tmp_path, "u"), "v1", "a")
    assert len(list((tmp_path / FOLDER).glob("*/*.parquet"))) == 2
    assert len(History(tmp_path, "t").versions()) == 1
