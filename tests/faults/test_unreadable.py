"""Files that cannot be read: refused by the system, folders in their place, a disk that answers with errors."""

import ctypes
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import Undisturbed
from tests.faults.project import settled
from tests.forks import Fork
from tests.projects import append_records, bytes_of_results, clustered, records

BAD_DISK = Path("/proc/self/mem")
"""Where nothing is mapped, at its beginning, reading is an input/output error."""


@pytest.fixture
def project(undisturbed: Undisturbed, tmp_path) -> Path:
    return Path(shutil.copytree(undisturbed.root, tmp_path / "project"))


def like_anybody() -> None:
    """From now on permissions hold this process back, even where it is root's: without these two capabilities."""
    override, read_search = 1 << 1, 1 << 2
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = struct.pack("=Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    assert libc.capget(header, data) == 0
    effective, permitted, *others = struct.unpack("=6I", data.raw)
    keep = ~(override | read_search)
    assert libc.capset(header, struct.pack("=6I", effective & keep, permitted & keep, *others)) == 0


def refreshed(root: Path, status: int) -> list[str]:
    """What a refresh says, line by line."""
    refresh = Fork(root, "refresh", first=like_anybody)
    assert refresh.wait() == status, refresh.output
    assert "Traceback" not in refresh.output
    return refresh.output.splitlines()


def forbid(path: Path) -> None:
    path.chmod(0)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_on_bad_disk(path: Path) -> None:
    path.unlink()
    path.symlink_to(BAD_DISK)


SPOILT_SOURCES = {
    "s0": (forbid, "cannot be read: Permission denied: make it a readable file, or remove it"),
    "s1": (put_on_bad_disk, "cannot be read: Input/output error: make it a readable file, or remove it"),
}


def test_sources_keep_their_last_content_and_the_rest_goes_on(undisturbed, project):
    paths = {key: project / "sources" / f"{key}.jsonl" for key in SPOILT_SOURCES}
    contents = {key: path.read_bytes() for key, path in paths.items()}
    queries = project / "tasks" / "t0" / "query.jsonl"
    append_records(queries, records("yet", clustered(3, 702)))
    for key, (spoil, _) in SPOILT_SOURCES.items():
        spoil(paths[key])
    said = refreshed(project, 1)
    for key, (_, told) in SPOILT_SOURCES.items():
        assert any(f"sources/{key}.jsonl: {told}" in line for line in said), said
    assert any(line.startswith("task t0  6 made") for line in said), said
    for key, path in paths.items():
        path.unlink()
        path.write_bytes(contents[key])
    queries.write_bytes((undisturbed.root / "tasks" / "t0" / "query.jsonl").read_bytes())
    refreshed(project, 0)
    assert settled(project) == undisturbed.results


SPOILT: dict[str, Callable[[Path], None]] = {
    "candidate_corpus/s0.parquet": forbid,
    "candidate_embeddings/s1.vectors-*.npy": put_on_bad_disk,
    "kde_densities/s0.parquet": make_folder,
    "faiss_index/s1.index-*.faiss": forbid,
    "sampled_subset/t0.parquet": put_on_bad_disk,
    "stg_samples.parquet": make_folder,
}


def test_results_are_named_set_aside_and_made_again(project):
    before = bytes_of_results(project)
    for pattern, spoil in SPOILT.items():
        (path,) = (project / "storage").glob(pattern)
        spoil(path)
    said = refreshed(project, 0)
    told = [line for line in said if "it was set aside and made again" in line]
    assert len(told) == len(SPOILT), said
    for pattern in SPOILT:
        assert any(f"storage/{pattern.partition('*')[0]}" in line for line in told), (pattern, told)
    assert bytes_of_results(project) == before


@pytest.mark.long
@pytest.mark.parametrize("folder", [".dagster", "storage", "storage/sampled_subset", "exports/t0"])
def test_a_folder_that_cannot_be_written(undisturbed, project, folder):
    queries = project / "tasks" / "t0" / "query.jsonl"
    content = queries.read_bytes()
    queries.write_bytes(b"".join(content.splitlines(keepends=True)[:-1]))
    before = (project / folder).stat().st_mode
    (project / folder).chmod(0o500)
    told = [line for line in refreshed(project, 1) if line.startswith(("error", "failed"))]
    assert len(told) == 1
    assert str(project / folder) in told[0]
    assert "make its folder writable and run the same again" in told[0]
    (project / folder).chmod(before)
    refreshed(project, 0)
    queries.write_bytes(content)
    refreshed(project, 0)
    assert settled(project) == undisturbed.results
