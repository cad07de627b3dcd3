"""Kafka: consumer, producers, readers, topics and groups.

The only package that uses confluent-kafka's clients. It turns messages into records and carries out the commits that
the pipeline decides on. It knows no vendor and no HTTP.
"""
