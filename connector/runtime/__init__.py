"""One running member: builds the packages, wires one pipeline, serves its port, watches the loop, drains and stops.

`app` is the composition root: it alone passes Kafka, codec and transport to the pipeline as protocols. What never
enters: decisions about a record or an answer, which are made below, and anything that a command prints.
"""
