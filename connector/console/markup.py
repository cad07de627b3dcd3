"""HTML and SVG built of calls: every text is escaped where it is put in, so no page can forget to. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final, TypeAlias

Attribute: TypeAlias = "str | int | float | bool | None"
Child: TypeAlias = "Html | str | int | Iterable[Child] | None"

_VOID: Final = frozenset({"input", "meta", "link"})
"""HTML's elements without an end; SVG's all have one."""


class Html(str):
    """Markup that is safe already: `tag` made it."""

    __slots__ = ()


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """Return an element. A None child or attribute is left out, True stands alone.

    `class_` and `for_` are the attributes that Python reserves; `data_x` becomes `data-x`.
    """
    opened = "".join([f"<{name}", *(_attribute(key, value) for key, value in attributes.items()), ">"])
    return Html(opened) if name in _VOID else Html(f"{opened}{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Html:
    """Return children one after the other, those that are no markup escaped."""
    return Html("".join(map(_text, children)))


def document(title: str, head: Child, body: Child) -> str:
    """Return a whole page."""
    whole = tag("html", tag("head", tag("meta", charset="utf-8"), head, tag("title", title)), body, lang="en")
    return f"<!doctype html>{whole}"


def _text(child: Child) -> str:
    if isinstance(child, Html):
        return child
    if child is None:
        return ""
    if isinstance(child, str | int):
        return escape(str(child))
    return join(child)


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escape(f"{value:g}" if isinstance(value, float) else str(value))}"'
