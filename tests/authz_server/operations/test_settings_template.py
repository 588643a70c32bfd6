import tomllib

import pytest

from authz_server.operations.settings_template import Answers, render_settings


def test_the_file_says_what_was_answered():
    answers = Answers(
        issuer="https://auth.example.org/namespace/v1.0.0",
        environment="production",
        database_url="postgresql+psycopg://authz@db.example.org/authz",
        port=9000,
        health_port=9001,
        mount_prefix="/namespace/v1.0.0",
    )
    document = tomllib.loads(render_settings(answers))
    assert document["issuer"] == answers.issuer
    assert document["server"]["port"] == 9000
    assert document["server"]["health_port"] == 9001
    assert document["server"]["mount_prefix"] == "/namespace/v1.0.0"
    assert document["database"] == {"url": answers.database_url}
    assert document["clients"] == {"secret_pepper": {"file": "secrets/pepper"}}


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", "\x1b[31m", "\u2028", "é", '"\nevil = "x'])
def test_no_answer_can_break_out_of_its_place(text):
    answers = Answers(issuer=text, environment="development", database_url=text)
    document = tomllib.loads(render_settings(answers))
    assert document["issuer"] == document["database"]["url"] == text
    assert "evil" not in document
