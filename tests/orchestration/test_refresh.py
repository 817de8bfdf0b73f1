"""What a refresh does beyond the counts of test_automation.py: contents, failures, and what is left alone."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.commands import tsds
from tests.projects import (
    A_RUN_EACH,
    SETTINGS,
    append_records,
    clustered,
    made,
    make_project,
    records,
    refreshed,
    write_records,
)
from tsds_pipeline.encoders import embed
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import INPUT_ASSETS, nodes, observe
from tsds_pipeline.orchestration.inputs import register
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.orchestration.refresh import _Runner
from tsds_pipeline.project import Project
from tsds_pipeline.results import load_result, load_selection
from tsds_pipeline.status import next_nodes, status
from tsds_pipeline.storage import artifact_path, read_artifact

S, T = 3, 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project that is up to date."""
    root = tmp_path_factory.mktemp("finished") / "project"
    make_project(root, S, T)
    assert len(made(refreshed(root, models=True))) == 4 * S + 1 + T * (4 + S)
    return root


@pytest.fixture
def project(finished, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(finished, tmp_path / "project")


def bytes_of(root, *folders):
    return {
        path.relative_to(root): path.read_bytes()
        for folder in folders
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and path.suffix != ".damaged" and path.name != "result-hashes.json"
    }


def set_settings(root, **changes):
    """Change keys of tsds.toml: [selection] keys, or "table.key"."""
    text = SETTINGS
    for name, value in changes.items():
        table, _, key = name.rpartition("__")
        if table:
            text += f"\n[{table.replace('__', '.')}]\n{key} = {value}\n"
        else:
            lines = [line for line in text.splitlines() if not line.startswith(f"{name} =")]
            at = next(i for i, line in enumerate(lines) if line == "[selection]") + 1
            text = "\n".join([*lines[:at], f"{name} = {value}", *lines[at:]])
    (root / "tsds.toml").write_text(text)


def of_task(task, *assets):
    return [f"{asset}|{task}" for asset in assets]


def whole_task(task):
    near = [f"query_neighbors|s{s}|{task}" for s in range(S)]
    return [
        *of_task(task, "query_examples", "query_embeddings"),
        *near,
        *of_task(task, "selection_probabilities", "sampled_subset"),
    ]


def assert_all_fresh(root):
    """Also of SQL models, which are made here, and of nothing else."""
    assert made(refreshed(root, models=True)) == []
    assert [n.node for n in status(observe(Project.load(root))) if n.state != "fresh"] == []


def test_nothing_to_do(project):
    before = bytes_of(project, "storage", "exports")
    steps = refreshed(project, models=True)
    assert {step.outcome for step in steps} == {"fresh"}
    assert [step.node for step in steps] == list(nodes(observe(Project.load(project))))
    for path in (project / "sources").iterdir():
        path.touch()
    assert made(refreshed(project, models=True)) == []
    same = bytes_of(project, "storage", "exports")
    hashes = Path("storage", "file-hashes.json")  # has the times of the files
    assert {k: v for k, v in same.items() if k != hashes} == {k: v for k, v in before.items() if k != hashes}


def test_a_query_set_reaches_its_task_alone(project):
    untouched = bytes_of(project, "exports/t1", "storage/query_neighbors/s0/t1.parquet")
    append_records(project / "tasks" / "t0" / "query.jsonl", records("more", clustered(8, 500)[3:5]))
    assert made(refreshed(project)) == whole_task("t0")
    assert bytes_of(project, "exports/t1", "storage/query_neighbors/s0/t1.parquet") == untouched
    assert_all_fresh(project)


def test_the_settings_of_one_task(project):
    set_settings(project, tasks__t1__alpha=0.3)
    assert made(refreshed(project)) == of_task("t1", "selection_probabilities", "sampled_subset")
    set_settings(project, tasks__t1__alpha=0.3, tasks__t0__seed=5)
    assert made(refreshed(project)) == of_task("t0", "sampled_subset")
    set_settings(project, tasks__t1__alpha=0.3, tasks__t0__size=5)
    assert made(refreshed(project)) == of_task("t0", "sampled_subset")
    assert len(load_selection(project, "t0")) == 5
    assert_all_fresh(project)


def test_a_size_that_alpha_follows_solves_again(project):
    set_settings(project, alpha='"auto"')
    assert made(refreshed(project)) == [
        n for t in ("t0", "t1") for n in of_task(t, "selection_probabilities", "sampled_subset")
    ]
    set_settings(project, alpha='"auto"', size=20)
    assert len(made(refreshed(project, models=True))) == 2 * T


def appended(source, far):
    """What an append to ``source`` makes again; ``far`` are the other sources whose densities moved."""
    chain = [f"{asset}|{source}" for asset in ("candidate_corpus", "candidate_embeddings", "faiss_index")]
    densities = [f"kde_densities|s{s}" for s in range(S)]
    tasks = []
    for t in ("t0", "t1"):
        tasks += [f"query_neighbors|s{s}|{t}" for s in range(S) if f"s{s}" in (source, *far)]
        tasks += of_task(t, "selection_probabilities", "sampled_subset")
    return [*chain, *densities, "pool_summary", *tasks]


def test_an_append_reaches_other_sources_only_through_near_duplicates(project):
    lone = np.zeros((1, 12), np.float32)
    lone[0, 0] = 1
    append_records(project / "sources" / "s1.jsonl", records("lone", lone))
    assert made(refreshed(project)) == appended("s1", far=[])
    twin = clustered(40, 10)[:1] + np.float32(0.002)
    append_records(project / "sources" / "s1.jsonl", records("twin", twin))
    assert made(refreshed(project)) == appended("s1", far=["s0"])
    assert_all_fresh(project)


def test_sources_come_and_go(project):
    extra = np.eye(12, dtype=np.float32)[3:6]
    write_records(project / "sources" / "s9.jsonl", records("s9", extra))
    steps = made(refreshed(project))
    expected = 3 + (S + 1) + 1 + T * (1 + 2)
    assert len(steps) == len(set(steps)) == expected
    assert_all_fresh(project)
    (project / "sources" / "s9.jsonl").unlink()
    steps = made(refreshed(project))
    # Its neighbours are gone from every task: densities, the pool, probabilities and samples, nothing else.
    assert len(steps) == len(set(steps)) == S + 1 + 2 * T
    assert not [step for step in steps if step.startswith("query_neighbors")]
    for task in ("t0", "t1"):
        assert "s9" not in load_selection(project, task)["source"].to_list()
    assert_all_fresh(project)


def test_other_fields_reach_the_sample(project):
    """A corrected label changes no vector, but it has to be in the training data."""
    path = project / "sources" / "s0.jsonl"
    path.write_text(path.read_text().replace('"label": "l1"', '"label": "mended"'))
    refreshed(project)
    labels = pl.concat([load_selection(project, task).filter(source="s0") for task in ("t0", "t1")])["label"]
    assert "mended" in labels.to_list()
    assert "l1" not in labels.to_list()
    assert_all_fresh(project)


def test_a_refresh_of_one_task_or_source_does_what_it_needs(project, tmp_path):
    set_settings(project, alpha=0.5)
    assert made(refreshed(project, task="t1", models=True)) == of_task(
        "t1", "selection_probabilities", "sampled_subset"
    )
    assert made(refreshed(project, source="s1", models=True)) == []
    make_project(tmp_path / "new", S, T)
    steps = made(refreshed(tmp_path / "new", source="s1", models=True))
    assert len(steps) == 3 * S + 1
    assert steps[-1] == "kde_densities|s1"
    with pytest.raises(TsdsError, match=r"no task .tt1. .did you mean .t1"):
        refreshed(project, task="tt1", models=True)


def test_a_task_takes_only_its_sources(project):
    set_settings(project, tasks__t0__sources='["s1"]')
    made(refreshed(project, models=True))
    assert set(load_selection(project, "t0")["source"]) == {"s1"}
    assert len(set(load_selection(project, "t1")["source"])) > 1


def test_a_task_that_takes_more_sources_again_gets_all_of_them(project, finished):
    set_settings(project, tasks__t0__sources='["s1"]')
    made(refreshed(project))
    set_settings(project)
    made(refreshed(project, models=True))
    found, expected = (bytes_of(root, "exports/t0", "storage/sampled_subset") for root in (project, finished))
    assert found == expected


def test_lost_exports_are_made_again(project):
    before = bytes_of(project, "exports")
    shutil.rmtree(project / "exports")
    assert [n.state for n in status(observe(Project.load(project))) if n.node.startswith("sampled")] == [
        "stale"
    ] * T
    assert made(refreshed(project)) == ["sampled_subset|t0", "sampled_subset|t1"]
    assert bytes_of(project, "exports") == before
    (project / "exports" / "t1" / "epoch-0.jsonl").unlink()
    with (project / "exports" / "t0" / "epoch-0.jsonl").open("a") as file:
        file.write("junk")
    assert made(refreshed(project, models=True)) == ["sampled_subset|t0", "sampled_subset|t1"]
    assert bytes_of(project, "exports") == before


def test_a_changed_export_is_written_again_and_nothing_is_drawn(project):
    before, samples = bytes_of(project, "exports"), bytes_of(project, "storage/sampled_subset")
    toml = (project / "tsds.toml").read_text()
    (project / "tsds.toml").write_text(
        toml + '[export]\nformat = "parquet"\nlayout = "chat"\nweights = true\n'
    )
    stale = [
        one for one in status(observe(Project.load(project))) if one.state != "fresh" and "|" in one.node
    ]
    assert [one.node for one in stale] == ["sampled_subset|t0", "sampled_subset|t1"]
    assert stale[0].reasons == (
        '[export] format ["jsonl"] -> ["parquet"], layout original -> chat, weights false -> true',
    )
    assert made(refreshed(project)) == ["sampled_subset|t0", "sampled_subset|t1"]
    assert made(refreshed(project)) == []
    assert bytes_of(project, "storage/sampled_subset") == samples
    exported = pl.read_parquet(project / "exports" / "t0" / "epoch-0.parquet")
    text = load_selection(project, "t0")["text"][0]
    assert exported["messages"][0].to_list() == [{"role": "assistant", "content": text}]
    weighted = pl.read_parquet(project / "exports" / "t0" / "weighted.parquet")
    solved = load_result(project, "selection_probabilities", "t0").frame
    assert set(weighted["id"]) == set(solved.unique("content_id")["id"])
    (project / "tsds.toml").write_text(toml)
    assert made(refreshed(project)) == ["sampled_subset|t0", "sampled_subset|t1"]
    assert bytes_of(project, "exports") == before


def test_an_export_that_failed_is_tried_again_once_another_is_asked_for(tmp_path):
    root, turns = tmp_path / "new", {"messages": [{"role": "narrator", "content": "hm"}]}
    make_project(root, 1, 1, settings=SETTINGS + '[export]\nlayout = "chat"\n')
    rows = records("s0", clustered(40, 10))
    write_records(root / "sources" / "s0.jsonl", [row | turns for row in rows])
    (failed,) = [step for step in refreshed(root) if step.outcome == "failed"]
    assert failed.node == "sampled_subset|t0"
    assert "cannot be a chat" in failed.reasons[0]
    assert not (root / "exports" / "t0").exists()

    def asked_for() -> set[str]:
        return next_nodes(observe(Project.load(root)))

    assert failed.node not in asked_for(), "the automation does not try in vain"
    (root / "tsds.toml").write_text(SETTINGS)
    assert failed.node in asked_for()


def with_zero_vector(path: Path) -> None:
    append_records(path, [{"id": "zero", "text": "no direction", "embedding": [0.0] * 12}])


def test_a_record_without_a_usable_vector_holds_back_its_source_only(project, tmp_path):
    before = bytes_of(project, "exports")
    with_zero_vector(project / "sources" / "s1.jsonl")
    steps = [step for step in refreshed(project, models=True) if step.outcome in ("failed", "waiting")]
    assert [(step.node, step.outcome) for step in steps] == [("candidate_embeddings|s1", "failed")]
    assert 'source s1: the vector of record "zero"' in steps[0].reasons[0]
    assert {k: v for k, v in bytes_of(project, "exports").items() if k.suffix == ".jsonl"} == {
        k: v for k, v in before.items() if k.suffix == ".jsonl"
    }
    new = tmp_path / "new"
    make_project(new, 2, 1)
    with_zero_vector(new / "sources" / "s1.jsonl")
    outcomes = {step.node: step.outcome for step in refreshed(new, models=True)}
    assert outcomes.pop("candidate_embeddings|s1") == "failed"
    assert set(outcomes.values()) == {"made"}
    assert set(load_selection(new, "t0")["source"]) == {"s0"}


def test_an_embedding_that_fails_holds_back_its_source_only(project, monkeypatch):
    def out_of_memory(records, encoder, cache, whose, *others):
        if whose == "source s1":
            raise RuntimeError("out of memory")
        return embed(records, encoder, cache, whose, *others)

    monkeypatch.setattr("tsds_pipeline.assets.stage.embed", out_of_memory)
    append_records(project / "sources" / "s1.jsonl", records("new", clustered(5, 300)))
    append_records(project / "tasks" / "t0" / "query.jsonl", records("more", clustered(5, 301)))
    failed = [step for step in refreshed(project, models=True) if step.outcome in ("failed", "waiting")]
    assert [(step.node, step.reasons) for step in failed] == [
        ("candidate_embeddings|s1", ("RuntimeError: out of memory",))
    ]
    assert set(load_selection(project, "t0")["source"]) == {"s0", "s1", "s2"}
    monkeypatch.undo()
    made(refreshed(project))
    assert_all_fresh(project)


def test_settings_that_choose_the_same_index_make_nothing_after_it(project):
    (project / "tsds.toml").write_text(SETTINGS.replace("[pool]", "[pool]\nexpected_queries = 5"))
    assert made(refreshed(project)) == ["faiss_index|s0", "faiss_index|s1", "faiss_index|s2"]
    assert_all_fresh(project)


def test_an_index_that_does_not_fit_one_source_is_replaced_by_exact_search(project):
    write_records(project / "sources" / "s9.jsonl", records("s9", clustered(4, 77)))
    (project / "tsds.toml").write_text(SETTINGS.replace("[pool]", '[pool]\nindex = "IVF8,Flat"'))
    outcomes = {step.node: step.outcome for step in refreshed(project, models=True)}
    assert outcomes.pop("faiss_index|s9") == "failed"
    assert set(outcomes.values()) <= {"made", "fresh"}
    assert outcomes["sampled_subset|t0"] == "made"


def test_two_encoders_never_meet(project):
    """Another vector field is another encoder; one source cannot follow."""
    for path in [*(project / "sources").iterdir(), *(project / "tasks").glob("*/*")]:
        rows = [json.loads(line) for line in path.open()]
        turned = [{**row, "turned": row["embedding"][::-1]} for row in rows]
        if path.stem == "s1":
            turned[5]["turned"] = [0.0] * 12
        write_records(path, turned)
    (project / "tsds.toml").write_text(SETTINGS.replace("[encoder]", '[encoder]\nfield = "turned"'))
    steps = {step.node: step for step in refreshed(project, models=True)}
    assert steps["candidate_embeddings|s1"].outcome == "failed"
    assert steps["sampled_subset|t0"].outcome == "made"
    for task in ("t0", "t1"):
        assert "s1" not in load_selection(project, task)["source"].to_list()


def run_alone(root, *nodes):
    """Make single nodes, as somebody would in the UI; what went wrong with each."""
    project = Project.load(root)
    observed = observe(project)
    with project_instance(project) as instance:
        register(instance, observed)
        runner = _Runner(instance, observed)
        return [runner.run([node]) for node in nodes]


def test_single_nodes_do_not_mix_versions(project):
    path = project / "sources" / "s0.jsonl"
    good = path.read_text()
    path.write_text(good.replace('"label": "l1"', '"label": "other"'))
    corpus, sample = run_alone(project, "candidate_corpus|s0", "sampled_subset|t0")
    assert corpus is None
    assert "was made from another version of candidate_corpus[s0]" in sample
    path.write_text(good)
    made(refreshed(project))
    (project / "tsds.toml").write_text(SETTINGS.replace("kernel_radius = 0.1", "kernel_radius = 0.6"))
    densities, pool = run_alone(project, "kde_densities|s0", "pool_summary")
    assert densities is None
    assert "was made from another version of pool_settings" in pool
    made(refreshed(project))
    assert_all_fresh(project)


def test_the_manifest_names_what_was_used(project):
    found = json.loads((project / "exports" / "t0" / "manifest.json").read_text())
    for node, version in found["inputs"].items():
        asset, _, partition = node.partition("|")
        artifact = (
            None
            if asset in INPUT_ASSETS
            else read_artifact(artifact_path(project / "storage", asset, partition or None))
        )
        assert version == (artifact.version if artifact else observe(Project.load(project)).versions[node])
    assert {f"source_files|s{s}" for s in range(S)} | {"query_files|t0"} <= found["inputs"].keys()
    assert found["settings"]["source_files|s0"]["max_quarantined"] == 0.05
    assert found["settings"]["pool_settings"] == {"kernel_radius": 0.1}


def test_a_failure_in_a_chain_is_told_of_the_node_that_failed(tmp_path):
    make_project(tmp_path, 1, 1, settings=SETTINGS + "\n[tasks.t0]\nsize = 39\nalpha = 1.0\n")
    steps = {step.node: step.outcome for step in refreshed(tmp_path, models=True)}
    assert steps["selection_probabilities|t0"] == "made"
    assert steps["sampled_subset|t0"] == "failed"


def test_a_new_source_that_is_broken_otherwise_is_as_empty_as_before(project):
    path = project / "sources" / "new.jsonl"
    path.write_text("broken\n")
    steps = {step.node: step.outcome for step in refreshed(project)}
    assert steps["candidate_corpus|new"] == "failed"
    assert steps["sampled_subset|t0"] == "made"
    path.write_text("broken\nin two lines\n")
    steps = {step.node: step for step in refreshed(project)}
    failed = steps.pop("candidate_corpus|new")
    assert "2 of 2 records" in failed.reasons[0]
    assert {step.outcome for step in steps.values()} == {"fresh"}
    write_records(path, records("new", clustered(10, 30)))
    assert "sampled_subset|t0" in made(refreshed(project))


def test_a_few_bad_records_are_told(project):
    with (project / "sources" / "s0.jsonl").open("a") as file:
        file.write('{"id": "cut", "te')
    said = tsds("-p", project, "refresh").stderr
    assert (
        "warning: source s0: 1 of 41 records (2.4%) cannot be used: sources/s0.jsonl:41: invalid JSON" in said
    )
    assert "storage/quarantine/s0.parquet" in said
    assert "source s0" not in tsds("-p", project, "refresh").stderr


def test_a_broken_source_keeps_its_last_good_content_and_stops_nothing(project):
    before = bytes_of(project, "exports", "storage/sampled_subset")
    path = project / "sources" / "s1.jsonl"
    good = path.read_text()
    path.write_text("{broken\n" * 30 + good)
    steps = {step.node: step for step in refreshed(project, models=True)}
    assert steps.pop("quarantine_reasons").outcome == "made"
    assert steps.pop("asset_costs").outcome in ("made", "fresh")
    failed = [step for step in steps.values() if step.outcome != "fresh"]
    assert [(step.node, step.outcome) for step in failed] == [("candidate_corpus|s1", "failed")]
    assert "max_quarantined" in failed[0].reasons[0]
    assert bytes_of(project, "exports", "storage/sampled_subset") == before
    again = [step for step in refreshed(project, models=True) if step.outcome != "fresh"]
    assert [(step.node, step.outcome) for step in again] == [("candidate_corpus|s1", "failed")], "still told"
    assert len(pl.read_parquet(project / "storage" / "quarantine" / "s1.parquet")) == 30
    # What is drawn meanwhile says which file its records really came from.
    set_settings(project, seed=1)
    refreshed(project)
    manifest = json.loads((project / "exports" / "t0" / "manifest.json").read_text())
    path.write_text(good)
    assert made(refreshed(project)) == ["candidate_corpus|s1"]
    assert manifest["inputs"]["source_files|s1"] == observe(Project.load(project)).versions["source_files|s1"]
    assert_all_fresh(project)


def test_a_source_that_never_was_readable_counts_as_empty(tmp_path):
    root = tmp_path / "project"
    make_project(root, 2, 1)
    (root / "sources" / "s2.parquet").write_bytes(b"PAR1 not a table")
    outcomes = {step.node: step.outcome for step in refreshed(root, models=True)}
    assert outcomes.pop("candidate_corpus|s2") == "failed"
    assert set(outcomes.values()) == {"made"}
    assert len(load_selection(root, "t0")) == 12


def test_a_broken_query_set_stops_its_own_task_only(project):
    path = project / "tasks" / "t0" / "query.jsonl"
    good = path.read_text()
    path.write_text(good + "{broken\n")
    steps = [step for step in refreshed(project, models=True) if step.outcome != "fresh"]
    assert [(step.node, step.outcome) for step in steps] == [("query_examples|t0", "failed")]
    assert "query.jsonl:8" in steps[0].reasons[0]
    found = {n.node: n for n in status(observe(Project.load(project)))}
    assert found["query_examples|t0"].state == "failed"
    assert "its last result stays in use" in found["query_examples|t0"].reasons[0]
    path.write_text(good)
    assert made(refreshed(project)) == ["query_examples|t0"]
    assert_all_fresh(project)


def test_a_task_waits_for_queries_that_cannot_be_embedded(project):
    """Its embeddings of before do not go with its queries of now; without another change nothing needs both."""
    path = project / "tasks" / "t0" / "query.jsonl"
    good, before = path.read_text(), load_selection(project, "t0")
    with_zero_vector(path)
    steps = [step for step in refreshed(project, models=True) if step.outcome in ("failed", "waiting")]
    assert [(step.node, step.outcome) for step in steps] == [("query_embeddings|t0", "failed")]
    set_settings(project, tasks__t0__alpha=0.123)
    assert not {n for n in next_nodes(observe(Project.load(project))) if n.endswith("|t0")}
    steps = [step for step in refreshed(project) if step.outcome in ("failed", "waiting")]
    assert [(step.node, step.outcome) for step in steps] == [
        ("query_embeddings|t0", "failed"),
        ("selection_probabilities|t0", "waiting"),
    ]
    assert steps[1].reasons[0].startswith("needs query_neighbors[s0 x t0]")
    set_settings(project, seed=7)
    steps = {step.node: step.outcome for step in refreshed(project) if step.outcome != "fresh"}
    assert steps == {
        "query_embeddings|t0": "failed",
        "sampled_subset|t0": "waiting",
        "sampled_subset|t1": "made",
    }
    assert load_selection(project, "t0").equals(before)
    path.write_text(good)
    assert "sampled_subset|t0" in made(refreshed(project))
    assert_all_fresh(project)


def test_lost_and_damaged_results_are_made_again(project):
    whole = bytes_of(project, "exports", "storage/sampled_subset", "storage/selection_probabilities")
    (project / "storage" / "selection_probabilities" / "t0.parquet").unlink()
    (project / "storage" / "sampled_subset" / "t1.parquet").write_bytes(b"PAR1")
    for payload in (project / "storage" / "faiss_index").glob("s1.index-*"):
        payload.unlink()
    made(refreshed(project, models=True))
    assert bytes_of(project, "exports", "storage/sampled_subset", "storage/selection_probabilities") == whole


def test_the_same_seed_gives_the_same_bytes_whatever_the_order(project, tmp_path):
    other = tmp_path / "other"
    make_project(other, S, T)
    for path in (other / "sources").iterdir():
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(reversed(lines)))
    made(refreshed(other, models=True))
    found, expected = (bytes_of(root, "exports", "storage/sampled_subset") for root in (other, project))
    for files in (found, expected):
        for task in ("t0", "t1"):
            del files[Path("exports", task, "manifest.json")]  # names the hashes of the source files
    assert found == expected


def test_more_examples_than_have_mass_is_an_error_with_a_way_out(project):
    set_settings(project, alpha=0.9, tasks__t0__size=110)
    steps = {step.node: step for step in refreshed(project)}
    assert steps["sampled_subset|t0"].outcome == "failed"
    assert steps["sampled_subset|t1"].outcome == "made"
    message = steps["sampled_subset|t0"].reasons[0]
    found = re.search(r"only (\d+) have mass: alpha = ([\d.]+) would reach the size", message)
    assert int(found[1]) < 110
    text = (project / "tsds.toml").read_text()
    (project / "tsds.toml").write_text(text.replace("[tasks.t0]", f"[tasks.t0]\nalpha = {found[2]}"))
    made(refreshed(project))
    assert len(load_selection(project, "t0")) == 110
    set_settings(project, tasks__t0__size=5000)
    failed = [step for step in refreshed(project, models=True) if step.outcome == "failed"]
    assert [step.node for step in failed] == ["sampled_subset|t0"]
    assert "there are no more" in failed[0].reasons[0]
    set_settings(project, max_neighbors=2, alpha=0, tasks__t0__size=110)
    failed = [step for step in refreshed(project) if step.outcome == "failed"]
    assert "within max_neighbors = 2 no alpha gives it to enough: raise max_neighbors" in failed[0].reasons[0]
    set_settings(project, alpha='"auto"', tasks__t0__size=5000)
    steps = {step.node: step for step in refreshed(project, models=True)}
    assert steps["selection_probabilities|t0"].outcome == "failed"
    assert steps["sampled_subset|t0"].outcome == "waiting", "not drawn from a plan for another size"


def test_a_sample_of_most_of_the_pool_is_warned_of(project):
    set_settings(project, alpha='"auto"', tasks__t0__size=80)
    made(refreshed(project, models=True))
    found = {
        t: load_result(project, "selection_probabilities", t).header.notes["warnings"] for t in ("t0", "t1")
    }
    assert found["t1"] == []
    assert "can hardly follow the task" in found["t0"][0]


def test_runs_of_one_refresh_source_or_task_can_be_told(project):
    with (project / "tsds.toml").open("a") as file:
        file.write(A_RUN_EACH)
    append_records(project / "tasks" / "t0" / "query.jsonl", records("more", clustered(4, 500)[3:]))
    with project_instance(Project.load(project)) as instance:
        old = {run.run_id for run in instance.get_runs()}
    made(refreshed(project, models=True))
    with project_instance(Project.load(project)) as instance:
        tags = [run.tags for run in instance.get_runs() if run.run_id not in old]
        everything = [run.tags for run in instance.get_runs()]
    assert len({tag["tsds/refresh"] for tag in tags}) == 1
    of_models, *others = [tag.get("tsds/task") for tag in tags]  # the last run comes first
    assert of_models is None
    assert set(others) == {"t0"}
    assert {tag.get("tsds/source") for tag in tags} == {None, "s0", "s1", "s2"}
    assert len({tag["tsds/refresh"] for tag in everything}) == 2
    many_at_once = everything[-1]
    assert "tsds/source" not in many_at_once
