"""Between a record and its commit: intake, batches, storms, skips, offsets and their map, pausing and resuming.

Most modules are pure and take `now` as a value. `runner` owns the consumer and calls the others in turn. This package
uses neither confluent-kafka nor HTTP, and knows no vendor's rules. The runner gets Kafka and delivery as protocols.
"""
