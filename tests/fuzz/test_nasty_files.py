"""Each nasty file gives what it is to give, alone and among good ones, whatever reads it."""

import numpy as np
import polars as pl
import pytest

from tests.fuzz import nasty
from tests.fuzz.fuzzing import READ, check_message, nothing_on_stderr, read
from tsds_pipeline.corpus import read_queries, read_test_set
from tsds_pipeline.errors import TsdsError

NAMES = sorted(nasty.FILES)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.jsonl"
    path.write_bytes(b'{"id": "1", "text": "one"}\n{"id": "2", "text": "two"}\n')
    return path


@pytest.mark.parametrize("name", NAMES)
def test_every_record_is_read_or_told_of_and_others_come_out_as_without_it(tmp_path, good, name):
    file = nasty.FILES[name]
    path = file.write(tmp_path / name)
    found, alone, both = read(path), read(good), read(good, path)
    if file.records is nasty.REFUSED:
        assert isinstance(found, TsdsError)
        assert isinstance(both, TsdsError)
        return
    assert (found.copies, len(found.quarantine)) == (file.records, file.bad)
    assert both.read == alone.read + found.read
    assert both.corpus.filter(pl.col("text").is_in(["one", "two"])).equals(alone.corpus)


@pytest.mark.parametrize("name", NAMES)
def test_a_query_set_or_a_test_set_is_whole_or_refused(tmp_path, good, name):
    file = nasty.FILES[name]
    path = file.write(tmp_path / name)
    for read_whole in (read_queries, read_test_set):
        try:
            with nothing_on_stderr():
                found = read_whole([path], **READ)
        except TsdsError as error:
            check_message(str(error), [path])
            assert file.bad or not file.records
        else:
            assert not file.bad
            assert file.records
            assert set(found["record_id"]) == set(read(path).corpus["record_ids"].explode())


@pytest.mark.parametrize("name", sorted(nasty.VECTOR_FILES))
def test_files_of_vectors(tmp_path, name):
    content, ids, usable = nasty.VECTOR_FILES[name]
    path, records = tmp_path / "v.npy", tmp_path / "r.jsonl"
    path.write_bytes(content)
    (tmp_path / "v.ids.txt").write_bytes(ids)
    records.write_bytes(
        b"".join(b'{"id": "%s", "text": "text %s"}\n' % (one, one) for one in (b"a", b"b", b"c"))
    )
    found = read(records, vector_field="e", vector_files=[path])
    if usable is nasty.REFUSED:
        assert isinstance(found, TsdsError)
    else:
        assert found.copies == usable
        assert np.isfinite(found.corpus["vector"].to_numpy()).all()
