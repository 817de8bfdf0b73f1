"""Nasty input of every kind in one project, through the commands as they are typed."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.commands import tsds, typed
from tests.fuzz import nasty
from tests.projects import SETTINGS, clustered, make_project, records, write_records
from tsds_pipeline.damage import find_damage
from tsds_pipeline.graph import nodes, observe
from tsds_pipeline.project import Project

# Nothing here has vectors in its records, so all of a nasty source is refused, quarantined or empty.
FEW = ("half-a-pair.jsonl", "cut.parquet", "dates.parquet", "invalid-utf-8.arrow")
SOURCES = {
    name: file
    for name, file in nasty.FILES.items()
    if name.partition(".")[0]
    in ("deep", "half-a-pair", "escapes", "types", "nul", "utf-16", "cut", "open-quote")
    or name in ("empty.jsonl", "pickle.jsonl", "invalid-utf-8.arrow", "dates.parquet", "no-such-zone.parquet")
}


def check_said(text: str) -> None:
    """Nothing of Python, of Rust or of the data's control characters."""
    assert "Traceback" not in text
    assert "panicked" not in text
    assert "defect" not in text
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.fixture(
    scope="module", params=[FEW, pytest.param(tuple(SOURCES), marks=pytest.mark.long)], ids=["few", "all"]
)
def refreshed_twice(request, tmp_path_factory):
    """A project with good and nasty input, one with the good alone, and what was said of the first, twice."""
    folder = tmp_path_factory.mktemp("nasty")
    good = make_project(folder / "good", sources=1, tasks=1).root
    both = make_project(folder / "both", sources=1, tasks=1).root
    for name in request.param:
        file = nasty.FILES[name]
        stem, _, ending = name.partition(".")
        file.write(both / "sources" / f"{stem}-{ending.replace('.', '-')}.{ending}")
    for name in ("../x", "CON", "A B", "x" * 64, "\x1b[2J", "ü", "-"):
        (both / "sources" / f"{name.replace('/', '-')}.jsonl").write_bytes(nasty.GOOD)
    (both / "sources" / "link.jsonl").symlink_to("nowhere")
    (both / "sources" / "not-utf-8").mkdir()
    Path(f"{both}/sources/not-utf-8/\udcff.jsonl").write_bytes(nasty.GOOD)
    (both / "tasks" / "file.jsonl").write_bytes(nasty.GOOD)
    nasty_queries = {
        "empty": b"",
        "escapes": b'{"\\u001b[2J": 1}\n',
        "binary": b"\xff\0",
    }
    for task, content in nasty_queries.items():
        (both / "tasks" / task).mkdir()
        (both / "tasks" / task / "query.jsonl").write_bytes(content)
    (both / "tasks" / "t0" / "test.jsonl").write_bytes(b"\xff")
    assert typed("-p", good, "refresh").returncode == 0
    return good, both, [typed("-p", both, command) for command in ("refresh", "status", "refresh")]


def test_what_is_said_is_plain(refreshed_twice):
    *_, said = refreshed_twice
    assert [done.returncode for done in said] == [1, 0, 1]
    for done in said:
        check_said(done.stdout + done.stderr)
    first = said[0].stderr
    for name in (
        "cut-parquet.parquet",
        "half-a-pair-jsonl.jsonl",
        "A B.jsonl",
        "tasks/file.jsonl",
        "query_examples[escapes]",
    ):
        assert name in first


def test_what_is_good_comes_out_as_without_the_rest(refreshed_twice):
    good, both, _ = refreshed_twice
    for name in ("storage/candidate_corpus/s0.parquet", "storage/candidate_embeddings/s0.parquet"):
        assert pl.read_parquet(good / name).equals(pl.read_parquet(both / name))
    exported = "exports/t0/epoch-0.jsonl"
    ids = [sorted(re.findall('"id":"(.*?)"', (root / exported).read_text())) for root in (good, both)]
    assert ids[0] == ids[1]


def test_nothing_partial_is_stored(refreshed_twice):
    _, both, _ = refreshed_twice
    observed = observe(Project.load(both))
    assert find_damage(both / "storage", nodes(observed)) == {}
    stored = [path for path in (both / "storage").rglob("*") if path.is_file()]
    assert not [path for path in stored if path.name.endswith((".tmp", ".part", ".damaged"))]
    for path in stored:
        if path.suffix == ".parquet":
            pl.read_parquet(path, glob=False)
    assert not (both / "storage/query_examples/empty.parquet").exists()
    assert sorted(path.name for path in (both / "exports").iterdir()) == ["t0"]


def test_nothing_was_written_outside_of_the_project(refreshed_twice):
    _, both, _ = refreshed_twice
    assert sorted(path.name for path in both.parent.iterdir()) == ["both", "good"]


@pytest.mark.long
def test_ids_that_look_like_paths_or_sql_are_ids(tmp_path):
    root = make_project(tmp_path / "p", sources=0, tasks=1).root
    ids = [
        "../../x",
        "CON",
        "'; DROP TABLE candidate_corpus; --",
        '"',
        "a\0b",
        "\x1b[2J",
        "x" * 5000,
        "ü\u202e",
    ]
    rows = records("s", clustered(len(ids), 3))
    write_records(
        root / "sources" / "s.jsonl", [{**row, "id": one} for row, one in zip(rows, ids, strict=True)]
    )
    (root / "tsds.toml").write_text(SETTINGS.replace("size = 12", "size = 3"))
    for command in (["refresh"], ["show", "t0", "--limit", "9"], ["sql", "FROM sampled_subset"], ["status"]):
        done = typed("-p", root, *command)
        assert done.returncode == 0, done.stderr
        check_said(done.stdout + done.stderr)
    assert set(pl.read_parquet(root / "storage/candidate_corpus/s.parquet")["record_ids"].explode()) == set(
        ids
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p"]


BAD_SETTINGS = [
    *(
        f'[{table}]\n{key} = "a\\u0000b"\n'
        for table, key in [("encoder", "model"), ("corpus", "chat_template")]
    ),
    f'[encoder]\nmodel = "{"x" * 5000}"\n',
    '[encoder]\nmodel = "../../../../etc"\n',
    '[encoder]\nmodel = "https://user:s3cr3t@example.org/model"\n',
    '[encoder]\nkind = "causal"\nmodel = "a\\u0000b"\n',
    '[encoder]\nkind = "gradient"\nmodel = "m"\ncheckpoints = "\\u0000"\n',
    '[selection]\ntokens = 5\ntokenizer = "\\u0000"\n',
    '[pool]\nindex = "IVF\\u0000"\n',
    "[dagster]\nlate_after = 1e308\n",
    "[dagster]\ninterval = 9223372036854775807\n",
    "[selection]\nepochs = 9223372036854775807\nsize = 9223372036854775807\n",
    f'[sources.s0]\npath = "{"x" * 5000}"\n',
    f'[sources.s0]\npath = "{"x/" * 5000}*.jsonl"\n',
    '[exclude.e]\npath = "/dev/null"\n',
    '[tasks.t0]\nvectors = "/proc/self/mem"\n',
]


@pytest.mark.parametrize("command", ["status", pytest.param("refresh", marks=pytest.mark.long)])
@pytest.mark.parametrize("number", range(len(BAD_SETTINGS)))
def test_settings_that_nobody_means(tmp_path, number, command):
    root = make_project(tmp_path / "p", sources=1, tasks=1, settings=SETTINGS).root
    (root / "tsds.toml").write_text(BAD_SETTINGS[number])
    done = tsds("-p", root, command)
    check_said(done.output)
    assert done.exit_code in (0, 1)
    assert "s3cr3t" not in done.output


ARRAYS = {name: content for name, (content, _, _) in nasty.VECTOR_FILES.items()}


@pytest.mark.parametrize("option", ["--queries", "--candidates"])
def test_select_refuses_what_are_no_vectors(tmp_path, option):
    plain = {"--queries": clustered(5, 1)[:, :4], "--candidates": clustered(30, 2)[:, :4]}
    for name, content in ARRAYS.items():
        paths = {one: tmp_path / f"{one.strip('-')}.npy" for one in plain}
        for one, array in plain.items():
            np.save(paths[one], array)
        paths[option].write_bytes(content)
        arguments = [part for one, path in paths.items() for part in (one, path)]
        out = tmp_path / "out.npy"
        done = tsds("select", *arguments, "--size", "2", "--out", out)
        check_said(done.output)
        assert done.exit_code in (0, 1)
        assert out.exists() == (done.exit_code == 0)
        out.unlink(missing_ok=True)
        if "id" not in name:  # of which there are none here
            assert (done.exit_code == 0) == (nasty.VECTOR_FILES[name][2] == 3), name
