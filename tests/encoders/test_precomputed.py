"""Vectors that come with the records."""

import numpy as np
import polars as pl
import pytest
from hash_encoder import records_of

from tsds_pipeline.encoders import PrecomputedVectors, embed, make_encoder
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import EncoderSettings


def with_vectors(vectors):
    vectors = np.asarray(vectors, dtype=np.float32)
    column = pl.Series(vectors.tolist(), dtype=pl.Array(pl.Float32, vectors.shape[1]))
    return records_of([f"text {i}" for i in range(len(vectors))], vector=column)


def encoder_of(**settings):
    return make_encoder(EncoderSettings(kind="precomputed", **settings))


def test_vectors_are_scaled_to_length_one(tmp_path):
    result = embed(with_vectors([[3, 4], [0, 1e-30], [1e30, 0]]), encoder_of(), tmp_path, "source a")
    np.testing.assert_allclose(result.vectors, [[0.6, 0.8], [0, 1], [1, 0]], rtol=1e-7)
    assert result.vectors.dtype == np.float32
    assert (result.encoded, result.reused, result.vectors.shape[1]) == (0, 0, 2)
    assert not list(tmp_path.iterdir())


def test_vectors_are_kept_as_they_are_without_normalize(tmp_path):
    result = embed(with_vectors([[3, 4], [1, 1]]), encoder_of(normalize=False), tmp_path, "source a")
    np.testing.assert_array_equal(result.vectors, [[3, 4], [1, 1]])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("row", "problem"), [([np.nan, 1], "not finite"), ([1, -np.inf], "not finite"), ([0, 0], "zero")]
)
def test_a_useless_vector_names_its_record_and_the_field(tmp_path, row, problem, normalize):
    records = with_vectors([[1, 1], row])
    encoder = encoder_of(field="v", normalize=normalize)
    with pytest.raises(TsdsError, match=rf'^task t: the vector of record .*\("text 1"\) .*{problem}.*"v"'):
        embed(records, encoder, tmp_path, "task t")


def test_a_vector_that_is_too_long_for_squared_distances_names_its_record(tmp_path):
    records = with_vectors([[1, 1], [0, 1e19]])
    with pytest.raises(
        TsdsError, match=r'^source a: the vector of record .*\("text 1"\) is longer than 2.3e\+18'
    ):
        embed(records, encoder_of(normalize=False), tmp_path, "source a")
    assert embed(records, encoder_of(normalize=True), tmp_path, "source a").vectors[1].tolist() == [0, 1]


def test_records_without_vectors(tmp_path):
    with pytest.raises(TsdsError, match=r'^source a: .* field "emb" .*\[encoder\] field'):
        embed(records_of(["a"]), encoder_of(field="emb"), tmp_path, "source a")


def test_one_record_without_a_vector(tmp_path):
    column = pl.Series([[1.0, 2.0], None], dtype=pl.Array(pl.Float32, 2))
    records = records_of(["a", "b"], vector=column, record_id=["first", "second"])
    with pytest.raises(TsdsError, match=r'^source a: record "second" \("b"\) has no "embedding"'):
        embed(records, encoder_of(), tmp_path, "source a")


def test_no_records(tmp_path):
    assert embed(with_vectors(np.empty((0, 3))), encoder_of(), tmp_path, "source a").vectors.shape == (0, 3)


def test_fingerprint():
    assert isinstance(encoder_of(), PrecomputedVectors)
    prints = [encoder_of(**values).fingerprint for values in ({}, {"field": 'a"b'}, {"normalize": False})]
    assert len(set(prints)) == 3
    assert encoder_of(model="other", batch_size=1, device="cpu").fingerprint == prints[0]
