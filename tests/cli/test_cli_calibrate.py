"""`tsds calibrate`: what it prints and writes; its figures are tested with ``calibration`` and ``core.calibration``."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.commands import tsds
from tests.projects import make_project, write_records
from tests.texts import A, BagOfWords, make_text_project
from tsds_pipeline.calibration import pairs

PAGE = Path("reports") / "_calibrate.html"
IGNORED = PAGE.with_name(".gitignore")


@pytest.fixture(scope="module")
def texts_once(tmp_path_factory) -> Path:
    """A small project of texts; not to be changed."""
    root = tmp_path_factory.mktemp("texts") / "project"
    make_text_project(root)
    return root


@pytest.fixture
def done(texts_once, tmp_path) -> Path:
    """A copy of it to play with."""
    return Path(shutil.copytree(texts_once, tmp_path / "project"))


def stored_files(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_all_tasks_are_calibrated_and_nothing_is_changed(done):
    before = stored_files(done)
    result = tsds("-p", done, "calibrate", COLUMNS="100")
    assert result.exit_code == 0, result.output
    for title in ("Kernel radius", "Alpha, many", "Alpha, one", "Distance scale"):
        assert re.search(f"^{title}$", result.stdout, re.MULTILINE)
    assert not [line for line in result.stdout.splitlines() if len(line) > 100 and str(done) not in line]
    assert "9 queries in 4 parts, each held back once; size 12" in result.stdout
    assert re.search(r"^ +0\.\d+ .* in use \(auto\)", result.stdout, re.MULTILINE)
    assert "nothing here can encode an edited text" in result.stdout
    assert f"page  {done / PAGE}" in result.stdout
    changed = {path.relative_to(done) for path, _ in stored_files(done).items() - before.items()}
    assert changed - {Path("storage/file-hashes.json"), IGNORED} == {PAGE}
    assert "_calibrate" not in tsds("-p", done, "gc", "--dry-run").output


def test_the_page_stands_alone(done):
    assert tsds("-p", done, "calibrate", "many", "--out", done / "page.html").exit_code == 0
    page = (done / "page.html").read_text("utf-8")
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*\"", page)
    assert re.findall(r'id="task-(\w+)"', page) == ["many"]
    assert not (done / PAGE).exists()


def test_texts_are_edited_and_encoded(done, monkeypatch):
    monkeypatch.setattr(pairs, "encoder_of", lambda project, role: BagOfWords())
    before = stored_files(done)
    result = tsds("-p", done, "calibrate", "many", "--edits", "60", "--seed", "3")
    assert result.exit_code == 0, result.output
    assert re.search(r"\d+ texts and an edit of each; the pool is 34% short", result.stdout)
    assert "proposed" in result.stdout
    assert "To write into tsds.toml\n  [pool]\n  kernel_radius = " in result.stdout
    changed = {path.relative_to(done) for path, _ in stored_files(done).items() - before.items()}
    kept = {path for path in changed if path.parts[:2] == ("storage", "embedding_cache")}
    assert kept, "as the help says"
    assert changed - kept - {Path("storage/file-hashes.json"), IGNORED} == {PAGE}
    assert "storage/embedding_cache" in tsds("calibrate", "--help").stdout
    assert tsds("-p", done, "calibrate", "many", "--edits", "60", "--seed", "3").stdout == result.stdout


def test_given_pairs(done, tmp_path):
    write_records(tmp_path / "pairs.jsonl", [{"a": "a-2", "b": "b-59"}, {"a": A[2], "b": "b-59"}])
    result = tsds("-p", done, "calibrate", "many", "--pairs", tmp_path / "pairs.jsonl")
    assert result.exit_code == 0, result.output
    assert "2 given pairs" in result.stdout
    assert "100% of the given pairs count as at least half" in " ".join(result.stdout.split())


def test_a_larger_radius_that_catches_no_more_is_not_advised(done, tmp_path):
    write_records(tmp_path / "pairs.jsonl", [{"a": "a-2", "b": "b-59"}, {"a": A[2], "b": "b-58"}])
    result = tsds("-p", done, "calibrate", "many", "--pairs", tmp_path / "pairs.jsonl")
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "At 0.12, 50% are caught. The radius in use, 0.05, catches 50% and merges 0.0%." in said
    assert "kernel_radius = " not in result.stdout.partition("To write into tsds.toml")[2]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["t9"], 1, 'there is no task "t9"'),
        (["--pairs", "none.jsonl"], 1, "none.jsonl: no such file: --pairs takes records"),
        (["--pairs", "p.jsonl", "--edits", "3"], 2, "--pairs and --edits exclude each other"),
        (["--out", "page.pdf"], 2, '--out "page.pdf" is not a page: name a .html file'),
        (["--edits", "0"], 2, "Invalid value for '--edits'"),
    ],
)
def test_what_cannot_be_done(texts_once, arguments, status, message):
    result = tsds("-p", texts_once, "calibrate", *arguments)
    assert result.exit_code == status
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_vectors_of_two_lengths(tmp_path):
    make_project(tmp_path, sources=2, tasks=1)
    path = tmp_path / "sources" / "s1.jsonl"
    rows = [json.loads(line) for line in path.open()]
    write_records(path, [row | {"embedding": row["embedding"][1:]} for row in rows])
    assert tsds("-p", tmp_path, "refresh").exit_code == 1
    result = tsds("-p", tmp_path, "calibrate")
    assert result.stderr == (
        "error: source s1: its vectors have 11 dimensions, those of source s0 12: all sources need vectors of one "
        "encoder\n"
    )


def test_before_the_first_refresh(tmp_path):
    make_project(tmp_path, sources=1, tasks=1)
    result = tsds("-p", tmp_path, "calibrate")
    assert result.exit_code == 1
    assert result.stderr == "error: task t0 has no vectors yet: run `tsds refresh` first\n"


def test_what_changed_since_is_warned_of(done):
    write_records(done / "sources" / "b.jsonl", [])
    result = tsds("-p", done, "calibrate", "many")
    assert result.exit_code == 0
    assert "warning: something changed since the last refresh" in result.stderr


def with_scale(done: Path, tables: str = "") -> str:
    """What there is to write with a scale that fits no task."""
    before = (done / "tsds.toml").read_text()
    (done / "tsds.toml").write_text(f"{before}alpha = 0.6\ndistance_scale = 500\n{tables}")
    result = tsds("-p", done, "calibrate", *([] if tables else ["many"]))
    (done / "tsds.toml").write_text(before)
    return result.stdout


def test_a_scale_that_does_not_fit_is_said(done):
    stdout = with_scale(done)
    assert "does not fit" in stdout
    assert re.search(r"what alpha = 0\.6 gives now, alpha = 0\.\d+ gives with", " ".join(stdout.split()))
    proposed = re.search(r"\[tasks.many\]\n  distance_scale = (\S+) ", stdout)[1]
    assert "[selection]" not in stdout, "the other task was not looked at"
    written = f"alpha = 0.6\ndistance_scale = 500\n[tasks.many]\ndistance_scale = {proposed}\n"
    (done / "tsds.toml").write_text((done / "tsds.toml").read_text() + written)
    assert "The distance scale fits" in tsds("-p", done, "calibrate", "many").stdout


@pytest.mark.parametrize("own", ["algorithm = 'knn_kde'", "distance_scale = 500"])
def test_the_scale_of_all_tasks_is_written_once_where_they_share_it(done, own):
    stdout = with_scale(done, f"[tasks.one]\n{own}\n")
    tables = re.findall(r"\[(\S+)\]\n  distance_scale = \S+ ", stdout)
    assert tables == (["tasks.many", "tasks.one"] if "scale" in own else ["selection"])
