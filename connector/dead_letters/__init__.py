"""The room of dead letters: their documented format, how they are read, replayed and resolved.

What never enters: the decision that a record is refused. It was made in the room that knew, and a dead letter here
is what Kafka holds, with the original's key, value and headers byte for byte.
"""
