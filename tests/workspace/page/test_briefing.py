"""The button that writes the briefing of the current plan and shows it."""

import os

import pytest
from tests.reports.briefed_case import briefed_case
from tests.workspace.conftest import until


@pytest.fixture
def briefed(server, request):
    """A case with an approved plan."""
    pytest.importorskip("jinja2", reason="the extra `reports` is not installed")
    try:
        import weasyprint  # noqa: F401
    except OSError as error:
        if os.environ.get("CI"):
            pytest.fail(f"Pango is not installed: {error}")
        pytest.skip(f"Pango is not installed: {error}")
    name = f"P{abs(hash(request.node.nodeid)) % 10**12}"
    briefed_case(server.root / name)
    return name


def test_the_briefing_of_the_current_plan_is_written_and_shown_in_a_tab_of_its_own(opened, server, briefed):
    page = opened(briefed)
    page.page.click("[data-tab=Plan]")
    asked = []  # a browser without a viewer for PDF, as this one, downloads what the tab is sent to
    page.context.on("request", lambda request: asked.append(request.url))
    with page.context.expect_page() as shown:
        page.page.click("#briefing")
    with server.client() as http:

        def ended():
            jobs = http.get(f"/cases/{briefed}/jobs").json()["jobs"]
            return [j for j in jobs if j["kind"] == "briefing" and j["state"] not in ("waiting", "running")]

        (job,) = until(ended, what="the briefing")
        assert job["state"] == "done", job["error"]
        assert job["result"]["head"]["is_final"] and [f["name"] for f in job["files"]] == ["briefing.pdf"]
        address = f"/cases/{briefed}/jobs/{job['job']}/files/briefing.pdf"
        answer = http.get(address)
        assert answer.content.startswith(b"%PDF-") and answer.headers["Content-Type"] == "application/pdf"
        assert answer.headers["Content-Disposition"].startswith("inline")
    until(lambda: page.page.wait_for_timeout(50) or any(address in url for url in asked), what="the tab")
    assert not shown.value.is_closed()
    page.page.click("[data-tab=Work]")
    link = page.page.wait_for_selector(".job-done:has-text('Briefing') a:has-text('briefing.pdf')")
    assert address in link.get_attribute("href")


def test_what_hinders_the_briefing_is_said_and_no_empty_tab_stays(opened, server, case):
    """A case without a plan: Work offers the briefing all the same."""
    page = opened(case)
    page.page.click("[data-tab=Work]")
    with page.context.expect_page() as shown:
        page.page.click("[data-page=Work] .buttons button:has-text('Briefing')")
    page.page.wait_for_selector("#message:has-text('make a plan first')", timeout=60_000)
    until(shown.value.is_closed, what="the tab's end")
