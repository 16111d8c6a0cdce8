"""What callers, models and receivers write, in every place of a job's page at once. Ids: docs/security.md."""

import json
from urllib.parse import urlsplit

from playwright.sync_api import Page
from tests.browser.conftest import Site, Visitor

EVIL = "https://evil.example"
HOSTILE = (
    f'"\'></textarea></pre></template></title><img src="{EVIL}/a.png" onerror="alert(1)"><script>alert(2)</script>'
    f'<svg onload="alert(3)"/><a href="javascript:alert(4)">x</a><iframe src="{EVIL}/f"></iframe><style>*{{display:none}}</style>'
    f"![a]({EVIL}/b.png) {EVIL}/c javascript:alert(5) {{{{7*7}}}} ${{7*7}} __proto__"
)
SHORT = "<img src=x onerror=alert(6)><a href=//evil.example>"
JOB = """
INSERT INTO llm_workflow_jobs (id, workflow_name, username, action, status, input_data, result, created_at, started_at, completed_at,
                               error_code, error_message, webhook_url, webhook_state, attempt, claims, debug_mode, request_id)
VALUES (gen_random_uuid(), $1::text, $2::text, $2::text, $3, $4::jsonb, $4::jsonb, now(), now(), now(), $5, $2::text, $6, 'retrying', 1, 1, true, $1::text)
RETURNING id::text
"""
CALL = """
INSERT INTO llm_calls (job_id, claim, step, provider, model, status, started_at, completed_at, error_code, error_message, prompt, answer)
VALUES ($1::uuid, 1, $2::text, $2::text, $3::text, 'failed', now(), now(), $2::text, $3::text, $4::jsonb, $3::text)
"""
DELIVERY = """
INSERT INTO llm_webhook_deliveries (job_id, webhook_id, event, state, tries) VALUES ($1::uuid, 'msg_' || $1::text, 'workflow.failed', 'retrying', 1)
"""
TRY = """
INSERT INTO llm_webhook_attempts (job_id, number, started_at, status_code, latency_ms, response, error) VALUES ($1::uuid, 1, now(), 500, 1, $2::text, $2::text)
"""
LEADS = """
() => [...document.querySelectorAll("[href], [src], [action], [srcset], [data], [poster], [background]")].flatMap(
  (element) => ["href", "src", "action", "srcset", "data", "poster", "background"]
    .filter((name) => element.hasAttribute(name)).map((name) => new URL(element.getAttribute(name), document.baseURI).href))
"""
MADE = "document.querySelectorAll('img, iframe, object, embed, video, audio, script:not([src]), style, svg[onload], base, meta[http-equiv]').length"


def insert(site: Site, status: str) -> str:
    nested = json.dumps({HOSTILE: [HOSTILE, {SHORT: HOSTILE}]})
    url = f"{EVIL}/{HOSTILE}"
    [[job_id]] = site.sql(JOB, SHORT, HOSTILE[:255], status, nested, SHORT[:50], url)
    site.sql(CALL, job_id, SHORT[:50], HOSTILE[:255], json.dumps([{"role": SHORT, "content": HOSTILE}]))
    site.sql(DELIVERY, job_id)
    site.sql(TRY, job_id, HOSTILE)
    return str(job_id)


def leads_away(page: Page, site: Site) -> list[str]:
    return [found for found in page.evaluate(LEADS) if urlsplit(found).netloc != urlsplit(site.url).netloc]


def test_s22_nothing_of_a_job_becomes_a_link_an_image_or_a_request(month: Site, visitor: Visitor) -> None:
    jobs = [insert(month, status) for status in ("failed", "completed", "processing")]
    page = visitor.open(month, "/admin/queue")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in [*(f"/admin/queue/{job_id}" for job_id in jobs), "/admin/queue?limit=Today"]:
        page.goto(month.url + path)
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        page.wait_for_load_state("networkidle")
        assert leads_away(page, month) == [], path
        assert page.evaluate(MADE) == 0, path
        shown = page.inner_text("main")
        assert "onerror=" in shown, path
        assert "49" not in [word for word in shown.split() if word in {"49", "$49"}], path
    assert [url for url in asked if urlsplit(url).netloc != urlsplit(month.url).netloc] == []
    assert visitor.complaints == []
    month.sql("DELETE FROM llm_workflow_jobs WHERE id = ANY($1::text[]::uuid[])", jobs)
