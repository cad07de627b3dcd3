"""A connector from Kafka to vendors' HTTP APIs: it consumes Avro events, delivers them in batches, and loses none."""

__version__ = "0.1.0"
