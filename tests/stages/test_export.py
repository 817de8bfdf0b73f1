"""Exports as a trainer reads them."""

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import ExportSettings
from tsds_pipeline.stages.export import export_sample, why_not_exported

datasets = pytest.importorskip("datasets")

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
RECORDS = {
    "a1": {"messages": CHAT, "n": 1, "license": "mit | <b>x</b> `"},
    "a2": {"prompt": "p", "completion": "c", "n": "one", "tags": ["t"], "weight": "own", "license": "mit"},
    "b1": {"text": "B", "nested": {"a": [{"b": 1}, {"b": 2.5}]}, "a: # b\n---\n- c": True},
    "b2": {"text": "C", "n": None, "nested": {"other": None}, "day": "3 May", "open": {}},
}
LOADED = {
    "a1": {"messages": CHAT, "n": 1, "license": "mit | <b>x</b> `"},
    "a2": {"prompt": "p", "completion": "c", "n": "one", "tags": ["t"], "weight": "own", "license": "mit"},
    "b1": {"text": "B", "nested": {"a": [{"b": 1}, {"b": 2.5}], "other": None}, "a: # b\n---\n- c": True},
    "b2": {"text": "C", "nested": {"a": None, "other": None}, "day": "3 May", "open": {}},
}
CHATS = {
    "a1": CHAT,
    "a2": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}],
    "b1": [{"role": "assistant", "content": "text of b1"}],
    "b2": [{"role": "assistant", "content": "text of b2"}],
}
PROBABILITIES = {"a1": 0.2, "a2": 0.4, "b1": 0.05, "b2": 0.1}
EPOCHS = [["a2", "a1", "b1"], ["b2", "a2", "a1"]]
MANIFEST = {"data_version": "v", "seed": 0, "solution": {"mass_by_source": {"a": 0.8, "c": 0.2}}}


def rows(ids: list[str], **columns: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            **columns,
            "source": [i[0] for i in ids],
            "id": ids,
            "text": [f"text of {i}" for i in ids],
            "probability": [PROBABILITIES[i] for i in ids],
            "content_id": [f"content of {i}" for i in ids],
            "copies": [[{"source": i[0], "id": i}] for i in ids],
            "record": [json.dumps(RECORDS[i]) for i in ids],
        }
    )


SAMPLE = rows([i for ids in EPOCHS for i in ids], epoch=[0, 0, 0, 1, 1, 1], draw=[0, 1, 2, 0, 1, 2])


def export(folder: Path, sample: pl.DataFrame = SAMPLE, **settings: object) -> dict:
    wanted = ExportSettings(**settings)
    return export_sample(folder, sample, MANIFEST, wanted, rows(list(RECORDS)) if wanted.weights else None)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """``datasets.load_dataset`` with a cache of its own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    return lambda folder, *name: datasets.load_dataset(str(folder), *name, split="train")


@pytest.mark.parametrize("form", ["jsonl", "parquet", ["jsonl", "parquet"]])
@pytest.mark.parametrize("shard_rows", [None, 2])
def test_original_fields_load(tmp_path, load, form, shard_rows):
    export(tmp_path / "t", format=form, shard_rows=shard_rows, weights=True)
    assert datasets.get_dataset_config_names(str(tmp_path / "t")) == ["epoch-0", "epoch-1", "weighted"]
    fields = {name for record in RECORDS.values() for name in record}
    for epoch, ids in enumerate(EPOCHS):
        loaded = load(tmp_path / "t", f"epoch-{epoch}")
        assert loaded.column_names[-1] == "tsds"
        for number, (row, i) in enumerate(zip(loaded, ids, strict=True)):
            said = row.pop("tsds")
            assert row == {"id": i, **dict.fromkeys(fields), **LOADED[i]}
            assert (said["source"], said["id"], said["draw"]) == (i[0], i, number)
            assert said["copies"] == [{"source": i[0], "id": i}]
            assert said["probability"] == PROBABILITIES[i]
    assert load(tmp_path / "t")["id"] == EPOCHS[0], "the first epoch is the default"


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_chats_load(tmp_path, load, form):
    export(tmp_path / "t", format=form, layout="chat", weights=True)
    loaded = load(tmp_path / "t", "epoch-1")
    assert loaded.column_names == ["id", "messages", "tsds"]
    assert dict(zip(loaded["id"], loaded["messages"], strict=True)) == {i: CHATS[i] for i in EPOCHS[1]}
    assert load(tmp_path / "t", "weighted").column_names == ["id", "messages", "weight", "tsds"]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_weights_are_probabilities_of_mean_one(tmp_path, load, form):
    export(tmp_path / "t", format=form, weights=True)
    loaded = load(tmp_path / "t", "weighted")
    assert loaded["id"] == ["a2", "a1", "b2", "b1"], "each candidate once, most probable first"
    total = sum(PROBABILITIES.values())
    assert loaded["weight"] == pytest.approx([4 * PROBABILITIES[i] / total for i in loaded["id"]])
    assert sum(loaded["weight"]) == pytest.approx(4)


def test_the_files_are_named_hashed_and_replaced(tmp_path):
    folder = tmp_path / "t"
    written = export(folder, format=["jsonl", "parquet"], shard_rows=2, weights=True)
    shards = [f"{e}-0000{n}-of-00002" for e in ("epoch-0", "epoch-1", "weighted") for n in range(2)]
    assert sorted(written["files"]) == [f"{name}.{form}" for name in shards for form in ("jsonl", "parquet")]
    assert written["files"]["epoch-1-00001-of-00002.jsonl"]["records"] == 1
    for name, said in written["files"].items():
        data = (folder / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (said["bytes"], said["sha256"])
    for name in ("epoch-x.jsonl", "epoch-0.txt", "my-weighted.jsonl"):
        (folder / name).write_text("somebody's")
    export(folder, SAMPLE.filter(pl.col("epoch") == 0))
    kept = [
        "README.md",
        "epoch-0.jsonl",
        "epoch-0.txt",
        "epoch-x.jsonl",
        "manifest.json",
        "my-weighted.jsonl",
    ]
    assert sorted(path.name for path in folder.iterdir()) == kept
    lines = [json.loads(line) for line in (folder / "epoch-0.jsonl").open(encoding="utf-8")]
    assert [{k: v for k, v in line.items() if k != "tsds"} for line in lines] == [
        {"id": i, **RECORDS[i]} for i in EPOCHS[0]
    ]


def test_the_card_says_where_it_comes_from_and_shows_no_text(tmp_path):
    written = export(tmp_path / "t", format="parquet")
    card = (tmp_path / "t" / "README.md").read_text("utf-8")
    assert "# Training examples for the task t\n" in card
    assert "| `a` | 4 | 66.7% | 80.0% | mit (2), mit \\| &lt;b&gt;x&lt;/b&gt; \\` (2) |" in card
    assert "| `c` | 0 | 0.0% | 20.0% |  |" in card, "it might have been drawn from"
    assert "`tsds refresh --task t`" in card
    assert all(said["sha256"] in card for said in written["files"].values())
    assert not any(text in card for text in ("hello", "text of", "own"))


def test_a_record_that_is_no_chat_is_named(tmp_path):
    record = json.dumps({"messages": [{"role": "user", "content": [{"type": "image"}]}]})
    with pytest.raises(TsdsError, match=r"source a: record a2 cannot be a chat: .* or set \[export\] layout"):
        export(tmp_path / "t", SAMPLE.with_columns(record=pl.lit(record)), layout="chat")
    assert not (tmp_path / "t").exists()


def test_what_is_not_exported(tmp_path):
    folder, gone = tmp_path / "t", "its export is gone or incomplete"

    def lacking(version: str = "v", **settings: object) -> str | None:
        return why_not_exported(folder, version, ExportSettings(**settings))

    assert lacking() == gone
    export(folder, shard_rows=2)
    assert lacking(shard_rows=2) is None
    assert lacking("w", shard_rows=2) == gone
    assert lacking(layout="chat") == "[export] layout original -> chat, shard_rows 2 -> unset"
    for name in ("epoch-1-00001-of-00002.jsonl", "README.md", "manifest.json"):
        export(folder, shard_rows=2)
        (folder / name).unlink()
        assert lacking(shard_rows=2) == gone
    (folder / "manifest.json").write_text("[]")
    assert lacking(shard_rows=2) == gone
