"""The pages for the person on call: what is wrong, where, since when, what to do, and the dead letters.

Decisions about records are made elsewhere, by the pipeline and by replays. Everything shown comes from Kafka or from
vendors, so it is escaped and never treated as markup. Nothing is loaded from other hosts.
"""
