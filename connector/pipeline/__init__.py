"""The room between a record and its commit: routing, lanes, batches, offsets and their map, pausing and resuming.

Its parts are pure and take `now` as a value; `runner` alone is asyncio and wires them. What never enters:
confluent-kafka, an HTTP client, a vendor's rule. Kafka and delivery reach the runner as protocols.
"""
