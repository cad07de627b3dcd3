"""What the connector reports about itself: metrics, structured logs, and the redaction of both.

Every metric is defined once, in `metrics`. What never enters: a record's content, a secret, and a decision: nothing
here changes what happens to a record.
"""
