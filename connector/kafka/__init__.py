"""The room of Kafka and Avro: consumer, producer, topics, wire formats and the schema registry.

All of confluent-kafka and fastavro is used here and nowhere else. What never enters: a vendor, an HTTP request to
one, the decision what may be committed. This room reads records, gives them as values and does the commits it is told.
"""
