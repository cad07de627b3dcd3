"""What commands and the console do, without printing: explain, offsets, preview, samples, dead letters, replay.

Each module connects Kafka, the registry and the configured routes for one operation and returns values. Nothing here
prints, writes HTML, or uses the running pipeline's state, which belongs to `runtime`.
"""
