"""A project folder: tsds.toml, the inputs beside it, and where the pipeline writes.

Making a new project is here too. Which files of the folder are inputs is in ``discovery``; what tsds.toml
may say is in ``settings``.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from tsds_pipeline.errors import TsdsError, unwritable
from tsds_pipeline.node_names import DEFAULT_ENCODER, node_name
from tsds_pipeline.settings import Settings, load_settings

SETTINGS_FILE = "tsds.toml"
TEMPLATE_FILE = Path(__file__).with_name("template.toml")


@dataclass(frozen=True)
class Project:
    """One project: its absolute folder and its settings as they were when it was loaded."""

    root: Path
    settings: Settings
    encoder: str = DEFAULT_ENCODER
    """Whose pool it is: that of the table [encoder], which ``settings`` hold, or of one of [encoders.NAME]."""

    @classmethod
    def load(cls, root: Path | str | None = None) -> "Project":
        """The project in ``root``, else in the folder that TSDS_PROJECT names, else in the current one.

        Raises :class:`TsdsError` when that is no project or its tsds.toml is not understood.
        """
        folder, origin = _chosen_folder(root)
        if not folder.is_dir():
            raise TsdsError(
                f"{origin}: no such folder: name a project folder, or make one with `tsds init DIR`"
            )
        if not any((folder / name).exists() for name in (SETTINGS_FILE, "sources", "tasks")):
            raise TsdsError(
                f"{origin}: not a tsds project (no {SETTINGS_FILE}, sources/ or tasks/): go to your project, "
                "set TSDS_PROJECT to it, make one with `tsds init DIR`, or try `tsds demo`"
            )
        return cls(folder, load_settings(folder / SETTINGS_FILE))

    def with_encoder(self, name: str) -> "Project":
        """The project as the encoder ``name`` sees it: its settings, its pool."""
        if name == self.encoder:
            return self
        if self.encoder != DEFAULT_ENCODER:
            raise ValueError(f"this is the project of {self.encoder} already")
        return replace(self, settings=self.settings.with_encoder(name), encoder=name)

    def for_task(self, task: str) -> "Project":
        """The project as the encoder of ``task`` sees it."""
        return self.with_encoder(self.settings.resolved_task(task).encoder)

    def of_encoder(self, asset: str, partition: str = "") -> str:
        """The node of an ``asset`` that the encoder decides."""
        return node_name(asset, partition, self.encoder)

    @property
    def storage(self) -> Path:
        """What the pipeline writes, one folder an asset."""
        return self.root / "storage"

    @property
    def exports(self) -> Path:
        """The drawn examples as a trainer takes them, one folder a task."""
        return self.root / "exports"

    @property
    def reports(self) -> Path:
        """Pages on the tasks' selections."""
        return self.root / "reports"

    @property
    def dagster_home(self) -> Path:
        """Runs and events of this project, where no other place is given; see :meth:`prepare_dagster_home`."""
        return self.root / ".dagster"

    def given_dagster_home(self) -> Path | None:
        """Where the environment says that the Dagster instance of this project is configured, as in production.

        It has to name both, the instance (DAGSTER_HOME) and its only project (TSDS_PROJECT): an instance that several
        projects share would take the sources and tasks of one for those of the other. Raises :class:`TsdsError`
        when there is no dagster.yaml.
        """
        home, named = os.environ.get("DAGSTER_HOME"), os.environ.get("TSDS_PROJECT")
        if not home or not named or _absolute(named).resolve() != self.root.resolve():
            return None
        folder = _absolute(home)
        if folder == self.dagster_home:
            return None
        if not (folder / "dagster.yaml").is_file():
            raise TsdsError(
                f"DAGSTER_HOME={home}: no dagster.yaml there: name the folder of the instance that runs "
                f"{self.root}, or unset it for the one in the project folder"
            )
        return folder

    @property
    def has_instance(self) -> bool:
        """Whether there is a Dagster instance of this project, which the first refresh makes."""
        return self.given_dagster_home() is not None or any(self.dagster_home.rglob("*.db"))

    def prepare_dagster_home(self) -> Path:
        """:attr:`dagster_home`, with a dagster.yaml in it; one that is there stays as it is."""
        _make_folder(self.dagster_home)
        runs = max(2, os.cpu_count() or 2)
        _write_new(self.dagster_home / "dagster.yaml", DAGSTER_YAML.format(runs=runs))
        return self.dagster_home


def create_project(root: Path | str) -> Path:
    """Make a project folder at ``root`` (new or existing): tsds.toml, sources/, tasks/ and .gitignore.

    Returns its absolute path. Raises :class:`TsdsError` when there is a tsds.toml already; nothing that
    exists is overwritten.
    """
    folder = _absolute(root)
    _make_folder(folder)
    settings = folder / SETTINGS_FILE
    if not _write_new(settings, TEMPLATE_FILE.read_text("utf-8")):
        raise TsdsError(f"{settings} exists already: edit it, or name another folder")
    for name in ("sources", "tasks"):
        _make_folder(folder / name)
    _write_new(folder / ".gitignore", GITIGNORE)
    return folder


AUTOMATION = "TSDS_AUTOMATION"
"""Environment variable: with "on", sensors and schedules run unless they were stopped in the UI."""

DAGSTER_YAML = """\
# The Dagster instance of this project: runs and events go to SQLite files in this folder.
# The pipeline never overwrites this file.
telemetry:
  enabled: false
nux:
  enabled: false
# One file for the events of all runs: half the time of one file a run.
event_log_storage:
  module: dagster._core.storage.event_log
  class: ConsolidatedSqliteEventLogStorage
  config:
    base_dir:
      env: DAGSTER_HOME
# Runs that wait for their turn start in order; of those that encode, one at a time.
run_coordinator:
  module: dagster._core.run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 1
    dequeue_use_threads: true
concurrency:
  runs:
    max_concurrent_runs: {runs}
  pools:
    default_limit: 1
    granularity: op
# A run whose process was killed ends as failed, so that it can be made again.
run_monitoring:
  enabled: true
  poll_interval_seconds: 30
  free_slots_after_run_end_seconds: 30
# Sensors and schedules at the same time: one that takes long holds up no other.
sensors:
  use_threads: true
  num_workers: 2
schedules:
  use_threads: true
  num_workers: 2
retention:
  sensor:
    purge_after_days: {{skipped: 2, failure: 30, success: 30}}
"""

GITIGNORE = """\
# Written by the pipeline; `tsds refresh` makes it again.
storage/
exports/
reports/
.dagster/
"""


def project_folder(root: Path | str | None = None) -> Path:
    """The folder that :meth:`Project.load` looks at, whether or not it is a project."""
    return _chosen_folder(root)[0]


def _chosen_folder(root: Path | str | None) -> tuple[Path, str]:
    """The folder, absolute, and how to name it in a message."""
    if root is not None:
        return _absolute(root), str(root)
    if named := os.environ.get("TSDS_PROJECT"):
        return _absolute(named), f"TSDS_PROJECT={named}"
    return _absolute("."), str(_absolute("."))


def _absolute(path: Path | str) -> Path:
    # A symbolic link stays one: its target may be a folder with another name on every machine.
    return Path(os.path.abspath(Path(path).expanduser()))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TsdsError(f"{folder}: cannot make this folder: {error.strerror}: name another one") from None


def _write_new(path: Path, text: str) -> bool:
    """Write ``path``, whole or not at all, unless it exists; whether it was written."""
    if path.exists():
        return False
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, "utf-8", newline="\n")
        beside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        beside.unlink(missing_ok=True)
    return True
