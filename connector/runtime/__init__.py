"""One running member: builds the packages, wires one pipeline, serves its port, watches the loop, drains and stops.

`app` is the composition root: only it passes Kafka, codec and transport to the pipeline as protocols. Decisions about
records and answers are made in the packages below, and printing is done by the commands.
"""
