import shutil
import subprocess
import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from authz_server.cli.demo.exchange import NOW, Request
from support.not_run import skip_as_not_run


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def recorder():
    """A server that notes what it is sent; its URL and the notes."""
    notes = []

    def application(environ, start_response):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        notes.append(
            {
                "method": environ["REQUEST_METHOD"],
                "path": environ["PATH_INFO"],
                "body": environ["wsgi.input"].read(length),
                "content_type": environ.get("CONTENT_TYPE", "") if length else "",
                "headers": {
                    name: value
                    for name, value in environ.items()
                    if name.startswith("HTTP_")
                    and name not in {"HTTP_USER_AGENT", "HTTP_HOST", "HTTP_ACCEPT_ENCODING"}
                },
            }
        )
        start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
        return [b'{"a":1}']

    server = make_server("127.0.0.1", 0, application, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", notes
    server.shutdown()
    thread.join()
    server.server_close()


def _requests(url):
    return [
        Request("GET", f"{url}/metadata"),
        Request("POST", f"{url}/empty"),
        Request(
            "POST",
            f"{url}/token",
            headers={"timestamp": NOW, "message_id": "a 'quoted' \"id\""},
            form={"scope": "mapper/link é", "client_secret": "a%b+c&d=e $HOME `id`"},
        ),
        Request("POST", f"{url}/basic", form={"token": "x"}, credentials=("id", "se'cret")),
        Request("POST", f"{url}/json", json_body={"text": "it's \u2028"}),
    ]


def test_the_printed_command_sends_what_was_sent_here(recorder):
    curl = shutil.which("curl")
    if curl is None:
        skip_as_not_run("the demonstration's commands in a shell", "curl")
    url, notes = recorder
    for request in _requests(url):
        request.send()
        subprocess.run(["bash", "-c", request.as_curl()], check=True, capture_output=True)
        ours, theirs = notes
        times = [note["headers"].pop("HTTP_TIMESTAMP", None) for note in notes]
        assert ours == theirs
        assert (times[0] is None) == (times[1] is None)
        if times[0] is not None:
            assert len(times[0]) == len(times[1])
            assert times[0][-4:] == times[1][-4:] == " GMT"
        notes.clear()


def test_an_answer_is_told_with_its_challenge_and_readable_json(recorder):
    url, _ = recorder
    answer = Request("GET", url).send()
    assert answer.status == 401
    assert answer.json() == {"a": 1}
    assert answer.as_text().splitlines()[:2] == [
        "HTTP/1.1 401 Unauthorized",
        "WWW-Authenticate: Bearer",
    ]
