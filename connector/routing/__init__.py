"""Routes events to destinations and maps their fields, by the compiled routes.

Pure: takes an event and its record, and returns deliveries or a refusal. Knows neither Kafka nor Avro bytes, batches or
vendors' rules about values.
"""
