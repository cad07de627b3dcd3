"""The commands: one file a command, with its arguments and what it prints.

What never enters: work. A command reads its arguments, makes one call into `operations`, `runtime` or `demo`, prints
the result as a table or as JSON Lines, and exits with 0 (done), 1 (failed) or 2 (bad usage or configuration).
"""
