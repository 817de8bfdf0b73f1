"""Refresh and automation at S sources x T tasks: exactly what a change touches, once, in any order of runs."""

import shutil
import time
from collections import Counter
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster_shared.record import replace

from tests.orchestration.changes import (
    CHANGES,
    S,
    T,
    everything,
    lone_append,
    near_append,
    new_source,
    of_task,
    query_set,
    set_selection,
    whole_task,
    without_reports,
)
from tests.orchestration.runs import a_run, evaluated
from tests.projects import (
    A_RUN_EACH,
    SETTINGS,
    WITH_REPORTS,
    append_records,
    clustered,
    made,
    made_models,
    make_project,
    records,
    refreshed,
    tampered,
)
from tsds_pipeline.definitions import definitions
from tsds_pipeline.graph import (
    current_versions,
    describe,
    input_versions,
    is_model,
    node_path,
    observe,
    stored,
)
from tsds_pipeline.lock import refresh_lock
from tsds_pipeline.orchestration.inputs import DATA_VERSION, apply_requests
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.orchestration.refresh import _Runner
from tsds_pipeline.orchestration.resources import REFRESH
from tsds_pipeline.project import Project
from tsds_pipeline.status import MAX_TRIES, status
from tsds_pipeline.storage import begin_attempt


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project that is up to date, whose tasks want no report: these only follow the samples."""
    root = tmp_path_factory.mktemp("finished") / "project"
    make_project(root, S, T, settings=SETTINGS + A_RUN_EACH)
    assert set(made(refreshed(root, models=True))) == without_reports(everything())
    return root


@pytest.fixture(scope="module")
def finished_with_reports(tmp_path_factory):
    """The same with a report of each task."""
    root = tmp_path_factory.mktemp("finished") / "project"
    make_project(root, S, T, settings=WITH_REPORTS)
    assert set(made(refreshed(root, models=True))) == everything()
    return root


@pytest.fixture
def project(finished, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(finished, tmp_path / "project")


@pytest.fixture
def project_with_reports(finished_with_reports, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(finished_with_reports, tmp_path / "project")


class Daemon:
    """What the daemon does, tick by tick: it evaluates both sensors and runs what they ask for."""

    def __init__(self, root: Path, instance: dg.DagsterInstance, worst_order: bool):
        self.root, self.instance, self.worst_order = root, instance, worst_order
        self.definitions = definitions(str(root))
        self.cursors: dict[str, str | None] = {}
        self.done: list[str] = []
        self.models: list[str] = []
        """The SQL models among what was made; ``done`` are the other nodes."""

    def tick(self) -> list[list[str]]:
        """The runs that are asked for, as lists of nodes."""
        looked = self.sense("project_inputs")
        apply_requests(self.instance, looked.dynamic_partitions_requests)
        for event in looked.asset_events:
            self.instance.report_runless_asset_event(event)
        graph = self.definitions.resolve_asset_graph()
        return [
            [
                "|".join(filter(None, (key.to_user_string(), request.partition_key)))
                for key in graph.toposorted_asset_keys
                if key in request.asset_selection
            ]
            for request in self.sense("automation").run_requests
        ]

    def sense(self, name: str) -> SensorExecutionData:
        return evaluated(self.instance, self.root, self.definitions, name, self.cursors)

    def run(self, runs: list[list[str]]) -> None:
        """Do the ``runs`` of one tick: one after another, or (the worst order) all as if each were the first."""
        self.done += [node for run in runs for node in run if not is_model(node)]
        self.models += [node for run in runs for node in run if is_model(node)]
        if not self.worst_order:
            self._execute(self.root, self.instance, runs)
            return
        copies = [shutil.copytree(self.root, self.root.parent / f"copy-{i}") for i in range(len(runs))]
        for copy, run in zip(copies, runs, strict=True):
            with project_instance(Project.load(copy)) as instance:
                self._execute(copy, instance, [run])
        for copy, run in zip(copies, runs, strict=True):
            self._take(copy, run)
            with project_instance(Project.load(copy)) as instance:
                self._take_checks(instance)
            shutil.rmtree(copy)

    def _execute(self, root: Path, instance: dg.DagsterInstance, runs: list[list[str]]) -> None:
        runner = _Runner(instance, observe(Project.load(root)))
        for run in runs:
            runner.run(run)

    def _take(self, copy: Path, run: list[str]) -> None:
        """Bring over what ``run`` wrote in ``copy``, and tell the instance."""
        for node in run:
            asset, _, partition = node.partition("|")
            here, there = (
                root / "storage" / asset / Path(*partition.split("|")) for root in (self.root, copy)
            )
            here.parent.mkdir(parents=True, exist_ok=True)
            for path in here.parent.glob(f"{here.name}.*"):
                path.unlink()
            for path in there.parent.glob(f"{there.name}.*"):
                shutil.copy2(path, here.parent / path.name)
            if asset == "sampled_subset":
                shutil.copytree(
                    copy / "exports" / partition, self.root / "exports" / partition, dirs_exist_ok=True
                )
            if asset == "selection_report":
                (self.root / "reports").mkdir(exist_ok=True)
                shutil.copy2(copy / "reports" / f"{partition}.html", self.root / "reports")
            artifact = stored(self.root / "storage", node)
            if artifact is not None:
                self.instance.report_runless_asset_event(
                    dg.AssetMaterialization(
                        asset, partition=partition or None, tags={DATA_VERSION: artifact.version}
                    )
                )

    def _take_checks(self, instance: dg.DagsterInstance) -> None:
        """Tell what the checks of the last run in ``instance`` said."""
        (run,) = instance.get_runs(limit=1)
        kinds = dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, dg.DagsterEventType.ASSET_CHECK_EVALUATION
        for entry in instance.all_logs(run.run_id, of_type=set(kinds)):
            event = entry.dagster_event
            if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                said = event.asset_check_evaluation_data
                target = self._last_materialization(said.asset_key, said.partition)
                said = replace(said, target_materialization_data=target)
                event = event._replace(event_specific_data=said)
            self.instance.report_dagster_event(event, run.run_id)

    def _last_materialization(
        self, asset: dg.AssetKey, partition: str | None
    ) -> AssetCheckEvaluationTargetMaterializationData | None:
        """What an evaluation points to: without it, it does not count for what is stored now."""
        wanted = dg.AssetRecordsFilter(asset, asset_partitions=[partition] if partition else None)
        for record in self.instance.fetch_materializations(wanted, limit=1).records:
            return AssetCheckEvaluationTargetMaterializationData(
                storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
            )
        return None

    def settle(self) -> list[str]:
        """Tick until nothing is asked for; the nodes of the pipeline that were made since the beginning."""
        for _ in range(12):
            runs = self.tick()
            if not runs:
                return self.done
            self.run(runs)
        raise AssertionError("it does not come to rest")


WORST = pytest.param(True, id="worst", marks=pytest.mark.long)


@pytest.fixture(params=[pytest.param(False, id="topological"), WORST])
def daemon(request, project):
    with project_instance(Project.load(project)) as instance:
        yield Daemon(project, instance, request.param)


def assert_all_fresh(root):
    assert [
        (describe(n.node), n.reasons) for n in status(observe(Project.load(root))) if n.state != "fresh"
    ] == []
    assert made(refreshed(root, models=True)) == []


@pytest.mark.parametrize("change", CHANGES, ids=[change.name for change in CHANGES])
def test_a_refresh_makes_what_a_change_touches_once(project, change):
    settings = project / "tsds.toml"
    settings.write_text(settings.read_text().replace(A_RUN_EACH, ""))
    change.make(project)
    steps = refreshed(project, models=True)
    assert sorted(made(steps)) == sorted(without_reports(change.expected))
    # Without reports nothing that reads of them is due.
    assert sorted(made_models(steps)) == sorted({*change.models} - {"selection_drift"})
    assert_all_fresh(project)


@pytest.mark.long
@pytest.mark.parametrize("change", CHANGES, ids=[change.name for change in CHANGES])
def test_a_refresh_makes_the_reports_too(project_with_reports, change):
    project = project_with_reports
    change.make(project)
    steps = refreshed(project, models=True)
    assert sorted(made(steps)) == sorted(change.expected)
    assert sorted(made_models(steps)) == sorted(change.models)
    assert_all_fresh(project)


# The others are quick for a refresh alone: what is due, both ask the same functions.
QUICK = {"nothing", "white space in a query set", "query set", "append", "lost task"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change, id=change.name, marks=[pytest.mark.long] * (change.name not in QUICK))
        for change in CHANGES
    ],
)
def test_a_change_makes_what_it_touches_once(daemon, change):
    assert daemon.settle() == []
    change.make(daemon.root)
    done = daemon.settle()
    assert max(Counter(done).values(), default=1) == 1
    assert set(done) == without_reports(change.expected | change.along)
    # Without reports nothing that reads of them is due.
    assert len(daemon.models) == len(set(daemon.models))
    assert set(daemon.models) <= set(change.models)
    assert_all_fresh(daemon.root)


@pytest.mark.long  # Of one task: tests/ui/test_daemon.py.
@pytest.mark.parametrize("worst_order", [False, True], ids=["topological", "worst"])
def test_reports_follow_their_samples(project_with_reports, worst_order):
    (change,) = (change for change in CHANGES if change.name == "query set")
    with (project_with_reports / "tsds.toml").open("a") as file:
        file.write(A_RUN_EACH)
    with project_instance(Project.load(project_with_reports)) as instance:
        daemon = Daemon(project_with_reports, instance, worst_order)
        assert daemon.settle() == []
        change.make(daemon.root)
        done = daemon.settle()
    assert sorted(done) == sorted(change.expected)
    assert sorted(daemon.models) == sorted(change.models)
    assert_all_fresh(daemon.root)


@pytest.mark.long
def test_a_new_project_is_made_from_nothing(tmp_path):
    make_project(tmp_path / "new", S, T, settings=SETTINGS + A_RUN_EACH)
    with project_instance(Project.load(tmp_path / "new")) as instance:
        daemon = Daemon(tmp_path / "new", instance, worst_order=False)
        done = daemon.settle()
    assert sorted(done) == sorted(without_reports(everything()))
    assert sorted(daemon.models) == sorted(observe(Project.load(tmp_path / "new")).models)
    assert_all_fresh(tmp_path / "new")


@pytest.mark.parametrize("tick", [1, pytest.param(3, marks=pytest.mark.long)])
def test_changes_that_arrive_while_a_wave_is_under_way(daemon, tick):
    """A near-duplicate for one source, then a query set and another record: nothing is lost, little done twice."""
    near_append(daemon.root)
    for _ in range(tick):
        daemon.run(daemon.tick())
    query_set(daemon.root)
    lone_append(daemon.root)
    asked = daemon.tick()
    new_source(daemon.root)  # while these run
    daemon.run(asked)
    done = Counter(daemon.settle())
    assert_all_fresh(daemon.root)
    touched = {change.name: change.expected for change in CHANGES}
    expected = touched["append of a near-duplicate"] | touched["query set"] | touched["new source"]
    assert set(done) == without_reports(expected)
    assert max(done.values()) <= 3, "once a change"
    again = daemon.root.parent / "again"
    shutil.copytree(daemon.root, again, ignore=shutil.ignore_patterns("storage", "exports", ".dagster"))
    made(refreshed(again, models=True))
    for path in (again / "exports").rglob("*.jsonl"):
        assert path.read_bytes() == (daemon.root / path.relative_to(again)).read_bytes()


def test_what_fails_is_not_tried_again_until_something_changes(daemon):
    queries = daemon.root / "tasks" / "t0" / "query.jsonl"
    good = queries.read_text()
    queries.write_text(good + "{broken\n")
    assert daemon.settle() == ["query_examples|t0", "query_embeddings|t0"]
    set_selection(daemon.root, "alpha = 0.3")
    assert set(daemon.settle()[2:]) == without_reports(of_task("t1")), "others go on"
    queries.write_text(good + "{broken in another way\n")
    assert daemon.settle()[4:] == ["query_examples|t0", "query_embeddings|t0"]
    queries.write_text(good)
    assert daemon.settle()[6:] == ["query_examples|t0", "query_embeddings|t0"]
    assert_all_fresh(daemon.root)


def test_what_fails_a_blocking_check_is_told_once_and_nothing_follows(daemon):
    first = pl.int_range(pl.len()) == 0
    tampered(daemon.root, "kde_densities|s0", density=pl.when(first).then(-1.0).otherwise("density"))
    set_selection(daemon.root, "alpha = 0.0")
    sample = node_path(daemon.root / "storage", "sampled_subset|t1")
    before = sample.read_bytes()
    assert set(daemon.settle()) == without_reports(of_task("t1")), "in one run, which skips the sample"
    assert sample.read_bytes() == before
    (failed,) = [one for one in status(observe(Project.load(daemon.root))) if one.state == "failed"]
    assert failed.node == "selection_probabilities|t1"
    assert "the probabilities sum to 1.0" in failed.reasons[0]


def test_a_broken_source_is_told_once_and_blocks_nothing(daemon):
    path = daemon.root / "sources" / "s1.jsonl"
    good = path.read_text()
    path.write_text("{broken\n" * 30 + good)
    chain = ["candidate_corpus|s1", "candidate_embeddings|s1", "faiss_index|s1"]
    assert daemon.settle() == chain
    query_set(daemon.root)
    assert set(daemon.settle()[3:]) == without_reports(whole_task("t0"))
    path.write_text(good)
    assert daemon.settle()[-3:] == chain
    assert_all_fresh(daemon.root)


def test_what_was_killed_is_tried_three_times(project):
    set_selection(project, "seed = 7")
    path = node_path(project / "storage", "sampled_subset|t1")
    with project_instance(Project.load(project)) as instance:
        daemon = Daemon(project, instance, worst_order=False)
        for _ in range(MAX_TRIES):
            assert daemon.tick() == [["sampled_subset|t1"]]
            observed = observe(Project.load(project))
            versions = current_versions(["sampled_subset|t1"], observed)
            begin_attempt(path, input_versions("sampled_subset|t1", observed, versions))  # and no more of it
        assert daemon.tick() == []
        (project / "tsds.toml").write_text(
            (project / "tsds.toml").read_text().replace("seed = 7", "seed = 8")
        )
        assert daemon.settle() == ["sampled_subset|t1"]


def test_what_is_lost_is_made_again(daemon):
    before = {path: path.read_bytes() for path in (daemon.root / "exports").rglob("*.jsonl")}
    shutil.rmtree(daemon.root / "exports" / "t0")
    (daemon.root / "storage" / "query_neighbors" / "s1" / "t2.parquet").unlink()
    assert set(daemon.settle()) == {"sampled_subset|t0", "query_neighbors|s1|t2"}
    assert {path: path.read_bytes() for path in before} == before


def test_a_refresh_that_was_killed_blocks_nothing(project):
    """Its run would be under way for ever, and with it its partition."""
    set_selection(project, "seed = 7")
    with project_instance(Project.load(project)) as instance:
        daemon = Daemon(project, instance, worst_order=False)
        job = daemon.definitions.resolve_implicit_global_asset_job_def()
        run = instance.create_run_for_job(
            job,
            status=dg.DagsterRunStatus.STARTED,
            tags={REFRESH: "killed", "dagster/partition": "t1"},
            asset_selection=frozenset([dg.AssetKey("sampled_subset")]),
        )
        with refresh_lock(Project.load(project)):
            assert daemon.tick() == [], "while it lives"
        assert daemon.settle() == ["sampled_subset|t1"]
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert_all_fresh(project)


def test_a_sample_that_lags_behind_for_too_long_fails_a_check(project, monkeypatch):
    with (project / "tsds.toml").open("a") as file:
        file.write("late_after = 2\n")
    queries = project / "tasks" / "t0" / "query.jsonl"
    good = queries.read_text()
    check = dg.AssetCheckKey(dg.AssetKey("sampled_subset"), "up_to_date")

    def verdicts(hour):
        """What Dagster knows of the check for the task after a look at this hour, the last one first."""
        monkeypatch.setattr("tsds_pipeline.orchestration.automation.now", lambda: 3600.0 * hour)
        daemon.sense("project_inputs")
        history = instance.event_log_storage.get_asset_check_execution_history(check, limit=20)
        found = [record.event.dagster_event.asset_check_evaluation_data for record in history]
        return [one for one in found if one.partition == "t0"]

    with project_instance(Project.load(project)) as instance:
        daemon = Daemon(project, instance, worst_order=False)
        for start in (1, 10):  # and again
            queries.write_text(good + "{broken\n")
            known = len(verdicts(start))
            assert len(verdicts(start + 1.9)) == known
            late = verdicts(start + 2.1)
            assert len(late) == known + 1
            assert not late[0].passed
            assert "query_examples[t0]" in late[0].description
            assert len(verdicts(start + 3)) == known + 1, "told once"
            (project / "exports" / "t0" / "manifest.json").unlink()
            refreshed(project, models=True)  # which makes the sample again, and its check pass
            again = verdicts(start + 3.1)
            assert [one.passed for one in again[:2]] == [False, True]
            known = len(again) - 1
            queries.write_text(good)
            refreshed(project, models=True)
            mended = verdicts(start + 4)
            assert len(mended) == known + 2
            assert mended[0].passed


def test_a_settings_file_that_is_not_understood_stops_the_looks_and_nothing_else(project, caplog):
    good = (project / "tsds.toml").read_text()
    with project_instance(Project.load(project)) as instance:
        daemon = Daemon(project, instance, worst_order=False)
        (project / "tsds.toml").write_text(good + "[selectoin]\n")
        for _ in range(2):
            assert daemon.tick() == []
            assert "[selectoin]" in daemon.sense("project_inputs").skip_message
        (project / "tsds.toml").write_text(good)
        set_selection(project, "seed = 7")
        assert daemon.settle() == ["sampled_subset|t1"]


def test_an_encoder_that_was_added_after_the_code_was_loaded(project):
    with project_instance(Project.load(project)) as instance:
        daemon = Daemon(project, instance, worst_order=False)
        with (project / "tsds.toml").open("a") as file:
            file.write('\n[encoders.raw]\nkind = "precomputed"\nnormalize = false\nkernel_radius = 0.3\n')
            file.write('[tasks.t1]\nencoder = "raw"\n')
        assert daemon.tick() == [["query_embeddings|t1"]], (
            "what is made by assets of other names is not known"
        )
        (asked,) = daemon.sense("automation_of_many").run_requests
        refresh = daemon.definitions.resolve_job_def("refresh")
        assert refresh.execute_in_process(instance=instance, tags=asked.tags).success
        assert not daemon.sense("automation_of_many").run_requests
        assert (project / "storage" / "encoders" / "raw").is_dir()
        assert {one.state for one in status(observe(Project.load(project)))} == {"fresh"}


def test_many_that_are_due_at_once_are_one_run(project, monkeypatch):
    settings = project / "tsds.toml"
    settings.write_text(settings.read_text().replace(A_RUN_EACH, ""))
    with project_instance(Project.load(project)) as instance:
        daemon = Daemon(project, instance, worst_order=False)
        more = records("more", clustered(5, 701))
        for task in ("t0", "t1"):
            append_records(project / "tasks" / task / "query.jsonl", more)
        assert len(daemon.tick()) == 2, "these have a run each"
        assert not daemon.sense("automation_of_many").run_requests
        append_records(project / "tasks" / "t2" / "query.jsonl", more)
        assert daemon.tick() == []
        (asked,) = daemon.sense("automation_of_many").run_requests
        assert asked.tags["tsds/due"] == "6"
        # What fails before it makes anything is asked for again, but not without end.
        refresh = daemon.definitions.resolve_job_def("refresh")
        for _ in range(MAX_TRIES):
            (asked,) = daemon.sense("automation_of_many").run_requests
            run = instance.create_run_for_job(refresh, tags=asked.tags)
            instance.report_run_failed(run, "no space left on device")
        assert f"see run {run.run_id}" in daemon.sense("automation_of_many").skip_message
        with monkeypatch.context() as later:
            later.setattr("tsds_pipeline.orchestration.automation.now", lambda: time.time() + 3700)
            assert daemon.sense("automation_of_many").run_requests
        append_records(project / "tasks" / "t2" / "query.jsonl", records("and", clustered(3, 9)))
        daemon.tick()
        assert daemon.sense("automation_of_many").run_requests, "something changed"
        # What is asked for already is not asked for again.
        run = instance.create_run_for_job(refresh, status=dg.DagsterRunStatus.STARTING)
        assert not daemon.sense("automation_of_many").run_requests
        instance.report_run_canceled(run)
        # What waits for its turn when the refresh starts is made by that, and not a second time.
        queued = a_run(instance, project, "query_examples", "t0", dg.DagsterRunStatus.QUEUED)
        assert refresh.execute_in_process(instance=instance).success
        assert instance.get_run_by_id(queued.run_id).status == dg.DagsterRunStatus.CANCELED
        assert daemon.tick() == []
        assert not daemon.sense("automation_of_many").run_requests
