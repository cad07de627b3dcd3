"""The page for the person on call: what is wrong, where, since when, what to do, and the dead letters to do it with.

What never enters: decisions about records, which the pipeline has made or the replayer makes, and anything of other
hosts. All that is shown came from Kafka or from vendors and is text to be escaped, never markup.
"""
