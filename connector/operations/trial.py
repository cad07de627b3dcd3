"""Tries each route on an invented event of its schema: what the vendor's rules about types would refuse always."""

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
"""Ends of the ids of rules that an event breaks by its type; whether it breaks others depends on its values."""


def refused_types(loaded: Loaded) -> Iterator[ConfigFault]:
    """Yield the routes of which a vendor would refuse every event; only those whose schema is in `schemas.files`."""
    own = {schema.name: schema for schema in own_schemas(loaded)} if loaded.settings.schemas.files else {}
    for index, route in enumerate(loaded.settings.routes):
        schema = own.get(route.schema_name)
        if schema is not None and route.to and schema.tree.get("type") in RECORDS:
            yield from _tried(loaded, index, route, schema)


def _tried(loaded: Loaded, index: int, route: RouteSettings, schema: Schema) -> Iterator[ConfigFault]:
    # Alone and without conditions, so that whatever the invented values are it takes this route.
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
