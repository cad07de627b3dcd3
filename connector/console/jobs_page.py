"""What was asked of the console and how far it is. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from connector.console.frame import ACTIONS, Frame, address, chip, code, hidden, notice, page, table
from connector.console.jobs import Job
from connector.console.markup import Child, Html, tag
from connector.console.words import duration, moment, plural

_KIND = {"running": "warn", "done": "good", "failed": "bad", "stopped": "calm"}
_DONE = {"recheck": "would be accepted", "replay": "replayed", "discard": "discarded", "export": "exported"}


def render_all(frame: Frame, jobs: Sequence[Job]) -> str:
    """Return the list of all jobs that are remembered."""
    rows = [
        tag(
            "tr",
            tag("td", tag("a", f"{ACTIONS[job.action]} {job.number}", href=f"/jobs/{job.number}")),
            tag("td", chip(job.state, _KIND[job.state])),
            tag("td", f"{job.done:,}", class_="number"),
            tag("td", f"{job.kept_back:,}", class_="number"),
            tag("td", f"{moment(job.started)} UTC", class_="nowrap"),
            tag("td", job.who),
        )
        for job in jobs
    ]
    head = ["Action", "State", "Done", "Kept back", "Began", "Who"]
    listed = table(head, rows, label="Actions") if rows else tag("p", "Nothing was done since the console started.")
    live = 2 if any(job.state == "running" for job in jobs) else None
    return page(frame, "Actions", "/jobs", tag("h1", "Actions"), listed, live=live)


def render(frame: Frame, job: Job) -> str:
    """Return one job: how far it is, what it did, what it kept back and why."""
    running = job.state == "running"
    took = duration((job.ended or frame.now) - job.started)
    said = f"{job.done:,} of {plural(job.expected, 'dead_letter')} {_DONE[job.action]}"
    kept = f", {job.kept_back:,} kept back" if job.kept_back else ""
    progress = tag(
        "progress",
        max="1",
        value=None if job.share is None else f"{job.share:.3f}",
        aria_label=f"{ACTIONS[job.action]} under way" if running else "done",
    )
    return page(
        frame,
        f"{ACTIONS[job.action]} {job.number}",
        "/jobs",
        tag("h1", f"{ACTIONS[job.action]} {job.number} ", chip(job.state, _KIND[job.state])),
        tag("p", progress, class_="progress"),
        tag("p", f"{said}{kept}. ", f"By {job.who}, {moment(job.started)} UTC, {took}.", role="status"),
        None if job.trouble is None else notice("warn" if job.state == "failed" else "calm", job.trouble),
        _download(job),
        _stop(frame, job) if running else None,
        _kept(job),
        tag("p", tag("a", "Back to these dead letters", href=address("/letters", job.query))),
        live=1 if running else None,
    )


def _download(job: Job) -> Child:
    if job.action != "export" or job.state != "running" or job.done:
        return None
    link = tag("a", "Save the file", href=f"/jobs/{job.number}/file", class_="button main", download=True, data_go=True)
    return tag("p", link)


def _stop(frame: Frame, job: Job) -> Html:
    button = tag("button", "Stop it", class_="plain")
    return tag("form", hidden("csrf", frame.csrf), button, method="post", action=f"/jobs/{job.number}/stop")


def _kept(job: Job) -> Child:
    """Return why letters were kept back, each reason with some of them."""
    if not job.kept:
        return None
    rows = []
    for reason in sorted(job.kept.values(), key=lambda one: -one.dead_letters):
        links = [part for one in reason.examples for part in (tag("a", one[:8], href=f"/letters/{one}"), " ")]
        rows.append(
            tag(
                "tr",
                tag("td", f"{reason.dead_letters:,}", class_="number"),
                tag("td", code(reason.code)),
                tag("td", reason.reason, class_="advice"),
                tag("td", *links),
            )
        )
    title = "Would fail again" if job.action == "recheck" else "Kept back"
    return tag("section", tag("h2", title), table(["Letters", "Rule", "Why", "Such as"], rows, label=title))
