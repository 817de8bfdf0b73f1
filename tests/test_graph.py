"""The graph that status and refresh walk is the one that Dagster draws."""

import dagster as dg
import pytest

from tests.projects import WITH_REPORTS, make_project, write_records
from tsds_pipeline.definitions import definitions
from tsds_pipeline.graph import (
    ALSO_READ,
    CHAINS,
    CODE_VERSIONS,
    INPUT_ASSETS,
    WARMUP,
    code_version,
    describe,
    is_model,
    nodes,
    observe,
    upstream,
)
from tsds_pipeline.orchestration.partitions import MIXTURES, SOURCES, SOURCES_BY_TASK, TASKS


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    return observe(make_project(tmp_path_factory.mktemp("graph"), 2, 2, n=5, settings=WITH_REPORTS + MIXTURE))


MIXTURE = """
[mixtures.both]
tasks = ["t0", "t1"]
"""
ON_DEMAND = ("selection_comparison|t0",)


def asset(node: str) -> str:
    return node.partition("|")[0]


def test_the_assets_and_their_upstream_are_the_same(observed):
    graph = definitions().resolve_asset_graph()
    drawn = {key.to_user_string(): graph.get(key) for key in graph.get_all_asset_keys()}
    assert set(drawn) == {*CODE_VERSIONS, *INPUT_ASSETS, *observed.models} - {WARMUP}
    for node in (*nodes(observed), *ON_DEMAND):
        name = asset(node)
        expected = {asset(up) for up in upstream(node, observed)} | set(ALSO_READ.get(name, ()))
        assert {key.to_user_string() for key in drawn[name].parent_keys} == expected
        assert drawn[name].code_version == code_version(name, observed)


def test_the_partitions_are_the_same(observed):
    graph = definitions().resolve_asset_graph()
    for node in (*nodes(observed), *ON_DEMAND):
        definition = graph.get(dg.AssetKey(asset(node))).partitions_def
        keys = node.split("|")[1:]
        kinds = {"s": SOURCES, "t": TASKS, "b": MIXTURES}
        expected = None if not keys else kinds[keys[0][0]] if len(keys) == 1 else SOURCES_BY_TASK
        assert definition == expected, node


def test_every_node_comes_once_and_after_its_upstream(observed):
    order = [node for node in nodes(observed) if not is_model(node)]
    assert len(order) == len(set(order)) == 2 * 4 + 2 + 2 * (4 + 3) + 1
    assert list(nodes(observed))[len(order) :] == list(observed.models)
    seen = set(observed.versions)
    for node in nodes(observed):
        assert set(upstream(node, observed)) <= seen
        seen.add(node)


def test_sources_come_one_after_the_other(observed):
    """A text that two share is encoded with the first, whatever of them is made already: the same bytes come out."""
    of_sources = [f"{name}|{source}" for source in observed.sources for name in CHAINS[0]]
    assert list(nodes(observed))[: len(of_sources)] == of_sources


def test_every_asset_says_what_it_is():
    for spec in definitions().resolve_all_asset_specs():
        assert spec.description, spec.key
        assert spec.group_name in ("inputs", "candidates", "tasks", "mixtures", "reports", "sql")


def test_the_results_are_tagged():
    specs = {spec.key.to_user_string(): spec for spec in definitions().resolve_all_asset_specs()}
    results = {name for name, spec in specs.items() if spec.tags.get("tsds/role") == "result"}
    assert results == {"selection_probabilities", "sampled_subset", "training_mixture"}
    for name in CODE_VERSIONS.keys() - {WARMUP}:
        assert specs[name].kinds, name
        assert specs[name].tags["tsds/role"] in ("intermediate", "result")


def test_a_test_set_counts_where_there_is_one(tmp_path):
    project = make_project(tmp_path, sources=1, tasks=2, n=5)
    before = observe(project).versions
    write_records(tmp_path / "tasks" / "t0" / "test.jsonl", [{"text": "x"}])
    after = observe(project).versions
    assert [node for node in before if before[node] != after[node]] == ["draw_settings|t0"]
    assert before.keys() == after.keys()


def test_how_a_test_set_is_read_counts_with_it(tmp_path):
    project = make_project(tmp_path, sources=1, tasks=2, n=5)
    (tmp_path / "x.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "tmpl.jinja").write_text("{{ messages }}")
    write_records(tmp_path / "tasks" / "t0" / "test.jsonl", [{"text": "x"}])
    plain = (tmp_path / "tsds.toml").read_text()

    def changed(before: str, after: str) -> set[str]:
        found = []
        for text in (before, after):
            (tmp_path / "tsds.toml").write_text(plain + text)
            found.append(observe(project.load(project.root)).versions)
        return {node for node in found[0] if found[0][node] != found[1][node]}

    drop = '[tasks.t0]\nleaks = "drop"\n'
    reading = {"query_files|t0", "solver_settings|t0", "draw_settings|t0"}
    assert changed(drop, drop + 'text = "{text}!"\n') == reading
    for how in ("[corpus]\nmax_chars = 9\n", '[corpus]\nchat_template = "tmpl.jinja"\n'):
        assert changed(drop, how + drop) == reading | {"query_files|t1", "source_files|s0"}
    excluded = '[exclude.e]\npath = "x.jsonl"\n[sources.s0]\nmax_chars = 5\n'
    assert "source_files|s0" in changed(excluded, "[corpus]\nmax_chars = 9\n" + excluded)
    assert "source_files|s0" not in changed(
        "[sources.s0]\nmax_chars = 5\n", "[corpus]\nmax_chars = 9\n[sources.s0]\nmax_chars = 5\n"
    )


def test_nodes_for_people():
    assert describe("query_neighbors|a|t") == "query_neighbors[a x t]"
    assert describe("pool_summary") == "pool_summary"
