"""Bytes by part."""

import os

from tests.projects import make_project
from tsds_pipeline.sizes import project_sizes, shown_size, size_of


def test_every_byte_is_counted_once(tmp_path):
    project = make_project(tmp_path / "project", 1, 1)
    files = {
        "storage/candidate_corpus/s0.parquet": 10,
        "storage/source_coverage.parquet": 5,
        "storage/embedding_cache/x/y.npy": 100,
        "storage/remote/a/b": 1000,
        "exports/t0/epoch-0.jsonl": 20,
        "reports/t0.html": 30,
        ".dagster/history/runs.db": 40,
    }
    for name, size in files.items():
        path = project.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    os.symlink(project.root / "sources", project.storage / "link")
    sizes = project_sizes(project)
    link = os.lstat(project.storage / "link").st_size
    assert sizes.pop("results") == 15 + link
    wanted = {"embedding_cache": 100, "remote": 1000, "exports": 20, "reports": 30, "dagster": 40}
    assert {name: size for name, size in sizes.items() if size} == wanted


def test_what_is_not_there_has_none(tmp_path):
    assert size_of(tmp_path / "nothing") == 0
    assert size_of(tmp_path) == 0


def test_for_people():
    assert [shown_size(size) for size in (0, 1023, 1024, 5 * 2**20, 3 * 2**40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 MiB",
        "3072.0 GiB",
    ]
