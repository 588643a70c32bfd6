"""The pages of refusals: what did not work, and the way on."""

from functools import partial

import pytest


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
