"""Disks that are full: what is said, and what is there once they have room again. Real ones, small and in memory."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import tsds
from tests.faults.conftest import Undisturbed
from tests.faults.project import assert_nothing_half_made, from_nothing, settled
from tests.forks import Fork
from tsds_pipeline.errors import NO_SPACE


class Disk:
    """A file system of its own at ``path``, as large as it was told last."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir()
        self._mount("size=256m")

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")

    def leave(self, free: int) -> None:
        """So many bytes are free from now on."""
        self._mount(f"remount,size={shutil.disk_usage(self.path).used + free}")

    def grow(self) -> None:
        self._mount("remount,size=256m")

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    if not shutil.which("mount"):
        pytest.skip("there is no mount")
    made = Disk(tmp_path / "disk")
    yield made
    made.remove()


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# Dagster's history, most of what so small a project needs, fills up first.
@pytest.mark.parametrize(
    "share",
    [0.3, *(pytest.param(share, marks=pytest.mark.long) for share in (0.0, 0.1, 0.5, 0.7, 0.8, 0.9, 1.0))],
)
def test_it_holds_the_whole_project(undisturbed: Undisturbed, disk: Disk, share):
    root = disk.path / "project"
    from_nothing(root)
    disk.leave(int(share * size_of(undisturbed.root)))
    refresh = Fork(root, "refresh")
    assert refresh.wait() == 1, refresh.output
    said = refresh.output.splitlines()
    assert any(line.startswith(("error: ", "failed: ")) and line.endswith(NO_SPACE) for line in said), said
    assert not [line for line in said if "Traceback" in line or "defect of tsds" in line]
    assert tsds("-p", root, "status").exit_code == 0
    assert tsds("-p", root, "gc").exit_code == 0
    disk.grow()
    assert_nothing_half_made(root)
    refresh = Fork(root, "refresh")
    assert refresh.wait() == 0, refresh.output
    assert settled(root) == undisturbed.first


@pytest.mark.long
@pytest.mark.parametrize("share", [0.05, 0.2, 0.3, 0.4, 0.5, 0.6])
def test_it_holds_the_results_alone(undisturbed: Undisturbed, disk: Disk, tmp_path, share):
    root = tmp_path / "project"
    from_nothing(root)
    (root / "storage").symlink_to(disk.path)
    disk.leave(int(share * size_of(undisturbed.root / "storage")))
    refresh = Fork(root, "refresh")
    assert refresh.wait() == 1, refresh.output
    said = [line for line in refresh.output.splitlines() if line.startswith(("error: ", "failed: "))]
    assert said
    assert all(NO_SPACE in line for line in said), said  # before the run, where it was in one
    assert all(str(root / "storage") in line for line in said), said
    assert_nothing_half_made(root)
    assert not list(disk.path.rglob(".*.tmp*")), "what was half written was taken away"
    disk.grow()
    refresh = Fork(root, "refresh")
    assert refresh.wait() == 0, refresh.output
    assert settled(root) == undisturbed.first
