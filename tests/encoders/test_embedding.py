"""What is encoded, what is reused, and which record an error names."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hash_encoder import HashEncoder, hash_vector, records_of, texts_of

from tsds_pipeline.encoders import cache, embed, embedding
from tsds_pipeline.errors import TsdsError

SCRIPT = Path(__file__).with_name("embed_process.py")


def start_process(root: Path, start: int, stop: int, seconds: float) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), str(root), str(start), str(stop), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_vectors_stand_in_the_order_of_the_records(tmp_path):
    texts = texts_of(0, 50)[::-1]
    result = embed(records_of(texts), HashEncoder(), tmp_path, "source a")
    np.testing.assert_array_equal(result.vectors, [hash_vector(text) for text in texts])
    assert result.vectors.dtype == np.float32
    assert (result.encoded, result.reused, result.vectors.shape) == (50, 0, (50, 8))


def test_appending_100_records_encodes_100(tmp_path):
    embed(records_of(texts_of(0, 300)), HashEncoder(), tmp_path, "source a")
    encoder, texts = HashEncoder(), texts_of(0, 400)
    result = embed(records_of(texts), encoder, tmp_path, "source a")
    assert (result.encoded, result.reused) == (100, 300)
    assert sorted(encoder.texts) == sorted(texts_of(300, 400))
    np.testing.assert_array_equal(result.vectors, [hash_vector(text) for text in texts])


def test_another_source_with_the_same_texts_reuses_them(tmp_path):
    embed(records_of(texts_of(0, 20)), HashEncoder(), tmp_path, "source a")
    assert embed(records_of(texts_of(10, 25)), HashEncoder(), tmp_path, "source b").encoded == 5


def test_another_encoder_reuses_nothing(tmp_path):
    embed(records_of(texts_of(0, 20)), HashEncoder("one"), tmp_path, "source a")
    assert embed(records_of(texts_of(0, 20)), HashEncoder("two"), tmp_path, "source a").encoded == 20


def test_a_repeated_text_is_encoded_once(tmp_path):
    encoder = HashEncoder()
    result = embed(records_of(["b", "a", "b", "b"]), encoder, tmp_path, "task t")
    assert (result.encoded, result.reused, len(encoder.texts)) == (2, 0, 2)
    np.testing.assert_array_equal(result.vectors, [hash_vector(text) for text in "babb"])


def test_order_of_records_decides_nothing(tmp_path):
    texts = texts_of(0, 40)
    first, second = HashEncoder(), HashEncoder()
    embed(records_of(texts), first, tmp_path / "one", "source a")
    embed(records_of(texts[::-1]), second, tmp_path / "two", "source a")
    assert first.texts == second.texts


def test_no_records(tmp_path):
    encoder = HashEncoder()
    result = embed(records_of([]), encoder, tmp_path, "source a")
    assert result.vectors.shape == (0, 0)
    assert result.vectors.dtype == np.float32
    assert not encoder.texts
    assert not list(tmp_path.iterdir())


def test_progress_counts_what_is_encoded_over_all_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(HashEncoder, "encoded_at_once", 10)
    calls = []
    embed(records_of(texts_of(0, 5)), HashEncoder(), tmp_path, "source a")
    embed(records_of(texts_of(0, 30)), HashEncoder(), tmp_path, "source a", lambda *call: calls.append(call))
    assert calls == [(10, 25), (20, 25), (25, 25)]
    calls.clear()
    embed(records_of(texts_of(0, 30)), HashEncoder(), tmp_path, "source a", lambda *call: calls.append(call))
    assert not calls


@pytest.mark.parametrize(
    ("value", "problem"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "all zeros")]
)
def test_a_useless_vector_names_its_record(tmp_path, monkeypatch, value, problem):
    class Broken(HashEncoder):
        def encode(self, texts, progress=None):
            vectors = super().encode(texts)
            vectors[[i for i, text in enumerate(texts) if text == "text number 17"]] = value
            return vectors

    monkeypatch.setattr(HashEncoder, "encoded_at_once", 10)
    records = records_of(texts_of(0, 30), record_ids=[[f"r{i}", "x"] for i in range(30)]).sort("content_id")
    with pytest.raises(TsdsError, match=f'^source a: the vector of record "r17" .*number 17.* {problem}'):
        embed(records, Broken(), tmp_path, "source a")
    place = records["text"].to_list().index("text number 17")
    kept = place // 10 * 10
    assert embed(records, HashEncoder(), tmp_path, "source a").reused == kept


def test_a_record_without_an_id_of_its_own_is_named_by_its_content(tmp_path):
    class Zeros(HashEncoder):
        def encode(self, texts, progress=None):
            return np.zeros((len(texts), 8), np.float32)

    records = records_of(["word " * 100])
    with pytest.raises(TsdsError, match=rf'record "{records["content_id"][0]}" \("word word .*\.\.\."\)'):
        embed(records, Zeros(), tmp_path, "task t")


def test_advice_is_given_once_and_for_what_is_missing(tmp_path, monkeypatch, caplog):
    class Advising(HashEncoder):
        def advice(self, texts):
            return f"{texts} texts could go faster" if texts > 5 else None

    monkeypatch.setattr(embedding, "_advised", [])
    for stop in (5, 9, 30, 50):
        embed(records_of(texts_of(0, stop)), Advising(), tmp_path, "source a")
    assert caplog.messages == ["21 texts could go faster"]


def test_a_killed_run_keeps_what_it_encoded(tmp_path):
    process = start_process(tmp_path, 0, 400, 0.005)
    for line in process.stdout:
        if int(line) >= 100:
            process.kill()
            break
    assert process.wait() != 0
    encoder, calls = HashEncoder(), []
    texts = texts_of(0, 400)
    result = embed(records_of(texts), encoder, tmp_path, "source numbers", lambda *call: calls.append(call))
    assert calls[0][1] == calls[-1][0] == result.encoded, "progress is that of what was left"
    assert 0 < result.encoded <= 310  # the chunk at hand is lost, no more
    assert result.encoded == len(encoder.texts)
    np.testing.assert_array_equal(result.vectors, [hash_vector(text) for text in texts])


def test_two_processes_at_once(tmp_path):
    processes = [start_process(tmp_path, 0, 300, 0.001), start_process(tmp_path, 100, 400, 0.001)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    result = embed(records_of(texts_of(0, 400)), HashEncoder(), tmp_path, "source numbers")
    assert (result.encoded, result.reused) == (0, 400)
    np.testing.assert_array_equal(result.vectors, [hash_vector(text) for text in texts_of(0, 400)])


def test_an_interrupted_run_keeps_whole_chunks(tmp_path, monkeypatch):
    class Interrupted(HashEncoder):
        def encode(self, texts, progress=None):
            if len(self.texts) >= 20:
                raise KeyboardInterrupt
            return super().encode(texts)

    monkeypatch.setattr(HashEncoder, "encoded_at_once", 10)
    assert cache.FLUSH_SECONDS > 5
    with pytest.raises(KeyboardInterrupt):
        embed(records_of(texts_of(0, 50)), Interrupted(), tmp_path, "source a")
    assert embed(records_of(texts_of(0, 50)), HashEncoder(), tmp_path, "source a").reused == 20


def test_records_need_no_more_than_id_and_text(tmp_path):
    records = records_of(["a", "b"]).with_columns(pl.lit(3).alias("count"))
    assert embed(records, HashEncoder(), tmp_path, "source a").vectors.shape == (2, 8)
