"""A connector from Kafka to vendors' HTTP APIs: Avro events in, accepted batches out, nothing lost between."""

__version__ = "0.1.0"
