import json

import polars as pl
import pytest

from tsds_pipeline.settings import ExportSettings, Settings
from tsds_pipeline.stages.export import export_sample
from tsds_pipeline.stages.sample import (
    OWN_COLUMNS,
    TASK,
    TOKENS,
    certain_share,
    constraints_of,
    draw_examples,
    drawable,
    repetitions,
    sampling_units,
    with_records,
)

PROBABILITIES = pl.DataFrame(
    {
        "source": ["a", "b", "a", "a"],
        "id": ["a1", "b1", "a2", "a3"],
        "content_id": ["x", "x", "y", "z"],
        "probability": [0.25, 0.125, 0.5, 0.125],
        "density": [2.0, 2.0, 1.0, 1.0],
        "nearest_query": ["q", "q", "r", "r"],
        "distance": [0.1, 0.1, 0.2, 0.3],
    }
)


def corpus(rows: list[tuple[str, str, list[tuple[str, dict]]]]) -> pl.LazyFrame:
    return pl.LazyFrame(
        {
            "content_id": [row[0] for row in rows],
            "text": [row[1] for row in rows],
            "record_ids": [[i for i, _ in row[2]] for row in rows],
            "variants": [
                [{"record_id": i, "record": json.dumps(record)} for i, record in row[2]] for row in rows
            ],
        }
    )


CORPORA = {
    "b": corpus([("x", "X", [("b1", {"label": "from b", "n": 1})])]),
    "a": corpus(
        [
            ("w", "W", [("a0", {"label": "never drawn"})]),
            ("x", "X", [("a1", {"label": "one", "n": 1}), ("a9", {"label": "two", "n": 1})]),
            ("y", "Y", [("a2", {"label": None, "n": 2.5, "text": "raw", "tags": ["t"]})]),
            ("z", "Z", [("a3", {"n": True, "deep": {"k": 1}})]),
        ]
    ),
}


def task(**changes):
    return Settings.model_validate({"selection": changes}).resolved_task("t")


def sample(size: int = 3, **changes) -> pl.DataFrame:
    drawn = draw_examples("t", task(**changes), size, sampling_units(PROBABILITIES)).examples
    return with_records(drawn, CORPORA)


def test_the_same_text_in_two_sources_is_one_unit():
    units = sampling_units(PROBABILITIES)
    assert units["content_id"].to_list() == ["x", "y", "z"]
    assert units["probability"].to_list() == [0.375, 0.5, 0.125]


def test_a_row_has_everything_about_its_example():
    table = sample().sort("content_id")
    own = [name for name in OWN_COLUMNS if name not in (TOKENS, TASK)]
    assert table.columns == [*own, "deep", "label", "n", "tags"]
    first = table.row(0, named=True)
    assert (first["source"], first["id"], first["text"], first["label"]) == ("a", "a1", "X", "one")
    assert first["copies"] == [
        {"source": "a", "id": "a1"},
        {"source": "a", "id": "a9"},
        {"source": "b", "id": "b1"},
    ]
    assert [json.loads(v)["label"] for v in first["variants"]] == ["two", "from b"]
    assert table["n"].to_list() == ["1", "2.5", "true"], "no common type: text"
    assert table["tags"].to_list() == [None, '["t"]', None]
    assert table["deep"].to_list() == [None, None, '{"k": 1}']


def test_draws_depend_on_seed_and_task_alone():
    by_draw = sample(2)["content_id"].to_list()
    assert sample(2)["content_id"].to_list() == by_draw
    shuffled = draw_examples(
        "t", task(), 2, sampling_units(PROBABILITIES.sample(fraction=1, shuffle=True, seed=3))
    ).examples
    assert shuffled["content_id"].to_list() == by_draw
    seeds = {tuple(sample(2, seed=seed)["content_id"]) for seed in range(40)}
    assert len(seeds) > 1
    others = {
        tuple(draw_examples(name, task(), 2, sampling_units(PROBABILITIES)).examples["content_id"])
        for name in "abcdefgh"
    }
    assert len(others) > 1


def test_epochs_are_fresh_draws_in_order():
    table = sample(2, epochs=30)
    assert table["epoch"].to_list() == [e for e in range(30) for _ in range(2)]
    assert table["draw"].to_list() == [0, 1] * 30
    each = table.group_by("epoch", maintain_order=True).agg("content_id")["content_id"].to_list()
    assert all(len(set(drawn)) == 2 for drawn in each)
    assert len({tuple(sorted(drawn)) for drawn in each}) > 1


def test_with_replacement_may_repeat_and_needs_no_support():
    settings, units = task(with_replacement=True), sampling_units(PROBABILITIES)
    assert drawable(settings, 50, units)
    assert not drawable(task(), 4, units)
    drawn = draw_examples("t", settings, 50, units).examples
    assert set(drawn["content_id"]) == {"x", "y", "z"}


@pytest.mark.parametrize(("size", "share"), [(3, 1.0), (2, 0.5), (1, 0.0)])
def test_what_is_certain(size, share):
    # pi = 1 for y alone at two draws: 2 * 0.5 = 1.
    assert certain_share(task(), size, sampling_units(PROBABILITIES)) == share


def test_the_export_is_the_original_record_and_where_it_comes_from(tmp_path):
    table = sample(3, epochs=2)
    written = export_sample(tmp_path / "t", table, {"seed": 0}, ExportSettings())
    lines = [json.loads(line) for line in (tmp_path / "t" / "epoch-0.jsonl").open()]
    by_id = {line["id"]: line for line in lines}
    said = by_id["a2"].pop("tsds")
    assert by_id["a2"] == {"id": "a2", "label": None, "n": 2.5, "text": "raw", "tags": ["t"]}
    assert said["source"] == "a"
    assert said["probability"] == 0.5
    assert json.loads((tmp_path / "t" / "manifest.json").read_text()) == written
    assert sorted(written["files"]) == ["epoch-0.jsonl", "epoch-1.jsonl"]
    export_sample(tmp_path / "t", sample(3), {"seed": 0}, ExportSettings())
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == [
        "README.md",
        "epoch-0.jsonl",
        "manifest.json",
    ]


def test_repetitions_within_an_epoch():
    table = sample(2, epochs=30)
    assert repetitions(table) == 0
    assert repetitions(pl.concat([table, table[:3]])) == 3


def test_a_query_wants_what_it_gives_mass_to_not_what_a_background_is_taken_from():
    entry = pl.List(pl.Struct({"query": pl.Int64, "mass": pl.Float64}))
    plan = [[(0, 0.2), (1, -0.1)], [(0, 0.2)], [(0, -0.1), (1, 0.3)], []]
    entries = [[{"query": query, "mass": mass} for query, mass in pairs] for pairs in plan]
    table = PROBABILITIES.with_columns(plan=pl.Series(entries, dtype=entry))
    found = constraints_of(task(min_per_query=1), 3, sampling_units(PROBABILITIES), table)
    assert [rows.tolist() for rows in found.wanted] == [[0], [1]]
