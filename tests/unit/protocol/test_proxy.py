"""Which proxy is asked, and what its answers mean."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Code, InvalidError, UnavailableError
from protocol.proxy import (
    MAX_ANSWER_BYTES,
    Proxy,
    connect_request,
    is_exempt,
    parse_proxy,
    proxy_for,
    refusal_of,
)
from protocol.tls import open_connection

THERE = "stead.example.com:7443"
PRINTED = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters=":\x7f"))


@given(user=PRINTED, password=PRINTED)
def test_what_is_written_is_read(user: str, password: str) -> None:
    written = Proxy("proxy.example.com", 3128, user, password if user else "")
    assert parse_proxy(written.url) == written
    assert str(written) == "http://proxy.example.com:3128"


def test_a_password_is_never_shown() -> None:
    proxy = parse_proxy("http://ada:s%40cret@[::1]:8080/")
    assert (proxy.host, proxy.port, proxy.user, proxy.password) == ("::1", 8080, "ada", "s@cret")
    assert "cret" not in f"{proxy} {proxy!r}"


@pytest.mark.parametrize(
    "text",
    [
        "proxy:3128",
        "https://proxy:3128",
        "socks5://proxy:1080",
        "http://proxy",
        "http://proxy:0",
        "http://proxy:99999",
        "http://:3128",
        "http://proxy:3128/path",
        "http://proxy:3128?a",
        "http://pro\nxy:3128",
        "http://:secret@proxy:3128",
        "http://ada:secret@[proxy:3128",
    ],
)
def test_what_is_no_proxy_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_proxy(text)
    assert "secret" not in str(caught.value)


def test_the_setting_comes_before_the_environment_and_exemptions_before_both() -> None:
    environment = {"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}
    assert proxy_for("host", "", environment) == Proxy("a", 1)
    assert proxy_for("host", "", {"HTTPS_PROXY": "http://b:2"}) == Proxy("b", 2)
    assert proxy_for("host", "http://c:3", environment) == Proxy("c", 3)
    assert proxy_for("host", "none", environment) is None
    assert proxy_for("host", "http://c:3", environment | {"no_proxy": "host"}) is None
    assert proxy_for("host", "", {}) is None
    assert proxy_for("host", "", {"http_proxy": "http://plain:1"}) is None


@pytest.mark.parametrize(
    ("host", "exempt", "expected"),
    [
        ("stead.example.com", "example.com", True),
        ("stead.example.com", ".example.com", True),
        ("stead.example.com", "ample.com", False),
        ("Stead.Example.com.", "stead.EXAMPLE.com", True),
        ("10.1.2.3", "192.168.0.0/16, 10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.30", "10.1.2.3", False),
        ("::1", "::/64", True),
        ("host", "*", True),
        ("host", "", False),
        ("host", ",, .", False),
    ],
)
def test_exempt(host: str, exempt: str, *, expected: bool) -> None:
    assert is_exempt(host, exempt) is expected


def test_what_is_asked() -> None:
    assert connect_request(THERE, Proxy("p", 1)).split(b"\r\n") == [
        b"CONNECT stead.example.com:7443 HTTP/1.1",
        b"Host: stead.example.com:7443",
        b"",
        b"",
    ]
    # Of RFC 7617, section 2.
    known = connect_request(THERE, Proxy("p", 1, "Aladdin", "open sesame"))
    assert b"Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n" in known


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "user and a password"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "allow CONNECT to stead.example.com:7443"),
        (b"HTTP/1.0 502 Bad\x1b[31m\r\n\r\n", "can the proxy reach stead.example.com:7443?"),
        (b"HTTP/1.1 502\r\n\r\n", "(502)"),
        (b"HTTP/1.1 502 " + b"x" * 9999 + b"\r\n\r\n", "(502 " + "x" * 80 + ")"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is no HTTP proxy"),
        (b"", "is no HTTP proxy"),
    ],
)
def test_refusals_name_the_next_step(answer: bytes, said: str) -> None:
    refused = refusal_of(answer, THERE, Proxy("p", 1, "ada", "secret"))
    assert refused is not None
    assert said in refused
    assert "secret" not in refused
    assert refused.isprintable()


def test_any_2xx_is_a_connection() -> None:
    assert refusal_of(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n", THERE, Proxy("p", 1)) is None
    assert refusal_of(b"HTTP/1.0 299\r\n\r\n", THERE, Proxy("p", 1)) is None


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"x" * (MAX_ANSWER_BYTES + 100),
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nVia: x\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"Via: x\r\n" * (MAX_ANSWER_BYTES // 4),
    ],
)
def test_a_proxy_that_answers_nonsense_ends_nowhere(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                with suppress(ConnectionError):  # who has read enough hangs up
                    connection.sendall(answer)

        thread = threading.Thread(target=take)
        thread.start()
        with pytest.raises(UnavailableError) as caught:
            open_connection(THERE, Proxy("127.0.0.1", server.getsockname()[1]))
        thread.join()
    assert caught.value.code is Code.UNAVAILABLE
    assert "proxy" in str(caught.value)


def test_a_proxy_that_answers_without_end_has_one_time_for_all_of_it() -> None:
    came: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, suppress(ConnectionError):
                connection.recv(4096)
                # Each byte comes well within the time, and the next one only then.
                for count in range(MAX_ANSWER_BYTES):
                    connection.sendall(b"HTTP/1.1 200 OK\r\n".ljust(count + 1, b"x")[count:][:1])
                    came.append(count)
                    connection.settimeout(0.05)
                    with suppress(TimeoutError):
                        if not connection.recv(1):
                            return

        thread = threading.Thread(target=trickle)
        thread.start()
        way = Proxy("127.0.0.1", server.getsockname()[1])
        with pytest.raises(UnavailableError, match="did not answer: timed out"):
            open_connection(THERE, way, timeout=0.5)
        thread.join()
    assert 0 < len(came) < 100


def test_a_proxy_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UnavailableError, match=f"the proxy http://127.0.0.1:{port}: "):
        open_connection(THERE, Proxy("127.0.0.1", port))
