"""The log of what was stored."""

import json
import subprocess
import sys

from tests.projects import make_project
from tsds_pipeline.graph import observe
from tsds_pipeline.materializations import FOLDER, _append
from tsds_pipeline.sql.warehouse import open_warehouse

LINE = {
    "made_at": "2026-11-24T18:00:00.5",
    "asset": "kde_densities",
    "source": "s0",
    "task": None,
    "seconds": 0.5,
}


def test_a_torn_line_costs_itself_only(tmp_path):
    observed = observe(make_project(tmp_path, 1, 1, n=3))
    path = observed.project.storage / FOLDER / "2026-11.jsonl"
    _append(path, json.dumps(LINE))
    with path.open("a") as file:
        file.write('{"made_at": "2026-11-24T18:00:01", "asset": "fai')  # its process was killed
    with open_warehouse(observed) as connection:
        assert connection.execute(f"SELECT count(*) FROM {FOLDER}").fetchone() == (1,)
    _append(path, json.dumps({**LINE, "asset": "pool_summary"}))
    with open_warehouse(observed) as connection:
        rows = connection.execute(
            f"SELECT asset, source, seconds, version FROM {FOLDER} ORDER BY asset"
        ).fetchall()
    assert rows == [("kde_densities", "s0", 0.5, None), ("pool_summary", "s0", 0.5, None)]


def test_lines_of_several_processes_do_not_mix(tmp_path):
    path = tmp_path / "log.jsonl"
    code = (
        "import sys; from pathlib import Path; from tsds_pipeline.materializations import _append\n"
        "for n in range(300): _append(Path(sys.argv[1]), sys.argv[2] * 500 + str(n))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), letter]) for letter in "abc"]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    lines = path.read_text().splitlines()
    assert sorted(filter(None, lines)) == sorted(
        letter * 500 + str(n) for letter in "abc" for n in range(300)
    )
