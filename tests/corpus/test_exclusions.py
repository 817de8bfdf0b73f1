"""What is left out of a source on purpose: by values of fields, and for test sets."""

import json

import polars as pl
import pytest

from tsds_pipeline.corpus import ColumnFilter, TestSet, exclusions, quarantine_problem, read_source

LONG = " ".join(f"word{i}" for i in range(20))


def reason(fields: dict, **rules) -> str | None:
    found = ColumnFilter(**rules).reason(fields)
    return found and ": ".join(found)


@pytest.mark.parametrize(
    ("fields", "keep", "expected"),
    [
        ({"lang": "en"}, {"lang": ["en", "de"]}, None),
        ({"lang": "fr"}, {"lang": ["en"]}, 'keep.lang: lang is "fr"'),
        ({}, {"lang": ["en"]}, "keep.lang: lang is missing or empty"),
        ({"lang": None}, {"lang": ["en"]}, "keep.lang: lang is missing or empty"),
        ({}, {"lang": ["en", ""]}, None),
        ({"lang": []}, {"lang": [""]}, None),
        ({"year": "2023"}, {"year": [2023]}, None),
        ({"year": 2023.0}, {"year": [2023]}, 'keep.year: year is "2023.0"'),
        ({"good": True}, {"good": [True]}, None),
        ({"good": 1}, {"good": [True]}, 'keep.good: good is "1"'),
        ({"meta": {"lang": "en"}}, {"meta.lang": ["en"]}, None),
        ({"meta.lang": "en", "meta": {"lang": "fr"}}, {"meta.lang": ["en"]}, None),
        ({"meta": "en"}, {"meta.lang": ["en"]}, "keep.meta.lang: meta.lang is missing or empty"),
        ({"tags": ["a", "b"]}, {"tags": ["b"]}, None),
        ({"tags": ["a", "c"]}, {"tags": ["b"]}, 'keep.tags: tags is "a", "c"'),
        ({"tags": {"b": 1}}, {"tags": ["b"]}, "keep.tags: tags is an object"),
        ({"a": "1", "b": "2"}, {"a": ["1"], "b": ["1"]}, 'keep.b: b is "2"'),
    ],
)
def test_what_is_kept(fields, keep, expected):
    assert reason(fields, keep=keep) == expected


@pytest.mark.parametrize(
    ("fields", "drop", "expected"),
    [
        ({"license": "gpl"}, {"license": ["gpl"]}, 'drop.license: license is "gpl"'),
        ({"license": "mit"}, {"license": ["gpl"]}, None),
        ({}, {"license": ["gpl"]}, None),
        ({}, {"license": ["gpl", ""]}, "drop.license: license is missing or empty"),
        ({"tags": ["a", "b"]}, {"tags": ["b"]}, 'drop.tags: tags is "b"'),
    ],
)
def test_what_is_dropped(fields, drop, expected):
    assert reason(fields, drop=drop) == expected


def test_excluded_records_are_listed_counted_and_not_bad(write):
    path = write(
        "a.jsonl",
        [
            {"id": 1, "text": "same", "lang": "en"},
            {"id": 2, "text": "same", "lang": "de"},
            {"id": 3, "text": "gone", "lang": "de"},
            {"id": 4, "lang": "de"},
            {"id": 5, "lang": "en"},
        ],
    )
    found = read_source(
        [path], template=None, max_chars=99, vector_field=None, wanted=ColumnFilter(keep={"lang": ["en"]})
    )
    assert found.corpus.select("text", "count", "record_ids").rows() == [("same", 1, ["1"])]
    assert found.excluded.table().select("line", "rule", "reason").rows() == [
        (line, "keep.lang", 'lang is "de"') for line in (2, 3, 4)
    ]
    assert json.loads(found.excluded.table()["excerpt"][1]) == {"id": 3, "text": "gone", "lang": "de"}
    assert found.quarantine["line"].to_list() == [5]
    assert (found.read, found.judged) == (5, 2)
    assert "1 of 2 records (50.0%)" in quarantine_problem(found, 0.4, "a", "q")


def test_what_a_test_set_knows_goes_with_all_its_copies(write):
    tests = pl.DataFrame({"record_id": ["t1", "t2"], "text": [LONG, "What is it?"]})
    first = write("a.jsonl", [{"text": "what is IT"}, {"text": "kept"}])
    second = write("b.jsonl", [{"text": f"Before {LONG}"}, {"text": "what is IT", "label": 1}])
    found = read_source(
        [first, second],
        template=None,
        max_chars=999,
        vector_field=None,
        names={first: "a", second: "b"},
        test_sets=[TestSet.of("mine", tests), TestSet.of("same", tests)],
    )
    assert found.corpus["text"].to_list() == ["kept"]
    piece = " ".join(LONG.split()[:13])
    whole = 'has the text of record "t2" of the test set'
    assert found.excluded.table().rows() == [
        ("a", 1, "exclude.mine", whole, "what is IT"),
        ("b", 1, "exclude.mine", 'has 13 words in a row of record "t1" of the test set', piece),
        ("b", 2, "exclude.mine", whole, "what is IT"),
    ]
    assert found.read == 4


@pytest.mark.parametrize(
    ("keep", "drop", "name"),
    [
        ({"lnag": ["en"]}, {}, "lnag"),
        ({"lang": ["fr"]}, {}, None),
        ({"lang": ["en"]}, {}, None),
        ({}, {"lnag": [""]}, None),
        ({"lnag": ["en"]}, {"lang": ["en"]}, "lnag"),
    ],
)
def test_a_field_that_none_has(write, keep, drop, name):
    path = write("a.jsonl", [{"text": "a", "lang": "en"}, {"text": "b", "lang": "de"}])
    rules = {"template": None, "max_chars": 9, "vector_field": None, "wanted": ColumnFilter(keep, drop)}
    found = read_source([path], **rules)
    assert found.excluded.field_that_none_has(found.read) == name
    empty = read_source([], **rules)
    assert empty.excluded.field_that_none_has(empty.read) is None


def test_all_that_is_excluded_is_counted_and_the_first_are_listed(write, monkeypatch):
    monkeypatch.setattr(exclusions, "MOST_LISTED", 3)
    path = write("a.jsonl", [*[{"text": f"{n}", "n": n % 2} for n in range(8)], {"text": "held back"}])
    tests = TestSet.of("t", pl.DataFrame({"record_id": ["x"], "text": ["held back"]}))
    rules = {"template": None, "max_chars": 9, "vector_field": None, "names": {path: "a"}}
    found = read_source([path], **rules, wanted=ColumnFilter(drop={"n": (0,)}), test_sets=[tests])
    assert found.excluded.counts == {"drop.n": 4, "exclude.t": 1}
    assert len(found.excluded) == 5
    assert found.excluded.table()["line"].to_list() == [1, 3, 5]
    assert (found.copies, found.read) == (4, 9)
    wrong = read_source([path], **rules, wanted=ColumnFilter(keep={"m": (1,)}))
    assert wrong.excluded.field_that_none_has(wrong.read) == "m"
