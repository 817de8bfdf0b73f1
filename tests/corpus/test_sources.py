"""Whole sources and query sets: copies, variants, order, quarantine."""

import json

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsds_pipeline.corpus import empty_corpus, quarantine_problem, read_queries, read_source, read_test_set
from tsds_pipeline.corpus.text import content_id
from tsds_pipeline.errors import TsdsError

CORPUS_SCHEMA = {
    "content_id": pl.String,
    "text": pl.String,
    "count": pl.Int64,
    "record_ids": pl.List(pl.String),
    "variants": pl.List(pl.Struct({"record_id": pl.String, "record": pl.String})),
}
QUERY_SCHEMA = {"content_id": pl.String, "record_id": pl.String, "text": pl.String, "record": pl.String}


def queries(*paths, vector_field=None, max_chars=1000):
    return read_queries(paths, template=None, max_chars=max_chars, vector_field=vector_field)


def test_copies_are_counted_and_variants_kept(write, read):
    path = write(
        "a.jsonl",
        [
            {"id": "3", "text": "same", "label": "x"},
            {"id": "1", "text": "same\r\n", "label": "y"},
            {"id": "2", "text": "same", "label": "x"},
            {"id": "2", "text": "same", "label": "x"},
            {"id": "1", "text": "other"},
        ],
    )
    corpus = read(path).corpus
    assert corpus.schema == CORPUS_SCHEMA
    assert corpus["content_id"].to_list() == sorted([content_id("same"), content_id("other")])
    (same,) = corpus.filter(pl.col("text") == "same").rows(named=True)
    assert same["count"] == 4
    assert same["record_ids"] == ["1", "2", "3"]
    assert same["variants"] == [
        {"record_id": "1", "record": '{"label":"y","text":"same\\r\\n"}'},
        {"record_id": "2", "record": '{"label":"x","text":"same"}'},
    ]
    # An id that stands twice with different contents is two records; both have it.
    assert corpus.filter(pl.col("text") == "other")["record_ids"].to_list() == [["1"]]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv"])
def test_an_empty_file_is_an_empty_frame(write, read, name):
    records = read(write(name, []))
    assert records.corpus.schema == CORPUS_SCHEMA
    assert records.corpus.equals(empty_corpus(None))
    assert (len(records.corpus), len(records.quarantine), records.read) == (0, 0, 0)
    assert quarantine_problem(records, 0.0, "a", "table") is None


def test_an_empty_corpus_can_be_stored_and_has_a_vector_column_where_there_would_be_one(tmp_path):
    empty_corpus("e").write_parquet(tmp_path / "a.parquet")
    assert pl.read_parquet(tmp_path / "a.parquet").schema == CORPUS_SCHEMA | {
        "vector": pl.Array(pl.Float32, 0)
    }


def test_unknown_kinds_of_file_are_refused(write, read):
    with pytest.raises(TsdsError, match=r"a\.json: unknown kind of file: use \.jsonl"):
        read(write("a.json", []))


def test_vectors_stand_beside_their_texts(write, read):
    path = write(
        "a.jsonl",
        [{"text": t, "e": e} for t, e in [("a", [1, 2]), ("a", [1, 2]), ("a", [1, 3]), ("b", [0, 0])]],
    )
    corpus = read(path, vector_field="e").corpus
    assert corpus.schema == CORPUS_SCHEMA | {"vector": pl.Array(pl.Float32, 2)}
    assert sorted(corpus.select("text", "count", "vector").rows()) == [
        ("a", 1, [1, 3]),
        ("a", 2, [1, 2]),
        ("b", 1, [0, 0]),
    ]
    assert not any('"e"' in variant["record"] for variants in corpus["variants"] for variant in variants)


def test_vectors_in_parquet(tmp_path, read):
    for kind in (pl.List(pl.Float64), pl.Array(pl.Float32, 2), pl.List(pl.Int64)):
        path = tmp_path / "a.parquet"
        pl.DataFrame({"text": ["a"], "e": pl.Series([[1, 2]], dtype=kind)}).write_parquet(path)
        assert read(path, vector_field="e").corpus["vector"].to_list() == [[1, 2]]


def test_vectors_of_another_length_than_most_are_bad_wherever_they_stand(write, read):
    lines = [{"text": f"t{i}", "e": [1] * n} for i, n in enumerate([3, 2, 2, 4, 2])]
    records = read(write("a.jsonl", lines[:2]), write("b.jsonl", lines[2:]), vector_field="e")
    assert records.quarantine.select("line", "reason").rows() == [
        (1, "the vector has 3 numbers, in most records it has 2"),
        (2, "the vector has 4 numbers, in most records it has 2"),
    ]
    assert records.quarantine["file"].str.tail(7).to_list() == ["a.jsonl", "b.jsonl"]
    assert records.corpus.schema["vector"] == pl.Array(pl.Float32, 2)
    assert (records.corpus["count"].sum(), records.read) == (3, 5)


LINES = st.one_of(
    st.fixed_dictionaries(
        {"text": st.sampled_from(["a", "a ", "b", "é", "e\u0301", "", " "])},
        optional={"id": st.sampled_from(["1", "2", 2, None]), "label": st.sampled_from([0, 1, "é"])},
    ).map(json.dumps),
    st.sampled_from(["{", "[]", '{"no": 1}', '{"text": 1}', '{"text": "\\ud800"}']),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, max_size=12), st.data())
def test_order_and_files_do_not_matter_and_nothing_is_lost(tmp_path, lines, data):
    one, parts = tmp_path / "one.jsonl", [tmp_path / "p0.jsonl", tmp_path / "p1.jsonl"]
    shuffled, cut = data.draw(st.permutations(lines)), data.draw(st.integers(0, len(lines)))
    for path, part in zip([one, *parts], [lines, shuffled[:cut], shuffled[cut:]], strict=True):
        path.write_text("".join(line + "\n" for line in part))
    options = {"template": None, "max_chars": 9, "vector_field": None}
    whole, split = read_source([one], **options), read_source(data.draw(st.permutations(parts)), **options)
    assert whole.corpus.equals(split.corpus)
    for row in whole.corpus.iter_rows(named=True):
        assert row["variants"][0]["record_id"] == row["record_ids"][0]
        assert len({variant["record"] for variant in row["variants"]}) == len(row["variants"]) <= row["count"]
    for name, records in (("whole", whole), ("split", split)):
        assert records.corpus["count"].sum() + len(records.quarantine) == records.read == len(lines)
        records.corpus.write_parquet(tmp_path / name)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "split").read_bytes()
    assert sorted(whole.quarantine["reason"]) == sorted(split.quarantine["reason"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.sampled_from([0, 1]), max_size=3)), max_size=9),
    st.data(),
)
def test_order_does_not_matter_with_vectors(tmp_path, records, data):
    frames = []
    for name, order in (("a.jsonl", records), ("b.jsonl", data.draw(st.permutations(records)))):
        (tmp_path / name).write_text("".join(json.dumps({"text": t, "e": e}) + "\n" for t, e in order))
        read = read_source([tmp_path / name], template=None, max_chars=9, vector_field="e")
        assert read.corpus["count"].sum() + len(read.quarantine) == read.read == len(records)
        frames.append(read.corpus)
    assert frames[0].equals(frames[1])


NAMES = st.sampled_from(["text", "messages", "instruction", "input", "output", "e", "id", "content", "value"])
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)
ANY_LINES = st.one_of(
    st.dictionaries(NAMES, VALUES, max_size=5).map(lambda fields: json.dumps(fields).encode()),
    st.binary(max_size=30).map(lambda line: b" " + line.replace(b"\n", b"")),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    st.lists(ANY_LINES, max_size=4),
    st.sampled_from([None, "{text}\n{e.value}"]),
    st.sampled_from([None, "e"]),
)
def test_whatever_stands_in_a_file_is_used_or_quarantined(tmp_path, lines, template, vector_field):
    path = tmp_path / "any.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    records = read_source([path], template=template, max_chars=20, vector_field=vector_field)
    assert records.corpus["count"].sum() + len(records.quarantine) == records.read
    records.corpus.write_parquet(tmp_path / "corpus")
    records.quarantine.write_parquet(tmp_path / "quarantine")


def test_queries_keep_their_copies(write):
    path = write(
        "q.jsonl", [{"id": "2", "text": "q"}, {"id": "1", "text": " q"}, {"id": "1", "text": "p", "x": 1}]
    )
    found = queries(path)
    assert found.schema == QUERY_SCHEMA
    assert found.select("text", "record_id", "record").rows() == sorted(
        [("p", "1", '{"text":"p","x":1}'), ("q", "1", '{"text":" q"}'), ("q", "2", '{"text":"q"}')],
        key=lambda row: (content_id(row[0]), row[1]),
    )


def test_queries_with_vectors(write):
    found = queries(write("q.jsonl", [{"text": "q", "e": [1, 2]}]), vector_field="e")
    assert found.schema == QUERY_SCHEMA | {"vector": pl.Array(pl.Float32, 2)}


def test_any_bad_query_is_an_error_that_says_where_and_why(write):
    path = write("q.jsonl", [{"text": "q"}, {"text": ""}, b"{", *[{"text": None}] * 8])
    with pytest.raises(TsdsError) as error:
        queries(path)
    assert str(error.value) == (
        f"10 of 11 query records cannot be used: {path}:2: the text is empty (text); "
        f"{path}:3: invalid JSON: Expecting property name enclosed in double quotes (column 2); "
        "repair or remove them: every query counts"
    )


def test_a_query_vector_of_another_length_is_an_error(write):
    path = write("q.jsonl", [{"text": "q", "e": [1, 2]}, {"text": "q", "e": [1, 2]}, {"text": "q", "e": [1]}])
    with pytest.raises(
        TsdsError, match=r"1 of 3 .*q\.jsonl:3: .*the vector has 1 numbers, .* repair or remove it"
    ):
        queries(path, vector_field="e")


def test_an_empty_query_set_is_an_error(write):
    with pytest.raises(TsdsError, match=r"q\.jsonl: holds no query records: add at least one"):
        queries(write("q.jsonl", [b""]))


def test_the_share_of_bad_records(write, read):
    path = write("a.jsonl", [{"text": "a"}] * 8 + [b"{", {"x": 1}])
    records = read(path)
    assert quarantine_problem(records, 0.2, "alpaca", "q.parquet") is None
    assert quarantine_problem(records, 0.05, "alpaca", "q.parquet") == (
        'source "alpaca": 2 of 10 records (20.0%) cannot be used, more than max_quarantined = 0.05 allows: '
        f"{path}:9: invalid JSON: Expecting property name enclosed in double quotes (column 2); "
        f"{path}:10: no field known to hold text (found x): say which by a text template; "
        "all are listed in q.parquet; repair them, or raise max_quarantined in [sources.alpaca] or [corpus]"
    )


@pytest.mark.parametrize("bad", [0, 1, 29])
def test_the_share_is_exact(write, read, bad):
    records = read(write("a.jsonl", [{"x": 1}] * bad + [{"text": "a"}] * (100 - bad)))
    assert quarantine_problem(records, bad / 100, "a", "q") is None


def test_the_first_few_reasons_stand_for_all(write, read):
    records = read(write("a.jsonl", [{f"x{i % 5}": 1} for i in range(50)]))
    assert quarantine_problem(records, 1 / 3, "a", "q.parquet").count("no field") == 3


def test_the_texts_of_a_test_set(write):
    path = write("test.jsonl", [{"text": " a  "}, {"text": "b"}, {"text": "a", "embedding": "not read"}])
    assert set(read_test_set([path], template=None, max_chars=9)["text"]) == {"a", "b"}
    assert set(read_test_set([path], template="{text}!", max_chars=9)["text"]) == {"a  !", "b!", "a!"}
    with pytest.raises(TsdsError, match=r"1 of 2 test records .*test\.jsonl:2: .*; repair or remove them"):
        read_test_set([write("test.jsonl", [{"text": "a"}, b"{"])], template=None, max_chars=9)
    with pytest.raises(TsdsError, match=r"test\.jsonl: holds no test records, so nothing is kept out"):
        read_test_set([write("test.jsonl", [])], template=None, max_chars=9)


def test_real_sources_and_queries(shared_data, tmp_path, write, read):
    """The first records of each source: nothing is bad, nothing is lost, and order does not matter."""
    import gzip
    from itertools import islice

    for source in sorted((shared_data / "sources").glob("*.jsonl.gz")):
        with gzip.open(source) as file:
            lines = [line.rstrip(b"\n") for line in islice(file, 50)]
        records = read(write("a.jsonl", lines), max_chars=10**6)
        assert (len(records.quarantine), records.read) == (0, len(lines))
        assert records.corpus.equals(read(write("b.jsonl.gz", lines[::-1]), max_chars=10**6).corpus)
        ids = {json.loads(line)["id"] for line in lines}
        assert set(records.corpus["record_ids"].explode()) == ids
    for task in sorted((shared_data / "tasks").glob("*/query.jsonl.gz")):
        assert len(queries(task, max_chars=10**6)) >= 10
