"""The room that takes one batch to its final outcome: retry, holds, pacing, isolation, storms, and the transport.

The decisions are pure; `worker` runs them for one destination, `transport` sends bytes. What never enters: Kafka,
offsets, and any vendor's name: a verdict is all that this room knows of an answer.
"""
