"""Avro and the schema registry: wire formats, schemas, the compiled reader, and how a value is edited.

All of fastavro and the registry client is used here. What never enters: a consumer, a producer, a vendor or a route.
Bytes and headers come in, an event, a refusal or "the schema is not known yet" goes out.
"""
