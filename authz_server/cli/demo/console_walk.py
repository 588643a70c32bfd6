"""The console of the demonstration: its first operator, and a walk through its screens."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from authz_server.cli.demo.chromium import Chromium, find_chromium, headless_chromium

#: The screens in their order, each with the heading that it must have.
SCREENS = (
    ("now", "/", "Now"),
    ("clients", "/clients", "Clients"),
    ("client", "/clients/client?id={client}&explain=1&scope=mapper/link", "Demo disbursement"),
    ("apis", "/apis", "APIs and scopes"),
    ("api", "/apis/api?id={server}", "Demo mapper"),
    ("keys", "/keys", "Keys"),
    ("rotation", "/act/ring-rotate?ring=es256", "Rotate"),
    ("tokens", "/tokens", "Tokens"),
    ("audit", "/audit?who=mapper/link&moment={moment}", "Audit"),
    ("changes", "/changes", "Changes"),
    ("files", "/files", "Files"),
    ("operators", "/operators", "Operators"),
    ("settings", "/settings", "Settings"),
)
PICTURES = "console"


def walk_console(
    directory: Path, link: str, places: dict[str, str], emit: Callable[[str], None]
) -> None:
    """Enrol the operator in a headless Chromium, and open each screen.

    Args:
        directory: the pictures of the screens go to a folder in it.
        link: the enrolment link of the operator.
        places: the values of the addresses.
        emit: prints a paragraph.

    Raises:
        BrowserError: a page is not as expected.
    """
    program = find_chromium()
    if program is None:
        emit("The console was not opened: there is no Chromium. `apt install chromium` brings it.")
        return
    folder = directory / PICTURES
    folder.mkdir(exist_ok=True)
    base = link.partition("/enrol/")[0]
    with headless_chromium(program) as browser:
        _enrol(browser, link)
        for number, (name, path, heading) in enumerate(SCREENS, start=1):
            filled = path.format(**{key: quote(each, safe="") for key, each in places.items()})
            browser.open(f"{base}{filled}")
            browser.wait(
                f"document.querySelector('h1')?.innerText.startsWith({heading!r}) === true"
            )
            browser.save(folder / f"{number:02}-{name}.png")
    emit(f"The console was opened, and each of its screens: the pictures are in {folder}/.")


def _enrol(browser: Chromium, link: str) -> None:
    browser.open(link)
    browser.wait("document.querySelector('form[data-passkey] button') !== null")
    browser.evaluate("document.querySelector('form[data-passkey] button').click()")
    browser.wait("location.pathname === '/' && document.querySelector('main h1') !== null")
