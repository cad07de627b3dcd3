"""What every page has: head, navigation, the state of things in one line, and small parts that pages share. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from connector.console.index import Query
from connector.console.markup import Child, Html, document, tag
from connector.console.words import moment

ACTIONS: Final = {"recheck": "Re-check", "replay": "Replay", "discard": "Discard", "export": "Export"}
"""What can be done with letters, and how a button says it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a page needs to know of its surroundings. `now` is epoch seconds, `ill` how many destinations are held."""

    group: str
    now: float
    csrf: str
    who: str | None
    ill: int = 0
    open_dead_letters: int = 0
    running: int = 0


def page(frame: Frame, title: str, current: str, *content: Child, live: int | None = None) -> str:
    """Return a whole page; `live` is after how many seconds it is drawn again by itself."""
    head = [
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="stylesheet", href="/static/console.css"),
        tag("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        tag("script", src="/static/console.js", defer=True),
    ]
    main = tag("main", *content, id="main", data_live=live)
    body = tag("body", tag("a", "Skip to the content", href="#main", class_="skip"), _header(frame, current), main)
    return document(f"{title} · {frame.group}", head, body)


def plain_page(title: str, *content: Child) -> str:
    """Return a page without navigation: for those who have not signed in."""
    head = [
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="stylesheet", href="/static/console.css"),
        tag("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
    ]
    return document(title, head, tag("body", tag("main", *content, id="main", class_="narrow")))


def _header(frame: Frame, current: str) -> Html:
    links: list[Child] = []
    for address, name, number, kind in (
        ("/", "Overview", frame.ill, "bad"),
        ("/letters", "Dead letters", frame.open_dead_letters, "some"),
        ("/jobs", "Actions", frame.running, "some"),
    ):
        badge = tag("span", f"{number:,}", class_=f"badge {kind}") if number else None
        links.append(tag("a", name, badge, href=address, aria_current="page" if address == current else None))
    out = None
    if frame.who is not None:
        leave = tag("button", f"Sign out {frame.who}", class_="link")
        out = tag("form", hidden("csrf", frame.csrf), leave, method="post", action="/sign-out")
    return tag(
        "header",
        tag("span", tag("span", class_="mark"), frame.group, class_="brand"),
        tag("nav", *links, aria_label="Pages"),
        tag("span", tag("time", f"{moment(frame.now, '%H:%M:%S')} UTC", id="clock"), out, class_="right"),
    )


def hidden(name: str, value: str) -> Html:
    """Return a hidden field of a form."""
    return tag("input", type="hidden", name=name, value=value)


def chip(text: str, kind: str) -> Html:
    """Return a small label with a colour: bad, warn, good, calm, or one of the causes'."""
    return tag("span", text, class_=f"chip {kind}")


def notice(kind: str, *content: Child) -> Html:
    """Return a line that says that something is not as it should be."""
    return tag("p", *content, class_=f"notice {kind}", role="status")


def code(text: str | None) -> Html:
    """Return a code or an id; a dash where there is none."""
    return tag("code", text) if text else tag("span", "–", class_="dim")


def address(path: str, query: Query, **more: str | int | None) -> str:
    """Return a path with a query's filters."""
    return f"{path}?{urlencode([*fields(query), *((key, str(value)) for key, value in more.items() if value)])}"


def fields(query: Query) -> list[tuple[str, str]]:
    """Return a query as the fields of an address or a form; `read_query` reads them."""
    found = list(query.where)
    if query.key is not None:
        found.append(("key", query.key))
    found += [(name, time_field(at)) for name, at in (("since", query.since), ("until", query.until)) if at is not None]
    if query.resolved:
        found.append(("all", "1"))
    return [*found, *(("id", one) for one in sorted(query.ids))]


def time_field(millis: int) -> str:
    """Return epoch milliseconds as an address carries them: UTC, to the millisecond where there are any."""
    text = moment(millis // 1000, "%Y-%m-%dT%H:%M:%S")
    return f"{text}.{millis % 1000:03}" if millis % 1000 else text


def table(head: Sequence[Child], rows: Sequence[Child], *, label: str, class_: str = "") -> Html:
    """Return a table that scrolls by itself where it is too wide."""
    titles = tag("tr", *(tag("th", each, scope="col") for each in head))
    whole = tag("table", tag("thead", titles), tag("tbody", *rows), class_=class_ or None, aria_label=label)
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=label)
