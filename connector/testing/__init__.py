"""Public stand-ins for what the connector talks to: an embedded Kafka broker, simulators of the vendors, a manual clock.

They serve the project's own tests, the demo, and people who try their own pipeline. The simulators are written from the
vendors' documents and share no code with `connector.vendors`, so that a wrong reading on one side cannot hide on the other.
Nothing that runs in production enters this room.
"""
