"""Avro and the schema registry: wire formats, schemas, the compiled reader, and how a value is edited.

The only package that uses fastavro and the registry client. Bytes and headers come in; an event, a refusal or "the
schema is not known yet" goes out. It knows no consumer, producer, vendor or route.
"""
