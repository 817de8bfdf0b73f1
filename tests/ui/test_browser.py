"""What a person sees in the UI, in a real browser. The pictures go to the folder that TSDS_SCREENSHOTS names."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.dev_server import TASK_ASSETS
from tests.ui.conftest import PICTURES

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# More groups would be drawn so small that they have no names; what is outside the window is not drawn at all.
GRAPH = "/asset-groups?expanded=" + ",".join(f"global@global:{g}" for g in ("inputs", "candidates", "tasks"))
ASSETS = ("candidate_corpus", "faiss_index", "kde_densities", "query_neighbors", "sampled_subset")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = Path(PICTURES or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def page(server) -> Iterator[Page]:
    assert CHROMIUM, "no Chromium: `make test-ui` installs it on Debian and Ubuntu"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1400}, base_url=server.url)
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield page
        browser.close()


def picture(page: Page, path: Path) -> None:
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)  # animations
    page.screenshot(path=path)
    assert path.stat().st_size > 20_000, "not a blank page"


def test_the_asset_graph(page, pictures):
    page.goto(GRAPH)
    for asset in ASSETS:
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    for group in ("inputs", "candidates", "tasks"):
        expect(page.get_by_text(group, exact=True).first).to_be_visible()
    picture(page, pictures / "asset-graph.png")


def test_the_partitions_of_an_asset_and_why_one_was_made(page, pictures):
    page.goto("/assets/sampled_subset?view=partitions&partition=graphs")
    expect(page.get_by_text("Materialized", exact=True).first).to_be_visible()
    for task in ("graphs", "linear-algebra", "strings"):
        expect(page.get_by_text(task, exact=True).first).to_be_visible()
    expect(page.get_by_text("made_because")).to_be_visible()
    picture(page, pictures / "partitions.png")


def test_a_run_of_many_partitions(page, pictures, server):
    """That of `tsds demo`: it succeeded, and tells what it made."""
    first = next(run for run in server.runs() if "tsds/refresh" in run["tags"] and not run["assets"])
    page.goto(f"/runs/{first['runId']}")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    expect(page.get_by_text("RUN_SUCCESS", exact=True).first).to_be_visible()
    expect(page.get_by_text("made_because").first).to_be_visible()
    picture(page, pictures / "run-of-many.png")


def test_columns_are_described(page, pictures):
    page.goto("/assets/sampled_subset?view=overview")
    expect(page.get_by_text("nearest_query", exact=True).first).to_be_visible()
    expect(page.get_by_text("Description").first).to_be_visible()
    expect(page.get_by_text("Automation details")).to_be_visible()
    picture(page, pictures / "columns.png")


def test_a_check_says_what_to_do(page, pictures):
    page.goto("/assets/candidate_corpus?view=checks")
    expect(page.get_by_text("readable", exact=True).first).to_be_visible()
    page.get_by_text("readable", exact=True).first.click()
    expect(page.get_by_text("mend the files").first).to_be_visible()
    expect(page.get_by_text("Passed").first).to_be_visible()
    picture(page, pictures / "check.png")


def test_the_pictures_of_a_report(page, pictures):
    page.goto("/assets/selection_report?view=partitions&partition=graphs")
    row = page.get_by_text("picture_map", exact=True).locator("xpath=ancestor::tr")
    row.get_by_text("Show Markdown").click()
    image = page.locator("img[src^='data:image/png']")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.complete && image.naturalWidth") == 720
    picture(page, pictures / "report-in-ui.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_report(page, pictures, server, scheme):
    """It works without the network, says nothing to the console, and takes the colours of the browser."""
    complaints, asked = [], []
    report = page.context.browser.new_page(viewport={"width": 1000, "height": 1250}, color_scheme=scheme)
    report.context.set_offline(True)
    report.on("console", lambda message: complaints.append(message.text))
    report.on("pageerror", lambda error: complaints.append(str(error)))
    report.on("request", lambda request: asked.append(request.url))
    report.goto(f"file://{server.root}/reports/graphs.html")
    expect(report.get_by_role("heading", name="Is it a good selection?")).to_be_visible()
    assert report.locator("svg").count() == 5
    background = report.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 23, 26)"}[scheme]
    assert report.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert complaints == []
    picture(report, pictures / f"report-{scheme}.png")
    if scheme == "light":
        report.locator("#map").scroll_into_view_if_needed()
        report.screenshot(path=pictures / "report-map.png", clip=_around(report, "#map"), full_page=True)
        report.pdf(path=pictures / "report.pdf")
        assert (pictures / "report.pdf").stat().st_size > 50_000
    report.close()


def _around(page: Page, selector: str) -> dict[str, float]:
    """Where the element is on the whole page."""
    return page.locator(selector).evaluate(
        "e => { const r = e.getBoundingClientRect(); "
        "return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height}; }"
    )


def test_sensors_and_schedules_are_running(page, pictures):
    page.goto("/automation")
    for name in (
        "alerts",
        "automation",
        "automation_of_many",
        "project_inputs",
        "nightly_refresh",
        "fresh_samples",
    ):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    picture(page, pictures / "automation.png")


def test_a_backfill(page, pictures, backfill):
    page.goto(f"/runs/b/{backfill.id}?tab=overview")
    for asset in TASK_ASSETS:
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    expect(page.get_by_text("Succeeded", exact=True).first).to_be_visible()
    picture(page, pictures / "backfill.png")
