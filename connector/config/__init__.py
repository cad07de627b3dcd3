"""The configuration: one YAML file, read into frozen models; every fault at once, each with its path.

One definition of the settings gives parsing, defaults, faults, the reference page and the chart's schema. Nothing here
needs Kafka, HTTP or any other running system.
"""

from connector.config.loader import DestinationSettings, DocumentedLimits

__all__ = ["DestinationSettings", "DocumentedLimits"]
"""The names that a vendor in another distribution needs for its settings."""
