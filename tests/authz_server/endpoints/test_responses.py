"""Answers as WSGI applications and as HTTP messages; paths that are answered."""

import pytest

from authz_server.endpoints.responses import Answer, private_answer


def send(answer, method: str) -> tuple[str, dict[str, str], bytes]:
    sent = []
    body = b"".join(answer({"REQUEST_METHOD": method}, lambda *parts: sent.extend(parts)))
    return sent[0], dict(sent[1]), body


def test_an_answer_says_how_long_it_is():
    status, headers, body = send(private_answer({"a": "é"}, "id", status=503), "POST")
    assert (status, body) == ("503 Service Unavailable", '{"a":"é"}'.encode())
    assert headers["Content-Length"] == str(len(body))
    assert headers["X-Request-Id"] == "id"


def test_head_is_answered_without_a_body():
    status, headers, body = send(private_answer({}, "id", status=405), "HEAD")
    assert (status, headers["Content-Length"], body) == ("405 Method Not Allowed", "2", b"")


def test_a_document_that_has_not_changed_has_no_length():
    """RFC 9110, 8.6."""
    date = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    answer = Answer(304, {"ETag": '"a"'}, b"")
    assert answer.encode(date) == b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n' + date + b"\r\n"


@pytest.mark.parametrize("value", ["a\nb: c", "a\rb", "a\r\n\r\nb"])
def test_a_header_cannot_be_broken(value):
    with pytest.raises(ValueError, match="line break"):
        private_answer({}, "id", headers={"message_id": value})


@pytest.mark.parametrize("connection", ["", "close"])
@pytest.mark.parametrize("head", [False, True])
def test_an_answer_is_an_http_message(connection, head):
    answer = private_answer({"a": "é"}, "id", status=400)
    date = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    lines, _, body = answer.encode(date, connection=connection, head=head).partition(b"\r\n\r\n")
    status, *fields = lines.decode().split("\r\n")
    assert status == "HTTP/1.1 400 Bad Request"
    assert body == (b"" if head else answer.body)
    expected = {**answer.headers, "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}
    expected |= {"Content-Length": str(len(answer.body))}
    expected |= {"Connection": connection} if connection else {}
    assert dict(field.split(": ", 1) for field in fields) == expected


def test_other_spellings_of_a_path_are_not_found(client, demo):
    form = {"grant_type": "client_credentials", **demo.post.form()}
    assert client.post("/oauth2/token", data=form).status_code == 200
    for path in ("/oauth2/token/", "//oauth2/token", "/oauth2//token", "/OAUTH2/token", "oauth2"):
        assert client.post(path, data=form).status_code == 404, path
    assert client.post("", data=form).status_code == 404
