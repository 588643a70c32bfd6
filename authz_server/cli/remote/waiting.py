"""The output of a command whose change waits for the approval of a second person."""

from collections.abc import Mapping
from typing import Any

import click

from authz_server.cli.output import echo_status, print_json


class WaitsForApproval(Exception):  # noqa: N818 - not an error
    """A change was requested, and waits for an approval.

    Args:
        change: the members of the pending change, with the ``answer`` that the act would have.
    """

    #: Nothing was changed so far.
    EXIT_STATUS = 4

    def __init__(self, change: Mapping[str, Any]) -> None:
        super().__init__(str(change["id"]))
        self._change = {name: value for name, value in change.items() if name != "dry_run"}
        self._answer: Mapping[str, Any] = self._change.pop("answer", None) or {}

    @property
    def answer(self) -> Mapping[str, Any]:
        """The answer that the act would have; empty if the request is repeated."""
        return self._answer

    @property
    def lacks_secret(self) -> bool:
        """Whether the answer is repeated, without the secret or link that it showed once."""
        # The arguments of a new client name whether it gets a secret.
        makes_one = self._change.get("arguments", {}).get("with_secret", True)
        return not self._answer and bool(makes_one)

    def show(self, parameters: Mapping[str, Any]) -> None:
        """Print the change, and the secret or link that works once it is approved.

        Args:
            parameters: the values of the command's options.
        """
        as_json = bool(parameters.get("as_json"))
        secret = self._answer.get("secret") or self._answer
        enrolment = self._answer.get("enrolment") or self._answer
        if secret.get("value"):
            self._show_secret(secret, parameters, as_json=as_json)
        elif as_json:
            print_json({**self._change, **_link_of(enrolment)})
        elif link := _link_of(enrolment).get("link"):
            click.echo(link)
        number = self._change["id"]
        echo_status(
            f"Nothing is changed yet: a second person approves the change {number}, by"
            f" `authz-server changes approve {number}`."
        )

    def _show_secret(
        self, secret: Mapping[str, Any], parameters: Mapping[str, Any], *, as_json: bool
    ) -> None:
        # Imported here: most changes have no secret.
        from authz_server.cli.secret_files import print_secret  # noqa: PLC0415
        from authz_server.operations.client_secrets import NewSecret  # noqa: PLC0415

        new = NewSecret(id=secret["id"], expires_at=None, value=secret["value"])
        record = {**self._change, "secret_id": new.id}
        output = parameters.get("secret_output") or parameters.get("token_output")
        print_secret(record, new, output, as_json=as_json)


def _link_of(enrolment: Mapping[str, Any]) -> dict[str, Any]:
    return {"link": enrolment["link"]} if "link" in enrolment else {}
