"""Tries each route with an invented event of its schema, to find what a vendor's type rules would always refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

from connector.codec.schemas import RECORDS, Schema, own_schemas
from connector.config.loader import Loaded, RouteSettings
from connector.errors import ConfigFault, ConnectorError
from connector.operations.offline import Offline, WrittenEvent
from connector.operations.schema_fields import TEST_TIME, sample_event

_OF_TYPES: Final = (".type", ".nested", ".list")
"""How the ids of rules end that depend on a field's type only. Whether other rules are broken depends on the values."""


def refused_types(loaded: Loaded) -> Iterator[ConfigFault]:
    """Yield the routes whose every event a vendor would refuse, if their schema is in `schemas.files`."""
    own = {schema.name: schema for schema in own_schemas(loaded)} if loaded.settings.schemas.files else {}
    for index, route in enumerate(loaded.settings.routes):
        schema = own.get(route.schema_name)
        if schema is not None and route.to and schema.tree.get("type") in RECORDS:
            yield from _tried(loaded, index, route, schema)


def _tried(loaded: Loaded, index: int, route: RouteSettings, schema: Schema) -> Iterator[ConfigFault]:
    # Compiled alone and without conditions, so that the event takes this route whatever its invented values.
    alone = route.model_copy(update={"where": {}, "sample": None})
    offline = Offline(replace(loaded, settings=loaded.settings.model_copy(update={"routes": [alone]})))
    topic = next((name for name in route.topics or () if not name.startswith("^")), None)
    with suppress(ConnectorError):  # an event that cannot be invented shows nothing
        found = offline.inspect(WrittenEvent(sample_event(schema), topic, schema.name, time=TEST_TIME))
        for each in found.preparations:
            if each.rule is not None and each.rule.endswith(_OF_TYPES):
                vendor, field = loaded.settings.destinations[each.destination].vendor, each.rule.split(".")[1]
                message = f"events like an invented one would be refused ({each.rule}): {each.reason}"
                yield ConfigFault(f"routes[{index}].fields.{vendor}.{field}", message)
