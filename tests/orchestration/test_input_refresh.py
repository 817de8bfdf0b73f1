"""Inputs beyond plain files: what a change of their vectors, or of a chat template, makes again."""

import json
from pathlib import Path

import numpy as np

from tests.projects import SETTINGS, clustered, made, make_project, records, refreshed, write_records
from tsds_pipeline.corpus import tables
from tsds_pipeline.graph import node_path, observe
from tsds_pipeline.project import Project
from tsds_pipeline.status import STALE, node_status
from tsds_pipeline.storage import read_artifact


def save_vectors(folder: Path, name: str, ids: list[str], vectors: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{name}.npy", vectors)
    (folder / f"{name}.ids.txt").write_text("".join(f"{one}\n" for one in ids))


def test_vectors_beside_the_records(tmp_path):
    """A source and a task with vectors in files: a changed vector is noticed, and so is one that is missing."""
    root = make_project(tmp_path / "p", sources=0, tasks=0).root
    for key, path, n, seed in (("s0", "sources/s0.jsonl", 40, 10), ("t0", "tasks/t0/query.jsonl", 7, 100)):
        rows, vectors = records(key, clustered(n, seed)), clustered(n, seed)
        save_vectors(root / "vectors", key, [row["id"] for row in rows][::-1], vectors[::-1])
        write_records(root / path, [{k: v for k, v in row.items() if k != "embedding"} for row in rows])
    tables = '[sources.s0]\nvectors = "vectors/s0.npy"\n[tasks.t0]\nvectors = "vectors/t0.npy"\n'
    (root / "tsds.toml").write_text(SETTINGS + tables)
    assert "sampled_subset|t0" in made(refreshed(root))
    embedded = read_artifact(node_path(root / "storage", "query_embeddings|t0"))
    by_id = dict(zip(embedded.frame["record_id"], embedded.vectors, strict=True))
    assert np.allclose([by_id[f"t0-{i}"] for i in range(7)], clustered(7, 100), atol=1e-2)

    vectors = clustered(40, 10)[::-1].copy()
    vectors[0] = vectors[7]
    np.save(root / "vectors" / "s0.npy", vectors)
    assert made(refreshed(root, source="s0"))[:2] == ["candidate_corpus|s0", "candidate_embeddings|s0"]

    np.save(root / "vectors" / "s0.npy", vectors[:30])
    (failed,) = [step for step in refreshed(root, source="s0") if step.outcome == "failed"]
    assert failed.node == "candidate_corpus|s0"
    assert "s0.ids.txt: 40 ids for the 30 vectors in s0.npy" in failed.reasons[0]
    assert "its last good content, 40 records, stays in use" in failed.reasons[0]


def test_a_chat_template_decides_the_texts_and_a_changed_one_is_noticed(tmp_path):
    root = make_project(tmp_path / "p", sources=0, tasks=0).root
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    rows = [{"messages": chat, "embedding": row.tolist()} for row in clustered(20, 11)]
    write_records(root / "sources" / "s.jsonl", rows)
    template = root / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    (root / "tsds.toml").write_text(f'{SETTINGS}[corpus]\nchat_template = "chat.jinja"\n')
    refreshed(root)
    corpus = read_artifact(node_path(root / "storage", "candidate_corpus|s"))
    assert set(corpus.frame["text"]) == {"user: hi\nassistant: hello"}
    template.write_text(template.read_text().replace("m.role }}:", "m.role }} -"))
    seen = observe(Project.load(root))
    now = node_status("candidate_corpus|s", seen, seen.versions)
    assert now.state == STALE
    assert now.reasons == ("chat_template changed",)


def test_a_source_that_is_larger_than_memory_is_stored_like_any_other(tmp_path, monkeypatch):
    root = make_project(tmp_path / "p", sources=1, tasks=0).root
    refreshed(root)
    node = node_path(root / "storage", "candidate_corpus|s0")
    plain = read_artifact(node)
    node.unlink()
    for name, value in {"BATCH": 5, "SPILL_BYTES": 1000, "PART_BYTES": 3000}.items():
        monkeypatch.setattr(tables, name, value)
    assert made(refreshed(root)) == ["candidate_corpus|s0"], "what comes after has what it was made from"
    stored = read_artifact(node)
    assert stored.version == plain.version
    assert stored.frame.equals(plain.frame)
    assert [path.name for path in node.parent.iterdir() if path.name.endswith(".tmp")] == []
    lines = (root / "sources" / "s0.jsonl").read_text().splitlines()
    (root / "sources" / "s0.jsonl").write_text("\n".join([json.dumps({"x": 1})] * 9 + lines))
    (failed,) = [step for step in refreshed(root) if step.outcome == "failed"]
    assert "its last good content, 40 records, stays in use" in failed.reasons[0]
    assert read_artifact(node).frame.equals(plain.frame)


def test_a_source_that_was_never_good_counts_as_empty_however_often_it_fails(tmp_path):
    root = make_project(tmp_path / "p", sources=1, tasks=0).root
    (root / "sources" / "s1.jsonl").write_text("{broken\n")
    for _ in range(2):
        (failed,) = [step for step in refreshed(root) if step.outcome == "failed"]
        assert failed.reasons[0].endswith("(until then it counts as empty)")
