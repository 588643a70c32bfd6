"""The system's Chromium, driven by Playwright, with passkeys of a virtual authenticator."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from support.not_run import skip_as_not_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, CDPSession, Page

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_TIMEOUT_MILLISECONDS = 15_000
_AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


def find_chromium() -> str | None:
    """Return the path of the system's Chromium; None without one."""
    return next(filter(None, map(shutil.which, _PROGRAMS)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium for one file; without one, its tests are named as not run.

    Playwright keeps an event loop in this thread meanwhile, so that no other test has one.
    """
    program = find_chromium()
    if program is None:
        skip_as_not_run("the console in a browser", "chromium")
    arguments = ["--disable-dev-shm-usage"]
    if os.geteuid() == 0:
        # The sandbox refuses to run as root.
        arguments.append("--no-sandbox")
    # Only here: most runs of the suite begin without a browser.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield launched
        finally:
            launched.close()


class Visitor:
    """A person at a browser, with cookies and passkeys of their own.

    `page` is the open page; `problems` holds what the pages have written to the console as errors.
    """

    def __init__(self, context: BrowserContext) -> None:
        context.set_default_timeout(_TIMEOUT_MILLISECONDS)
        self.context = context
        self.page: Page = context.new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on(
            "console",
            lambda message: self.problems.append(message.text) if message.type == "error" else None,
        )
        self._devtools: CDPSession = context.new_cdp_session(self.page)
        self._devtools.send("WebAuthn.enable")
        self._authenticators: list[str] = []

    def add_authenticator(self, **options: Any) -> str:
        """Add a device that holds passkeys; return its id."""
        added = self._devtools.send(
            "WebAuthn.addVirtualAuthenticator", {"options": _AUTHENTICATOR | options}
        )
        self._authenticators.append(added["authenticatorId"])
        return str(added["authenticatorId"])

    def remove_authenticator(self, authenticator: str) -> None:
        """Lose a device."""
        self._devtools.send(
            "WebAuthn.removeVirtualAuthenticator", {"authenticatorId": authenticator}
        )
        self._authenticators.remove(authenticator)

    def passkeys(self) -> list[dict[str, Any]]:
        """Return the passkeys of all devices."""
        return [
            credential
            for each in self._authenticators
            for credential in self._devtools.send(
                "WebAuthn.getCredentials", {"authenticatorId": each}
            )["credentials"]
        ]


@contextmanager
def visiting(browser: Browser, **options: Any) -> Iterator[Visitor]:
    """A new person at the browser; `options` are those of Playwright's contexts."""
    context = browser.new_context(**{"locale": "en-GB", **options})
    try:
        yield Visitor(context)
    finally:
        context.close()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """A person at the browser, with an empty profile."""
    with visiting(browser) as made:
        yield made
