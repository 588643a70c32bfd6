"""Dovecot of the system as an IMAP server whose users log in with access tokens."""

import getpass
import grp
import imaplib
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.not_run import skip_as_not_run
from support.ports import release_port, reserve_port
from support.tied_process import end_process, start_tied

_PLACES = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
_READY_SECONDS = 20.0
_SETTINGS = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
default_internal_user = {internal_user}
default_internal_group = {internal_group}
default_login_user = {login_user}
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_failure_delay = 0
auth_mechanisms = xoauth2 oauthbearer
first_valid_uid = 1
mail_location = maildir:{folder}/mail/%u
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {folder}/dovecot-oauth2.conf.ext
}}
userdb {{
  driver = static
  args = uid={mail_user} gid={mail_group} home={folder}/mail/%u
}}
service anvil {{
  chroot =
  # Without it, each refusal delays the next one from the same address.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
"""


class Dovecot:
    """An IMAP server that runs.

    Args:
        port: on loopback.
        log_path: its log.
        process_id: of its main process.
    """

    def __init__(self, port: int, log_path: Path, process_id: int) -> None:
        self._port = port
        self.log_path = log_path
        self._process_id = process_id

    def reload(self) -> None:
        """Read the settings again, as `doveadm reload` does."""
        os.kill(self._process_id, signal.SIGHUP)

    def log_in(self, user: str, token: str, mechanism: str = "OAUTHBEARER") -> bool:
        """Return whether a user may log in with a token."""
        if mechanism == "OAUTHBEARER":
            response = f"n,a={user},\x01auth=Bearer {token}\x01\x01"
        else:
            response = f"user={user}\x01auth=Bearer {token}\x01\x01"
        # A refusal comes with a reason, which is answered by an empty response.
        responses = iter([response.encode()])
        with imaplib.IMAP4("127.0.0.1", self._port, timeout=20) as client:
            try:
                client.authenticate(mechanism, lambda _: next(responses, b""))
            except imaplib.IMAP4.error:
                return False
            return client.select()[0] == "OK"


@contextmanager
def dovecot(folder: Path, settings: str) -> Iterator[Dovecot]:
    """Run Dovecot with settings for access tokens.

    Args:
        folder: for its files; other users must be able to enter it.
        settings: the content of `dovecot-oauth2.conf.ext`.
    """
    program = shutil.which("dovecot", path=_PLACES)
    if program is None:
        skip_as_not_run("the settings for Dovecot", "dovecot-imapd")
    port, log_path = reserve_port(), folder / "dovecot.log"
    mail = folder / "mail"
    mail.mkdir()
    if os.geteuid() == 0:
        users = ("dovecot", "dovecot", "dovenull", "nobody", "nogroup")
        shutil.chown(mail, "nobody", "nogroup")
    else:
        user, group = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
        users = (user, group, user, user, group)
    names = ("internal_user", "internal_group", "login_user", "mail_user", "mail_group")
    configuration = folder / "dovecot.conf"
    configuration.write_text(
        _SETTINGS.format(folder=folder, port=port, **dict(zip(names, users, strict=True)))
    )
    secret = folder / "dovecot-oauth2.conf.ext"
    secret.touch(0o600)
    secret.write_text(settings)
    with (folder / "output.log").open("wb") as output:
        process = start_tied([program, "-F", "-c", str(configuration)], output=output)
    try:
        _await_listener(port, log_path)
        yield Dovecot(port, log_path, process.pid)
    finally:
        end_process(process)
        release_port(port)


def _await_listener(port: int, log_path: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        log = log_path.read_text(errors="replace") if log_path.exists() else "no log"
        assert time.monotonic() < deadline, log
        time.sleep(0.02)
