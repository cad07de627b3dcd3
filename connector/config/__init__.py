"""The configuration: one YAML file, read into frozen models; every fault at once, each with its path.

One definition of the settings gives parsing, defaults, faults, the reference page and the chart's schema. What never
enters: Kafka, a request, or anything else that needs a running system to be checked.
"""

from connector.config.loader import DestinationSettings, DocumentedLimits

__all__ = ["DestinationSettings", "DocumentedLimits"]
"""What a vendor of another distribution builds its settings on."""
