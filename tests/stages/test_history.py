"""The record of a sample's versions, and what one changed of the one before."""

import polars as pl

from tsds_pipeline.stages.history import FOLDER, SCHEMA, History

DRAWN, SOLVED = {"size": 3, "epochs": 1, "seed": 0, "redraws": 0}, {"algorithm": "knn_kde", "alpha": 0.5}


def sample(*ids: str) -> pl.DataFrame:
    return pl.DataFrame({"content_id": ids})


def record(history: History, version: str, *ids: str, **metrics: float) -> None:
    history.record(sample(*ids), version, DRAWN, SOLVED, 0.1, metrics)


def test_the_first_version_has_nothing_before_it(tmp_path):
    history = History(tmp_path, "t")
    assert history.versions(9).columns == [name for name in SCHEMA if name != "content_ids"]
    assert history.drift(sample("a"), "v1") is None
    record(history, "v1", "b", "a", "a", vendi_score=2.0)
    assert history.drift(sample("a", "b"), "v1") is None
    (row,) = history.versions(9).to_dicts()
    assert (row["number"], row["kept"]) == (1, None)
    (path,) = (tmp_path / FOLDER / "t").iterdir()
    assert pl.read_parquet(path)["content_ids"].to_list() == [["a", "b"]]
    assert row["vendi_score"] == 2.0


def test_drift_against_the_version_before(tmp_path):
    history = History(tmp_path, "t")
    record(history, "v1", "a", "b", "c")
    record(history, "v2", "b", "c", "d", "e")
    drift = history.drift(sample("b", "c", "d", "e"), "v2")
    assert (drift.kept, drift.added, drift.dropped) == (("b", "c"), ("d", "e"), ("a",))
    last = history.versions(9).row(1, named=True)
    assert [last[name] for name in ("number", "kept", "added", "dropped")] == [2, 2, 2, 1]


def test_a_version_that_is_made_again_stays_one(tmp_path):
    history = History(tmp_path, "t")
    record(history, "v1", "a")
    record(history, "v2", "b")
    before = history.versions(9)
    record(history, "v2", "b", leaks=1.0)
    after = history.versions(9)
    assert after.select(before.columns).equals(before)
    assert after["leaks"].to_list() == [None, 1.0]


def test_a_version_that_comes_back_is_a_new_one(tmp_path):
    history = History(tmp_path, "t")
    for version, name in (("v1", "a"), ("v2", "b"), ("v1", "a")):
        record(history, version, name)
    assert history.versions(9)["version"].to_list() == ["v1", "v2", "v1"]
    assert history.versions(9)["number"].to_list() == [1, 2, 3]


def test_tasks_have_histories_of_their_own(tmp_path):
    record(History(tmp_path, "t"), "v1", "a")
    record(History(tmp_path, "u"), "v1", "a")
    assert len(list((tmp_path / FOLDER).glob("*/*.parquet"))) == 2
    assert len(History(tmp_path, "t").versions(9)) == 1


def test_a_damaged_record_is_passed_over(tmp_path):
    history = History(tmp_path, "t")
    record(history, "v1", "a", "b")
    (tmp_path / FOLDER / "t" / "000002-v2.parquet").touch()
    assert history.drift(sample("b", "c"), "v3").kept == ("b",)
    record(history, "v3", "b", "c")
    assert history.versions(9)["number"].to_list() == [1, 3]


def test_only_the_last_versions_are_read(tmp_path):
    history = History(tmp_path, "t")
    for number in range(5):
        record(history, f"v{number}", str(number))
    assert history.versions(2)["number"].to_list() == [4, 5]
