"""The command `connector reload`: running members read their configuration again."""

from __future__ import annotations

from connector.cli.common import DEFAULT_FILE, FAILED, File, print_line
from connector.cli.member import Url, members_to_reload


def reload(config: File = DEFAULT_FILE, url: Url = None) -> None:
    """Have running members read their configuration again.

    Credentials, rates, batch limits, storms, codes and routes change at once. What cannot change while a member runs is
    named and left until its restart. A faulty file changes nothing.
    """
    from connector.operations import member

    found = members_to_reload(config, url)
    failed = 0
    for address in found.addresses:
        try:
            applied, left = member.reload(address, found.token)
        except member.ActionRefused as refused:
            failed += 1
            print_line(f"{address}: nothing has changed. {refused}")
            continue
        print_line(f"{address}: applied: {', '.join(applied) or 'nothing, the configuration is the same'}.")
        if left:
            print_line(f"{address}: left until a restart: {', '.join(left)}.")
    if failed:
        raise SystemExit(FAILED)
