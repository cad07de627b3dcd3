"""Which destinations an event goes to, and as what: the routes, compiled once, and the mapping of fields.

Pure: an event and its position in, targets or a refusal out. What never enters: Kafka, Avro bytes, batches, vendors'
rules about values.
"""
