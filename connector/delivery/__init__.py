"""Takes one batch to its final outcome: retries, holds, pacing, isolation, and the transport.

The decisions are pure. `worker` carries them out for one destination, and `transport` sends bytes. This package knows
neither Kafka nor offsets nor any vendor: of an answer it knows the verdict only.
"""
