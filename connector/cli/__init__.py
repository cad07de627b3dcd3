"""The commands: one file per command, with its arguments and its output.

A command does no work itself. It reads its arguments, makes one call into `operations`, `runtime` or `demo`, prints the
result as a table or as JSON Lines, and exits with 0 (done), 1 (failed) or 2 (bad usage or configuration).
"""
