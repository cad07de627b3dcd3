"""`connector init` writes a configuration and a test that are right once a person has replaced what is TODO."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from connector.codec.schemas import read_schema
from connector.vendors import kinds
from tests.unit.cli.test_mapping_commands import Shell

CORPUS = Path(__file__).parents[2] / "corpus"
TRADES = ("booking", "telemetry", "subscription", "order", "payment", "page_view", "shipment", "login", "empty")
VENDORS = ("jiguang", "mytracker", "quick_audience", "jpush_report")
ACCOUNTS = {
    **{f"JIGUANG_{name}": "1" for name in ("PROJECT_ID", "PROJECT_SECRET", "APP_KEY")},
    "MYTRACKER_ID_APP": "1",
    "MYTRACKER_TOKEN": "t",
    **{f"QUICK_AUDIENCE_{name}": "1" for name in ("APP_ID", "ACCESS_KEY", "ACCESS_SECRET", "ACCESS_ID")},
    "QUICK_AUDIENCE_BASE_URL": "https://qa.example.com",
    **{f"JPUSH_REPORT_{name}": "1" for name in ("APP_KEY", "MASTER_SECRET", "RESULTS_TOPIC")},
}


@pytest.fixture
def connector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A shell in an empty folder."""
    return Shell(tmp_path, monkeypatch, capsys)


def filled(text: str) -> str:
    """Return the configuration with each TODO replaced by a constant of its type, as a person would."""
    fields = {name: field for kind in kinds().values() for name, field in kind.fields.items()}
    values = {"long": 1, "millis": 1795168800000, "seconds": 1795168800}

    def constant(match: re.Match[str]) -> str:
        field = fields[match[1]]
        value = field.values[0] if field.values else values.get(field.type, "received")
        return f"{match[1]}: {{const: {value}}}"

    return re.sub(r"(\w+): TODO\b.*", constant, text)


@pytest.mark.slow
@pytest.mark.parametrize("trade", TRADES)
def test_what_is_written_passes_once_it_is_filled_in(
    connector: Shell, monkeypatch: pytest.MonkeyPatch, trade: str
) -> None:
    """For schemas of any trade: TODOs are refused by `check`; without them `check` and `test` pass."""
    connector.write("event.avsc", (CORPUS / f"{trade}.avsc").read_text(encoding="utf-8"))
    vendors = [word for name in VENDORS for word in ("--vendor", name)]
    ended = connector("init", "--topic", f"{trade}s", *vendors, "--schema", "event.avsc")
    assert (ended.code, ended.err) == (0, ""), ended.err
    written = (connector.folder / "connector.yaml").read_text(encoding="utf-8")
    for name, value in ACCOUNTS.items():
        assert value in ("1", "t") or name in written
        monkeypatch.setenv(name, value)
    if "TODO" in written.partition("fields:")[2]:
        ended = connector("check")
        assert ended.code == 2
        assert "has no field 'TODO'" in ended.err
    connector.write("connector.yaml", filled(written))
    ended = connector("check")
    assert ended.code == 0, ended.err + written
    ended = connector("test")
    assert ended.code == 0, ended.out + ended.err + written
    test = (connector.folder / f"{trade}s.test.yaml").read_text(encoding="utf-8")
    assert "part: {}" not in test.replace("part: {} # TODO", ""), test + ended.out


ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "acme",
    "fields": [
        {"name": "order_id", "type": "string"},
        {
            "name": "user",
            "type": {
                "type": "record",
                "name": "User",
                "fields": [
                    {"name": "id", "type": "long"},
                    {"name": "phone", "type": "string"},
                    {"name": "consent", "type": "boolean"},
                ],
            },
        },
        {"name": "email", "type": "string"},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "created_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}


def test_fields_are_mapped_by_name_and_meaning(connector: Shell) -> None:
    """User, time and id are found; required fields come first, the name is TODO, personal data is left out."""
    connector.write("order.avsc", json.dumps(ORDER))
    ended = connector("init", "--topic", "orders", "--vendor", "jiguang", "--schema", "order.avsc")
    assert "1. Replace 1 TODO in connector.yaml." in ended.out
    text = (connector.folder / "connector.yaml").read_text(encoding="utf-8")
    mapping = text.partition("jiguang:\n        ")[2]
    lines = [line.strip().partition(" #")[0] for line in mapping.splitlines()]
    assert lines == [
        *("cuid: user.id", "eventName: TODO", "itime: created_at", "properties:", "map:"),
        *("order_id: order_id", "total: total", "created_at: created_at"),
    ]
    assert "project_secret: ${JIGUANG_PROJECT_SECRET}" in text
    assert "    where: {user.consent: {not: true}}\n    to: []\n" in text
    assert "    id: order_id " in text
    test = (connector.folder / "orders.test.yaml").read_text(encoding="utf-8")
    assert "without consent nothing is sent" in test


BOOKING = {
    "type": "record",
    "name": "Booking",
    "namespace": "acme",
    "fields": [
        {"name": "bookingRef", "type": "string"},
        {
            "name": "guest",
            "type": {
                "type": "record",
                "name": "Guest",
                "fields": [
                    {"name": "guestId", "type": "long"},
                    {"name": "age", "type": "int"},
                    {"name": "marketingOptIn", "type": ["null", "boolean"]},
                ],
            },
        },
        {
            "name": "rooms",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Room",
                    "fields": [
                        {"name": "code", "type": "string"},
                        {"name": "beds", "type": "int"},
                        {"name": "note", "type": ["null", "string"]},
                    ],
                },
            },
        },
        {
            "name": "change",
            "type": [
                {"type": "record", "name": "Upgrade", "fields": [{"name": "plan", "type": "string"}]},
                {"type": "record", "name": "Cancel", "fields": [{"name": "reason", "type": "string"}]},
            ],
        },
        {
            "name": "card",
            "type": {"type": "record", "name": "Card", "fields": [{"name": "last4", "type": "string"}]},
        },
        {"name": "extras", "type": {"type": "array", "items": "string"}},
        {"name": "tags", "type": {"type": "map", "values": ["null", "string", "long"]}},
        {"name": "emailaddress", "type": "string"},
        {"name": "raw", "type": "bytes"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}


def test_lists_maps_and_records_are_attributes(connector: Shell) -> None:
    """Every value that is not about a person is mapped, in a form that the vendor takes; no consent is no event."""
    connector.write("booking.avsc", json.dumps(BOOKING))
    vendors = ("--vendor", "jiguang", "--vendor", "quick_audience", "--vendor", "mytracker")
    connector("init", "--topic", "bookings", *vendors, "--schema", "booking.avsc")
    text = (connector.folder / "connector.yaml").read_text(encoding="utf-8")
    written = yaml.safe_load(filled(text))["routes"]
    assert written[0]["where"] == {"guest.marketingOptIn": {"not": True}}, "null is no consent"
    assert written[1]["id"] == "bookingRef"
    same = {"bookingRef": "bookingRef", "change_plan": "change.plan", "change_reason": "change.reason", "at": "at"}
    lists = {"rooms_code": "rooms[].code", "extras": "extras"}
    as_json = {"rooms_beds": "rooms[].beds", "rooms_note": "rooms[].note"}
    assert written[1]["fields"]["jiguang"]["properties"] == {
        "base": "tags",
        "map": {**same, **lists, **{key: {"json": path} for key, path in as_json.items()}},
    }
    assert written[1]["fields"]["quick_audience"]["extendAttributes"] == {
        "base": "tags",
        "map": {**same, **{key: {"json": path} for key, path in {**lists, **as_json}.items()}},
    }
    params = written[1]["fields"]["mytracker"]["customEventParams"]
    assert params == {"base": "tags", "map": same}, "its values have at most 255 characters"


def test_check_warns_where_a_vendor_would_refuse_every_event(connector: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record or a list of numbers among Jiguang's properties is a warning, and a fault with `--strict`."""
    connector.write("booking.avsc", json.dumps(BOOKING))
    connector("init", "--topic", "bookings", "--vendor", "jiguang", "--schema", "booking.avsc")
    for name, value in ACCOUNTS.items():
        monkeypatch.setenv(name, value)
    text = filled((connector.folder / "connector.yaml").read_text(encoding="utf-8"))
    connector.write("connector.yaml", text)
    assert "would be refused" not in connector("check").err
    for source, rule in (("change", "properties.nested"), ("rooms[].beds", "properties.list")):
        connector.write("connector.yaml", text.replace("extras: extras", f'extras: "{source}"'))
        ended = connector("check")
        assert (ended.code, f"would be refused (jiguang.{rule})" in ended.err) == (0, True), ended.err
        assert connector("check", "--strict").code == 2


def test_nothing_is_overwritten_without_asking(connector: Shell) -> None:
    """A file that exists stops it with 2, without a terminal; --yes overwrites."""
    connector.write("order.avsc", json.dumps(ORDER))
    connector.write("connector.yaml", "mine")
    arguments = ("init", "--topic", "orders", "--vendor", "jiguang", "--schema", "order.avsc")
    ended = connector(*arguments)
    assert ended.code == 2
    assert ended.err == "connector.yaml exists; pass --yes to overwrite, or -c to write another file.\n"
    assert (connector.folder / "connector.yaml").read_text(encoding="utf-8") == "mine"
    assert not (connector.folder / "orders.test.yaml").exists()
    ended = connector(*arguments, "--yes", "--json")
    assert ended.code == 0
    assert json.loads(ended.out) == {
        "written": ["connector.schema.json", "connector.yaml", "orders.test.yaml"],
        "todos": 1,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vendor", "jiguan", "--schema", "order.avsc"], "unknown vendor 'jiguan'; did you mean jiguang?"),
        (["--vendor", "jiguang"], "Name the events' schema: --schema FILE, or --registry URL."),
        (["--vendor", "jiguang", "--schema", "no.avsc"], "--schema: no.avsc cannot be read"),
        (["--vendor", "jiguang", "--schema", "two.avsc"], "has 2 records at its top level; choose one with --record"),
        (["--vendor", "jiguang", "--schema", "order.avsc", "-c", "no/c.yaml"], "no is not a folder; create it first"),
    ],
)
def test_bad_usage_is_one_sentence(connector: Shell, arguments: list[str], message: str) -> None:
    """What cannot be used exits with 2 and says what to do."""
    connector.write("order.avsc", json.dumps(ORDER))
    records: list[Any] = [{"type": "record", "name": name, "fields": []} for name in ("A", "B")]
    connector.write("two.avsc", json.dumps(records))
    ended = connector("init", "--topic", "orders", *arguments)
    assert ended.code == 2
    assert message in ended.err


def test_one_record_of_a_union_can_be_named(connector: Shell) -> None:
    """`--record` chooses among the records of a union at the top of the file."""
    other = {"type": "record", "name": "acme.Other", "fields": [{"name": "user", "type": "acme.User"}]}
    connector.write("two.avsc", json.dumps([ORDER, other]))
    arguments = ("--topic", "o", "--vendor", "jiguang", "--schema", "two.avsc", "--record", "acme.Other")
    assert connector("init", *arguments).code == 0
    assert "schema: acme.Other" in (connector.folder / "connector.yaml").read_text(encoding="utf-8")


def test_samples_are_events_of_their_schemas() -> None:
    """The invented event of every record schema of the corpus can be encoded."""
    from connector.codec.from_json import encode_json  # noqa: PLC0415
    from connector.operations.schema_fields import sample_event  # noqa: PLC0415

    for file in sorted(CORPUS.glob("*.avsc")):
        schema = read_schema(file.read_text(encoding="utf-8"))
        if schema.name is not None:
            encode_json(schema.tree, sample_event(schema))
