"""`tsds backfill` and `tsds redraw`: results of single tasks."""

import json

from tests.commands import tsds
from tests.projects import append_records, clustered, records
from tsds_pipeline.results import load_selection


def files(root, *patterns):
    """Bytes and time of everything that matches."""
    found = sorted(path for pattern in patterns for path in root.glob(pattern) if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def test_a_backfill_makes_one_task_and_nothing_else(done):
    others = "storage/*/t1.*", "storage/*/*/t1.*", "storage/*/s*.*", "storage/pool_summary.*", "exports/t1/*"
    before = files(done, *others)
    own = files(done, "storage/*/t0.parquet", "storage/*/*/t0.parquet", "exports/t0/*")
    result = tsds("-p", done, "backfill", "--task", "t0")
    assert result.exit_code == 0
    assert "0 made, 6 fresh" in result.output
    result = tsds("-p", done, "backfill", "--task", "t0", "--from-scratch")
    assert "6 made, 0 fresh" in result.output
    assert "from scratch" in result.output
    assert files(done, *others) == before
    again = files(done, "storage/*/t0.parquet", "storage/*/*/t0.parquet", "exports/t0/*")
    assert {path: data for path, (data, _) in again.items()} == {
        path: data for path, (data, _) in own.items()
    }
    assert all(time > own[path][1] for path, (_, time) in again.items())


def test_a_backfill_takes_the_candidates_as_they_are(done):
    append_records(done / "sources" / "s0.jsonl", records("new", clustered(5, 300)))
    append_records(done / "tasks" / "t1" / "query.jsonl", records("more", clustered(5, 301)))
    result = tsds("-p", done, "backfill", "--task", "t1", "--task", "t0")
    assert result.exit_code == 0
    assert "6 made, 6 fresh" in result.output, "not the changed source, and so not t0"


def test_a_backfill_tells_what_is_missing(done):
    (done / "storage" / "pool_summary.parquet").unlink()
    result = tsds("-p", done, "backfill", "--task", "t0", "--from-scratch")
    assert result.exit_code == 1
    assert "pool_summary is not there yet: run `tsds refresh` first" in result.stderr
    result = tsds("-p", done, "backfill", "--task", "t8")
    assert result.exit_code == 1
    assert 'error: there is no task "t8"' in result.stderr
    assert tsds("-p", done, "backfill").exit_code == 2


def test_a_redraw_gives_another_sample_of_the_same_probabilities(done):
    kept = files(done, "storage/selection_probabilities/*", "exports/t1/*")
    first = load_selection(done, "t0")["id"].to_list()
    samples = [first]
    for number in (1, 2):
        result = tsds("-p", done, "redraw", "t0")
        assert result.exit_code == 0
        assert f"redraws {number - 1 or 'unset'} -> {number}" in result.output
        samples.append(load_selection(done, "t0")["id"].to_list())
        assert json.loads((done / "exports" / "t0" / "manifest.json").read_text())["redraws"] == number
    assert len({tuple(sample) for sample in samples}) == 3
    assert files(done, "storage/selection_probabilities/*", "exports/t1/*") == kept
    assert "0 made" in tsds("-p", done, "refresh").output
    (done / "storage" / "redraws" / "t0.json").write_text("")
    result = tsds("-p", done, "refresh")
    assert result.exit_code == 1
    assert "1 failed" in result.output
    assert "sampled_subset[t0]: storage/redraws/t0.json: cannot be read: delete it" in result.stderr
    assert load_selection(done, "t0")["id"].to_list() == samples[-1], (
        "the last sample stays, and t1 is no worse"
    )
    assert "storage/redraws/t0.json: cannot be read" in tsds("-p", done, "redraw", "t0").stderr
    (done / "storage" / "redraws" / "t0.json").unlink()
    tsds("-p", done, "refresh")
    assert load_selection(done, "t0")["id"].to_list() == first
    assert 'there is no task "t8"' in tsds("-p", done, "redraw", "t0", "t8").stderr
    (done / "storage" / "selection_probabilities" / "t1.parquet").unlink()
    assert "there is nothing to draw from yet: run `tsds refresh`" in tsds("-p", done, "redraw", "t1").stderr
    assert not (done / "storage" / "redraws" / "t1.json").exists()
