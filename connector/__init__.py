"""A connector from Kafka to vendors' HTTP APIs: Avro events in, accepted batches out, nothing lost between."""

from typing import Final

__version__: Final = "0.1.0"
