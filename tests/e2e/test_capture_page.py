"""The page of a capture in a real browser: it is read, searched, and does nothing that the capture tells it to."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sandbox.capture.bundle import Bundle, BundleWriter, open_bundle
from sandbox.capture.model import Document, Item, QuotaLine, Service, Why
from sandbox.capture.report.page import page
from sandbox.store.store import Store
from tests.e2e.browser import Page, browser

AT = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
EVIL = "</pre></title><script>window.pwned = 1</script><img src=//evil.example/x onerror='window.pwned = 1'>"


def at(seconds: float) -> str:
    return (AT + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def crashed(folder: Path) -> Bundle:
    """A capture of a service that crashes and says hostile things, and of one that is well."""
    store = Store.open(str(folder))
    writer = BundleWriter(store)
    ended = {"startedAt": at(-40), "finishedAt": at(-35), "exitCode": 1, "reason": "Error"}
    orders = {
        "metadata": {"name": "orders-1-x", "ownerReferences": [{"kind": "ReplicaSet", "name": "orders-1"}]},
        "status": {
            "containerStatuses": [
                {
                    "name": "main",
                    "restartCount": 2,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": ended},
                }
            ]
        },
    }
    web = {
        "metadata": {"name": "web-1-y"},
        "status": {"containerStatuses": [{"name": "main", "state": {"running": {"startedAt": at(-3600)}}}]},
    }
    backing_off = {
        "type": "Warning",
        "reason": "BackOff",
        "message": f"Back-off restarting {EVIL}",
        "count": 7,
        "lastTimestamp": at(-10),
        "involvedObject": {"kind": "Pod", "name": "orders-1-x"},
    }
    replica_set = {
        "metadata": {
            "name": "orders-1",
            "creationTimestamp": at(-60),
            "ownerReferences": [{"kind": "Deployment", "name": "orders"}],
        }
    }
    files: dict[str, Any] = {
        "pods.json": {"items": [orders, web]},
        "events.json": {"items": [backing_off]},
        "objects/replicasets.apps.json": {"items": [replica_set]},
    }
    for revision, status, token in ((1, "superseded", "one"), (2, "failed", EVIL)):
        release = {"name": "orders", "revision": revision, "status": status, "updated": at(revision * 10 - 80)}
        files[f"helm/orders/{revision}/release.json"] = {**release, "chart": "orders", "chartVersion": "1"}
        files[f"helm/orders/{revision}/values.json"] = {"token": token}
    for title, contents in files.items():
        await writer.add(title, json.dumps(contents).encode(), "application/json")
    logs = {
        "logs/orders-1-x/main.previous.log.gz": f"{at(-36)} starting\n{at(-35)} FATAL no PAYMENT_URL\n{EVIL}\n",
        "logs/web-1-y/main.log.gz": "GET / 200\n\x1b[31mGET /payment_url 404\x1b[0m\nlone \u202e override\n",
    }
    for title, text in logs.items():
        await writer.add(title, gzip.compress(text.encode(), mtime=0), "application/gzip")
    item = Item(name="nodes.json", area="nodes", status="denied", why=f"forbidden {EVIL}", started_at=AT, ended_at=AT)
    why = Why(
        reason="CrashLoopBackOff",
        service="orders",
        object="pod/orders-1-x",
        pod="orders-1-x",
        container="main",
        exit_code=1,
        log_tail=("FATAL no PAYMENT_URL", EVIL),
    )
    entry = await writer.seal(
        Document(
            started_at=AT,
            ended_at=AT + timedelta(seconds=4),
            namespace="shop",
            reason=EVIL,
            command=("pytest", EVIL),
            findings=(why, why.model_copy(update={"service": EVIL, "object": ""})),
            services=(
                Service(name="orders", state="failed", desired=1, workloads=("deployment.apps/orders",)),
                Service(name="web", state="ready", ready=1, desired=1, changed=("images",), workloads=("pod/web-1-y",)),
                Service(name=EVIL, repo=f"javascript:{EVIL}"),
            ),
            quota=(QuotaLine(quota="q", resource="pods", used="9", hard="10"),),
            items=(item,),
            fixtures=({"name": EVIL, "kind": "postgresql", "status": "ok"},),
            tools={EVIL: EVIL},
            partial=True,
        )
    )
    return await open_bundle(store, entry)


async def search(shown: Page, box: str, text: str) -> None:
    await shown.evaluate(
        f"{{ const input = document.querySelector('#{box} input'); input.value = {json.dumps(text)};"
        " input.dispatchEvent(new Event('input')); }"
    )


async def test_the_page_is_read_searched_and_cannot_be_made_to_do_anything(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(await page(await crashed(tmp_path / "captures"), commands=(("Reproduce", f"sandbox {EVIL}"),)))
    async with browser(tmp_path / "profile") as shown:
        await shown.open(file)

        assert await shown.evaluate("document.querySelector('h1').textContent") == (
            "service orders · pod/orders-1-x, container main: CrashLoopBackOff (exit code 1)"
        )
        assert await shown.evaluate("document.querySelector('header pre').textContent") == (
            f"FATAL no PAYMENT_URL\n{EVIL}"
        )
        # The picture is really drawn: the crash, the wait for the next start, the warning on them.
        for kind in ("crashed", "waiting", "running", "rollout", "release", "warning"):
            wide = f"document.querySelector('svg .{kind}')?.getBoundingClientRect().width"
            assert await shown.evaluate(wide) > 0, f"{kind} is not drawn"
        assert await shown.evaluate("document.querySelector('svg .crashed title').textContent") == (
            "orders-1-x, container main: Error, exit code 1"
        )
        assert "+token: " in await shown.evaluate("document.querySelector('#changes + details').textContent")
        # Colours are gone, what turns text round is seen.
        assert await shown.evaluate("document.querySelectorAll('#logs pre')[1].textContent") == (
            "GET / 200\nGET /payment_url 404\nlone \\u202e override\n"
        )

        await search(shown, "search-logs", "Payment_URL")
        await shown.until("document.querySelector('#search-logs output').textContent === '2 found'", "two lines")
        assert await shown.evaluate("Array.from(document.querySelectorAll('#logs mark'), m => m.textContent)") == [
            "PAYMENT_URL",
            "payment_url",
        ]
        await search(shown, "search-logs", "<script>")
        await shown.until("document.querySelector('#search-logs output').textContent === '1 found'", "one line")
        assert await shown.evaluate("document.querySelectorAll('#logs details[hidden]').length") == 1
        await search(shown, "search-logs", "")
        await shown.until("document.querySelectorAll('#logs details[hidden]').length === 0", "all logs again")
        await search(shown, "search-events", "nothing like it")
        await shown.until("document.querySelectorAll('#events tbody tr[hidden]').length === 1", "no event")

        assert await shown.evaluate("typeof window.pwned") == "undefined"
        assert await shown.evaluate("document.querySelectorAll('img, script:not(:last-of-type), iframe').length") == 0
        assert shown.requests == [file.as_uri()]
        assert shown.said == []
        # Whatever got in could do nothing: the policy binds.
        await shown.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned=1\">')")
        assert any("Content Security Policy" in said for said in shown.said), shown.said
        assert await shown.evaluate("typeof window.pwned") == "undefined"
