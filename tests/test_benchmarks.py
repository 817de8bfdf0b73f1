"""The benchmarks that take seconds on a small input run, and print the table that their text explains."""

import importlib.util
import json
import subprocess
import sys

import pytest


def rows(table: str) -> dict[str, list[str]]:
    """The cells after the first of each line of the Markdown ``table``, by the first."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines[2:]}


@pytest.mark.long
def test_encoding(tmp_path, repository):
    (tmp_path / "sources").mkdir()
    for source in "ab":
        records = ({"text": f"{source} text number {n}" + " with some more words" * n} for n in range(20))
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / "sources" / f"{source}.jsonl").write_text(lines)
    script = repository / "benchmarks" / "encoding.py"
    command = [sys.executable, script, tmp_path, "--texts", "30", "--rounds", "2"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("30 texts of ")
    found = rows(done.stdout)
    with_onnx = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
    assert list(found) == ["float32", "bfloat16", *(["onnx"] if with_onnx else [])]
    assert all(float(cells[0]) > 0 for cells in found.values())
    assert found["float32"][1:5] == ["1.00", "1.000", "1.0000", "0"]
    assert 0.5 < float(found["bfloat16"][2]) <= 1
    assert float(found["float32"][5]) < 1e-5
    if with_onnx:
        assert found["onnx"][5] == "0", "a text is encoded by itself"


@pytest.mark.long
def test_gradients(repository):
    script = repository / "benchmarks" / "gradients.py"
    options = ["--texts", "24", "--hidden", "64", "--layers", "1", "--rounds", "2"]
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert found.keys() == {"gradient", "one by one", "causal"}
    assert float(found["gradient"][2]) == 1, "both ways find the same neighbours"
