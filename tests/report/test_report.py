"""The report's page: complete, self-contained, the same each time, and deaf to what texts say."""

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import dagster as dg
import polars as pl
import pytest

from tests.orchestration.runs import materialized
from tests.projects import WITH_REPORTS, append_records, clustered, make_project, records, refreshed
from tsds_pipeline.graph import observe
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.project import Project
from tsds_pipeline.report.pages import page_path, version_of
from tsds_pipeline.stages.comparison import METRICS
from tsds_pipeline.stages.history import History
from tsds_pipeline.status import status
from tsds_pipeline.storage import artifact_path, read_artifact

EVIL = "<script>alert(1)</script> & ![x](https://example.org/x.png) </title><img src=x onerror=alert(2)> \x85 {{ 7*7 }}"


class Tags(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A project whose nearest candidates, queries and source say unpleasant things."""
    root = tmp_path_factory.mktemp("report") / "project"
    make_project(root, 2, 1, settings=WITH_REPORTS)
    near = clustered(7, 100)
    rows = records("evil", near)
    for number, row in enumerate(rows):
        row["text"] = f"{EVIL} {number}"
    append_records(root / "sources" / "s0.jsonl", rows)
    append_records(root / "tasks" / "t0" / "query.jsonl", [{**rows[3], "text": f"query {EVIL}"}])
    assert not [step for step in refreshed(root) if step.outcome == "failed"]
    return root


@pytest.fixture
def project(root, tmp_path) -> Path:
    return Path(shutil.copytree(root, tmp_path / "project"))


def page_of(root: Path) -> str:
    return page_path(Project.load(root), "t0").read_text("utf-8")


def test_texts_are_shown_and_not_obeyed(root):
    page = Tags(page_of(root))
    names = {name for name, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "base", "form"}
    assert all("onerror" not in attributes and "onload" not in attributes for _, attributes in page.tags)
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert "query <script>" in page.text
    assert "13 words in a row of query evil-3" in page.text
    assert "storage/leaks/t0.parquet" in page.text


def test_nothing_is_loaded_from_elsewhere(root):
    for name, attributes in Tags(page_of(root)).tags:
        for attribute in ("src", "href", "xlink:href"):
            target = attributes.get(attribute, "#")
            assert target.startswith(("#", "data:image/png;base64,")), (name, target)
    assert "default-src 'none'" in page_of(root)
    assert "url(http" not in page_of(root)


def test_every_part_is_there(root):
    page = Tags(page_of(root))
    sections = [attributes["id"] for name, attributes in page.tags if name == "section"]
    assert sections == ["quality", "map", "sources", "duplicates", "examples", "drift", "settings"]
    for metric in METRICS.values():
        assert metric.title in page.text
    for words in ("top-k", "random", "this selection", "first version", "kernel_radius"):
        assert words in page.text


def test_pictures_are_sound_and_point_at_what_they_show(root):
    pictures = re.findall(r"<svg.*?</svg>", page_of(root), re.DOTALL)
    assert len(pictures) == 5
    for picture in pictures:
        ElementTree.fromstring(picture)
    titles = [e.text for e in ElementTree.fromstring(pictures[1]).iter("{http://www.w3.org/2000/svg}title")]
    sample = read_artifact(artifact_path(root / "storage", "sampled_subset", "t0")).frame
    assert len(titles) == sample["content_id"].n_unique() + 8
    assert any("query <script>" in title for title in titles)


def test_ids_of_a_page_are_unique(root):
    ids = [attributes["id"] for _, attributes in Tags(page_of(root)).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_page_again(project):
    before = page_of(project)
    page_path(Project.load(project), "t0").unlink()
    steps = [(step.node, step.reasons) for step in refreshed(project) if step.outcome == "made"]
    assert steps == [("selection_report|t0", ("its page is gone",))]
    assert page_of(project) == before


def test_a_page_of_another_version_is_stale(project):
    path = page_path(Project.load(project), "t0")
    path.write_text(path.read_text("utf-8").replace(version_of(path), "0" * 32))
    (report,) = (one for one in status(observe(Project.load(project))) if one.node == "selection_report|t0")
    assert report.state == "stale"


def test_without_a_map_it_says_how_to_get_one(project):
    """As where somebody asks in the UI for the report of a task with report = false."""
    (project / "storage" / "pool_map.parquet").unlink()
    done = materialized(Project.load(project), "selection_report", "t0")
    (failure,) = [event for event in done.all_events if event.is_step_failure]
    assert failure.step_failure_data.error.cause.message.strip().endswith(
        "pool_map is not there yet: run `tsds refresh`, which makes it where a task has report = true"
    )


def test_the_next_version_says_what_changed(project):
    with (project / "tsds.toml").open("a") as file:
        file.write("\n[tasks.t0]\nsize = 20\n")
    refreshed(project)
    history = History(project / "storage", "t0").versions(9)
    assert history["number"].to_list() == [1, 2]
    last = history.row(1, named=True)
    assert last["kept"] + last["added"] == 20
    assert last["kept"] + last["dropped"] == 12
    text = Tags(page_of(project)).text
    assert f"{last['kept']} examples were kept and {last['dropped']} dropped; {last['added']} are new" in text
    assert "Added, 5 of" in text


def test_pictures_and_figures_are_in_the_metadata(root):
    with project_instance(Project.load(root)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("selection_report"))
        metadata = event.asset_materialization.metadata
    pictures = {name: value.value for name, value in metadata.items() if name.startswith("picture_")}
    assert set(pictures) == {
        f"picture_{n}" for n in ("map", "by_source", "by_query", "held_back", "densities")
    }
    for text in pictures.values():
        uri = re.fullmatch(r"!\[\w+\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", text)
        assert base64.b64decode(uri[1]).startswith(b"\x89PNG")
    table = read_artifact(artifact_path(root / "storage", "selection_report", "t0")).frame
    own = table.filter(pl.col("method") == "selection")
    for name in ("transport_distance", "energy_distance", "kl_reduction"):
        assert metadata[name].value == pytest.approx(own[name].mean())
    assert metadata["page"].value == str(page_path(Project.load(root), "t0"))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param('algorithm = "knn_uniform"\nalpha = 0.0', marks=pytest.mark.long),
        pytest.param('algorithm = "knn_tv"\nalpha = 0.3', marks=pytest.mark.long),
        "alpha = 1.0\nwith_replacement = true\nepochs = 2",
        'size = "auto"\nalpha = "auto"',
    ],
)
def test_every_regime_can_be_drawn(tmp_path, settings):
    toml = f'[encoder]\nkind = "precomputed"\n[pool]\nkernel_radius = 0.1\n[selection]\n{settings}\n'
    make_project(tmp_path, 2, 1, settings=toml + ("" if "size" in settings else "size = 5\n"))
    assert not [step for step in refreshed(tmp_path) if step.outcome != "made"]
    assert "Is it a good selection?" in page_of(tmp_path)


def test_one_query_and_one_candidate(tmp_path):
    make_project(tmp_path, 1, 1, n=3, settings=WITH_REPORTS.replace("size = 12", "size = 1"))
    for path in (tmp_path / "sources" / "s0.jsonl", tmp_path / "tasks" / "t0" / "query.jsonl"):
        path.write_text(path.read_text().splitlines()[0] + "\n")
    assert not [step for step in refreshed(tmp_path) if step.outcome != "made"]
    assert "none could be held back" in page_of(tmp_path)


def test_a_project_may_do_without(tmp_path):
    make_project(tmp_path, 1, 2, settings=WITH_REPORTS + "\n[tasks.t0]\nreport = false\n")
    made = {step.node for step in refreshed(tmp_path)}
    assert "selection_report|t1" in made
    assert "selection_report|t0" not in made
    assert [path.name for path in (tmp_path / "reports").glob("*.html")] == ["t1.html"]
    assert (tmp_path / "reports" / ".gitignore").read_text() == "*\n"
