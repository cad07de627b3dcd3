"""Takes one batch to its final outcome: retries, holds, pacing, isolation, and the transport.

The decisions are pure; `worker` runs them for one destination, `transport` sends bytes. What never enters: Kafka,
offsets, and any vendor's name: a verdict is all that this package knows of an answer.
"""
