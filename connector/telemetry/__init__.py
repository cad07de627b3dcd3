"""What the connector reports about itself: metrics, structured logs, and the redaction of both.

Every metric is defined once, in `metrics`. Logs and metrics contain no record's content and no secret, and nothing here
changes what happens to a record.
"""
