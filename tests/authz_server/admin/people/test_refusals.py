"""The pages of refusals: what did not work, and the way on."""

from functools import partial

import pytest

from support.people_site import Visitor


@pytest.mark.parametrize(
    ("path", "title", "link"),
    [
        ("/logout", "This did not work", "/"),
        ("/passkeys/remove", "This did not work", "/"),
        ("/login/openid", "The log-in was refused", "/login"),
    ],
)
def test_a_refusal_says_what_did_not_work(people, path, title, link):
    """A form of an earlier session to log out, for example, is no log-in."""
    visitor = people.enrolled()
    send = visitor.get if path.startswith("/login") else partial(visitor.post, fields={})
    answer = send(path)
    assert answer.status_code >= 400
    assert f"<h1>{title}</h1>" in answer.text
    assert f'class="button" href="{link}"' in answer.text


def test_a_browser_without_a_session_is_logged_out(people):
    """Its cookie was deleted, for example: a form to log out leads to the log-in."""
    answer = Visitor(people).post("/logout", {"csrf_token": "of an earlier session"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
