"""The demonstration: an embedded broker, simulated vendors, a producer with bad records, and the real connector.

It shows progress while it runs and checks the totals against the simulators' logs. Production needs none of it.
"""
