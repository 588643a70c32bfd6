"""The commands of docs/sender-constrained-tokens.md, as printed."""

import shlex

from support.documents import shell_blocks

DOCUMENT = "docs/sender-constrained-tokens.md"


def test_the_commands_of_the_document(stocked):
    """Case A16."""
    stocked.must("client", "create", "ministry", "--name", "Ministry", "--scope", "mapper/link")
    commands = [
        line for block in shell_blocks(DOCUMENT, dialect="sqlite") for line in block.splitlines()
    ]
    assert len(commands) == 3
    printed = []
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "authz-server"
        printed.append(stocked.must(*arguments))
    assert "dpop_bound_access_tokens" in printed[1]
    properties = stocked.json("client", "show", "ministry")["properties"]
    assert "dpop_bound_access_tokens" not in properties
