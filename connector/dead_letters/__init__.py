"""Dead letters: their documented format, and how they are written, read, replayed and discarded.

What never enters: the decision to refuse a record, which belongs to the package that read or sent it. A dead letter
here is a Kafka record with the original's key, value and headers, byte for byte.
"""
