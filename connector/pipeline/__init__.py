"""Between a record and its commit: intake, batches, storms, skips, offsets and their map, pausing and resuming.

Most modules are pure and take `now` as a value. `runner` owns the consumer and calls the others in turn. What never
enters: confluent-kafka, an HTTP client, a vendor's rule. Kafka and delivery reach the runner as protocols.
"""
