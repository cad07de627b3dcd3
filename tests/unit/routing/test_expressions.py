"""Expressions: what they read and give, what is refused at start and for a record, and that none runs away."""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import hmac
import logging
import time
from datetime import UTC, datetime
from typing import Any

import cel
import pytest

from connector.errors import Refusal
from connector.records import DecodedKey, Event, LogicalType, LogicalValue, Record
from connector.routing.compiler import passed_on, reads_keys
from connector.routing.conversions import Unfit
from connector.routing.expressions import LONGEST, Expressions
from connector.routing.paths import SchemaTree
from connector.vendors import kinds
from tests.unit.routing.routes import FOREIGN, fields, refused, route, settings

RECORD = Record("orders", 0, 7, 1_700_000_000_999, b"k-7", b"", [("app", b"old"), ("app", b"shop"), ("none", None)])
ORDER: dict[str, Any] = {
    "order_id": "o-1",
    "user": {"id": 7, "phone": None, "email": "Ann@Example.COM"},
    "items": [{"sku": "a", "qty": 2}, {"sku": "b", "qty": 1}],
    "total": LogicalValue(LogicalType("decimal", 2), b"\x04\xd2"),
    "created_at": LogicalValue(LogicalType("timestamp-millis"), 1_700_000_000_000),
    "late": LogicalValue(LogicalType("timestamp-millis"), 2**62),
    "day": LogicalValue(LogicalType("date"), 1),
    "channel": "WEB",
    "body": ("com.shop.Card", {"last": "42"}),
    "raw": b"\x00",
}


def evaluated(text: str, datum: dict[str, Any] | None = None, key: DecodedKey | None = None) -> Any:
    """Return what an expression gives."""
    return Expressions().compile(text)(Event("com.shop.Order", ORDER if datum is None else datum, key), RECORD)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("event.channel + ':' + event.order_id", "WEB:o-1"),
        ("sum(event.items.map(i, i.qty))", 3),
        ("join(event.items.map(i, i.sku), ',')", "a,b"),
        ("event.items.filter(i, i.qty > 1)[0].sku", "a"),
        ("event.user.phone == null ? 'none' : event.user.phone", "none"),
        ("has(event.user.phone)", True),
        ("has(event.coupon)", False),
        ("event.total * 2.0", 24.68),
        ("string(event.total)", "12.34"),
        ("event.created_at > timestamp('2023-01-01T00:00:00Z')", True),
        ("event.created_at", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("event.late", 2**62),
        ("event.day", "1970-01-02"),
        ("event.body.last", "42"),
        ("lowerAscii(event.user.email)", "ann@example.com"),
        ("event.user.email.lowerAscii().split('@')[1]", "example.com"),
        ("event.user.email.matches('^Ann')", True),
        ("replace(event.channel, 'W', 'w')", "wEB"),
        ("sha256(event.order_id)", hashlib.sha256(b"o-1").hexdigest()),
        ("sha256(event.user.id)", hashlib.sha256(b"7").hexdigest()),
        ("hmac_sha256(event.order_id, 'pepper')", hmac.digest(b"pepper", b"o-1", "sha256").hex()),
        ("key + headers.app + topic", "k-7shoporders"),
        ("headers.none == null", True),
        ("timestamp / 1000", 1_700_000_000),
        ("{'a': event.items.size()}", {"a": 2}),
        ("event['order_id']", "o-1"),
        ("math.greatest(event.items[0].qty, 9)", 9),
    ],
)
def test_expressions(text: str, wanted: Any) -> None:
    """Concatenation, sums, conditions, string functions and hashes over all five variables."""
    assert evaluated(text) == wanted


def test_a_decoded_key_is_read_by_its_fields() -> None:
    """`key` is the record of a key that names a schema, and its fault refuses the record."""
    assert evaluated("key.id + 1", key=DecodedKey({"id": 6})) == 7
    with pytest.raises(Unfit, match="broken"):
        evaluated("key.id", key=DecodedKey(None, "broken"))


def test_the_event_is_converted_once_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several expressions read one conversion, which has the named fields only; the next record gets its own."""
    made: list[dict[str, Any]] = []
    real = cel.Context

    def context(variables: dict[str, Any], functions: dict[str, Any]) -> Any:
        made.append(variables)
        return real(variables=variables, functions=functions)

    monkeypatch.setattr(cel, "Context", context)
    expressions = Expressions()
    both = [expressions.compile(text) for text in ("event.order_id", "event.channel + topic")]
    for number in range(3):
        event = Event("com.shop.Order", ORDER | {"order_id": f"o-{number}"})
        assert [get(event, RECORD) for get in both] == [f"o-{number}", "WEBorders"]
    assert [set(each["event"]) for each in made] == [{"order_id", "channel"}] * 3
    assert [set(each) for each in made] == [{"event", "topic"}] * 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("event.order_id ==", "not a valid expression"),
        ("event.order_id + nope(1)", "there is no function nope"),
        ("sun([1])", "there is no function sun; did you mean sum?"),
        ("evnt.order_id", "there is no variable evnt; did you mean event?"),
        ("lists.range(9)", "there is no function range"),
        ("event.user.emial", "the record at user has no field 'emial'; did you mean email?"),
        ("event.items.map(i, i.sku) + even.x", "there is no variable even"),
        ("event.order_id.matches(event.channel)", "the pattern of matches must be written as a text"),
        ("event.order_id.matches('(x{1,50}){1,50}y')", "multiply to 2500"),
        ("'" + "x" * LONGEST + "'", "characters; allowed: 2,000"),
    ],
)
def test_faults_at_start(text: str, why: str) -> None:
    """Syntax, functions, variables, fields of a known schema and bounds are checked before the first record."""
    schema = {
        "type": "record",
        "name": "Order",
        "fields": [
            {"name": "order_id", "type": "string"},
            {"name": "channel", "type": "string"},
            {
                "name": "items",
                "type": {
                    "type": "array",
                    "items": {"type": "record", "name": "Item", "fields": [{"name": "sku", "type": "string"}]},
                },
            },
            {
                "name": "user",
                "type": {"type": "record", "name": "User", "fields": [{"name": "email", "type": "string"}]},
            },
        ],
    }
    with pytest.raises(ValueError, match=".") as caught:
        Expressions().compile(text, SchemaTree(schema))
    assert why in str(caught.value)


def test_without_the_extra_the_fault_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration with an expression, without the library, says what to install."""
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "cel":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.delitem(__import__("sys").modules, "cel")
    monkeypatch.setattr("importlib.import_module", without)
    with pytest.raises(ValueError, match=r"connector\[expressions\]"):
        Expressions().compile("1 + 1")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("event.nowhere", "a name that is not there"),
        ("event.items[9].sku", "an index past the end of a list"),
        ("event.user.id + 1.0", "convert with int(…), double(…) or string(…)"),
        ("event.user.id / 0", "a division by zero"),
        ("int(event.user.email)", "a function that cannot take its arguments"),
        ("string(bool(event.user.email))", "a function that cannot take its arguments"),
        ("{'a': 1}[event.user.email]", "a name that is not there"),
        ("sha256(event.user.phone)", "a function that cannot take its arguments"),
        ("event.user.id + 9223372036854775807", "a number of over 64 bits"),
        ("event.raw + 'a'", "types that cannot be combined"),
    ],
)
def test_a_failing_expression_refuses_its_record(
    text: str, why: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The refusal has the field and the expression, and no value of the record; neither does a log or an output."""
    with caplog.at_level(logging.DEBUG):
        (found,) = route(
            [{"schema": FOREIGN, "to": ["a"], "fields": {"alpha": {"cuid": {"cel": text}}}}],
            Event(FOREIGN, ORDER),
            RECORD,
        )
    refusal = refused(found)
    assert (refusal.cause, refusal.code, refusal.field) == ("invalid", "mapping.cuid.cel", "cuid")
    assert why in refusal.message
    assert text in refusal.message
    for shown in (refusal.message, caplog.text, *capfd.readouterr()):
        assert "Example" not in shown


def test_the_key_of_an_hmac_is_in_no_message() -> None:
    """A secret that was resolved into an expression is hidden where the expression is shown."""
    with pytest.raises(Unfit, match="hmac_sha256") as caught:
        evaluated("hmac_sha256(event.nowhere, 'pepper-and-salt')")
    assert "pepper" not in caught.value.why
    with pytest.raises(ValueError, match="not a valid expression") as invalid:
        Expressions().compile("hmac_sha256(event.a, 'pepper-and-salt'")
    assert "pepper" not in str(invalid.value)


@pytest.mark.parametrize(
    "text",
    [
        "event.items.map(i, i.qty)",
        "event.items.filter(i, i.qty >= 0)",
        "event.items.all(i, event.items.all(j, j.qty >= 0))",
        "event.items.map(i, event.items)",
        "event.items.map(i, event.text)",
        "event.items.map(i, event.items.map(j, event.items))",
        "event.items.map(i, [i, i, i]).map(i, [i, i, i]).map(i, [i, i, i]).size()",
        "(event.items + event.items + event.items + event.items).map(i, i).size()",
        "split(event.text, '').map(i, i).size()",
        "replace(event.text, '', event.text)",
        "event.items.all(i, event.text.matches('(x{1,9}){1,9}y'))",
        "+".join(["event.text"] * 60),
    ],
)
@pytest.mark.parametrize(("count", "length"), [(40, 500), (150, 2000), (1500, 0), (0, 50_000), (10, 900_000)])
def test_no_expression_runs_away(text: str, count: int, length: int) -> None:
    """Whatever the record, an evaluation ends within a second of processor time, or is refused before it begins.

    Kills: a cost without the element's copies, without the square of growing lists.
    """
    datum = {"items": [{"sku": "s" * 20, "qty": each} for each in range(count)], "text": "x" * length}
    evaluate = Expressions().compile(text)
    began = time.process_time()
    with contextlib.suppress(Unfit):
        evaluate(Event("x", datum), RECORD)
    assert time.process_time() - began < 1


def test_a_usual_order_is_not_too_large() -> None:
    """An order of a hundred lines passes the estimate in each usual expression."""
    datum = {"items": [{"sku": "s" * 20, "qty": 1, "price": 2.5} for _ in range(100)]}
    assert evaluated("sum(event.items.map(i, i.qty))", datum) == 100
    assert evaluated("sum(event.items.map(i, double(i.qty) * i.price))", datum) == 250
    assert len(evaluated("event.items.map(i, i.sku + ':' + string(i.qty))", datum)) == 100
    assert evaluated("event.items.exists(i, i.sku == 'x')", datum) is False


def test_what_expressions_read_is_decoded() -> None:
    """Keys and the maps that vendors take as JSON are decoded where an expression reads them."""
    used = {"a": "jiguang"}
    known = {("connector.events.JiguangUserEvent", "properties")}
    for text, is_passed_on, keys in (
        ("event.cuid > 5", True, False),
        ("event.properties.x == 1", False, False),
        ("event['properties'].x == 1", False, False),
        ("key.id == 5 && 'event' != ''", True, True),
    ):
        made = settings([{"where": {"cel": text}, "to": []}], used)
        assert (passed_on(made, kinds()) >= known) is is_passed_on
        assert reads_keys(made) is keys


def test_results_are_converted_as_any_value() -> None:
    """What an expression gives becomes the field's kind, or refuses."""
    routes = [{"schema": FOREIGN, "to": ["a"], "fields": {"alpha": {"cuid": {"cel": "event.user.id * 2"}}}}]
    assert fields(route(routes, Event(FOREIGN, ORDER), RECORD)[0])["cuid"] == 14
    routes[0]["fields"]["alpha"]["cuid"] = {"cel": "event.items"}  # type: ignore[index]
    assert refused(route(routes, Event(FOREIGN, ORDER), RECORD)[0]).code == "mapping.cuid.type"
    with pytest.raises(Refusal, match="true or false"):
        route([{"where": {"cel": "event.channel"}, "to": ["a"]}], Event(FOREIGN, ORDER), RECORD)
