"""Dead letters: their documented format, and how they are written, read, replayed and discarded.

The decision to refuse a record is not made here but in the package that read or sent it. A dead letter is a Kafka
record with the original's key, value and headers, byte for byte.
"""
