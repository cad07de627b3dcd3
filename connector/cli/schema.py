"""The command `connector schema`: the JSON Schema of the configuration, for editors and other tools."""

from __future__ import annotations

import json
import sys


def schema() -> None:
    """Print the JSON Schema of the configuration.

    Save it as connector.schema.json and begin the configuration with
    `# yaml-language-server: $schema=connector.schema.json`: the editor completes and checks keys.
    """
    from connector.config.reference import json_schema
    from connector.vendors import kinds

    known = json_schema({name: kind.settings for name, kind in kinds().items()})
    sys.stdout.write(json.dumps(known, ensure_ascii=False, indent=2) + "\n")
