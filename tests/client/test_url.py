"""URLs of a broker: what they mean, what is refused and how, and that no secret is shown."""

import pytest

from holdfast.client.url import Target, parse_url, server_references
from holdfast.errors import UsageError

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("mqtt://h", Target("tcp", "h", 1883)),
        ("mqtt://h/", Target("tcp", "h", 1883)),
        ("MQTT://h:1", Target("tcp", "h", 1)),
        ("mqtts://broker.example.org", Target("tls", "broker.example.org", 8883)),
        ("mqtts://h:65535", Target("tls", "h", 65_535)),
        ("ws://h", Target("ws", "h", 80, "/mqtt")),
        ("ws://h/", Target("ws", "h", 80, "/")),
        ("ws://h:9001/in/here", Target("ws", "h", 9001, "/in/here")),
        ("ws://h/a%20b", Target("ws", "h", 80, "/a%20b")),
        ("wss://h", Target("wss", "h", 443, "/mqtt")),
        ("wss://h/mqtt?X-Sig=a/b%40", Target("wss", "h", 443, "/mqtt", "X-Sig=a/b%40")),
        ("wss://h?key=1", Target("wss", "h", 443, "/mqtt", "key=1")),
        ("unix:///run/holdfast.sock", Target("unix", path="/run/holdfast.sock")),
        ("unix:///run/a%20b.sock", Target("unix", path="/run/a b.sock")),
        ("unix:///run/a@b.sock", Target("unix", path="/run/a@b.sock")),
        ("h", Target("tcp", "h", 1883)),
        ("h:1884", Target("tcp", "h", 1884)),
        ("10.0.0.7", Target("tcp", "10.0.0.7", 1883)),
        ("[::1]", Target("tcp", "::1", 1883)),
        ("[::1]:1884", Target("tcp", "::1", 1884)),
        ("mqtts://[2001:db8::7]", Target("tls", "2001:db8::7", 8883)),
        ("mqtt://[fe80::1%25eth0]:1", Target("tcp", "fe80::1%eth0", 1)),
        ("mqtt://[fe80::1%eth0]:1", Target("tcp", "fe80::1%eth0", 1)),
        ("mqtt://müller.example", Target("tcp", "müller.example", 1883)),
        ("mqtt://my_broker", Target("tcp", "my_broker", 1883)),
        ("mqtt://u@h", Target("tcp", "h", 1883, user_name="u")),
        ("mqtt://u:@h", Target("tcp", "h", 1883, user_name="u", password=b"")),
        ("mqtt://:p@h", Target("tcp", "h", 1883, user_name="", password=b"p")),
        ("u:p@h:2", Target("tcp", "h", 2, user_name="u", password=b"p")),
        (
            "mqtts://a%40b%3A:%2F%3f%23%ff@h",
            Target("tls", "h", 8883, user_name="a@b:", password=b"/?#\xff"),
        ),
        ("mqtt://u:a@b:c@h", Target("tcp", "h", 1883, user_name="u", password=b"a@b:c")),
        ("mqtt://%C3%A4:ö@h", Target("tcp", "h", 1883, user_name="ä", password="ö".encode())),
    ],
)
def test_a_url_means(text: str, target: Target) -> None:
    assert parse_url(text) == target


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("mqtt://", "no host"),
        ("mqtt://:1883", "no host"),
        ("mqtt://u@", "no host"),
        ("http://h", "'http' is not one of mqtt, mqtts, ws, wss, unix"),
        ("tcp://h", "'tcp' is not one of"),
        ("mqtt://h:0", "port from 1 to 65535"),
        ("mqtt://h:65536", "port from 1 to 65535"),
        ("mqtt://h:000065536", "port from 1 to 65535"),
        ("mqtt://h:", "port from 1 to 65535"),
        ("mqtt://h:\u0661", "port from 1 to 65535"),
        ("mqtt://h:+1", "port from 1 to 65535"),
        ("mqtt://h/topic", "nothing behind mqtt://host:port"),
        ("mqtts://h?a=b", "nothing behind mqtts://host:port"),
        ("h/topic", "nothing behind mqtt://host:port"),
        ("ws://h/a#b", "'#'"),
        ("ws://h/ä", "ASCII"),
        ("ws://h/a b", "space"),
        ("mqtt://h\n", "control character"),
        (" mqtt://h", "space"),
        ("mqtt://::1", r"brackets: \[::1\]"),
        ("::1", r"brackets: \[::1\]"),
        ("mqtt://[::1", "IPv6 address in brackets"),
        ("mqtt://[nonsense]", "IPv6 address in brackets"),
        ("mqtt://[]:1", "IPv6 address in brackets"),
        ("mqtt://[::1]1883", "IPv6 address in brackets"),
        ("mqtt://a,b", "neither a name nor an address"),
        ("mqtt://" + "a" * 256, "neither a name nor an address"),
        ("mqtt://%ff@h", "user name .* is not UTF-8"),
        ("mqtt://a%00@h", r"U\+0000"),
        ("mqtt://" + "a" * 65_536 + "@h", "at most 65535 bytes"),
        ("unix://run/x.sock", "whole path of a socket"),
        ("unix://", "whole path of a socket"),
        ("unix:///run/", "whole path of a socket"),
        ("unix:///run/x%00", "whole path of a socket"),
        ("unix:///run/x?a", "nothing behind"),
        ("unix:///run/%ff", "not UTF-8"),
        ("unix:///" + "a" * 107, "at most 107 bytes"),
    ],
)
def test_what_is_no_url_is_refused_with_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        parse_url(text)


@pytest.mark.parametrize(
    "text",
    [
        f"mqtt://u:{SECRET}",
        f"u:{SECRET}",
        f"mqtt://u:{SECRET}/x@h",
        f"mqtt://u:/{SECRET}@h",
        f"mqtt://u:?{SECRET}@h",
        f"mqtt://u:#{SECRET}@h",
        f"mqtt://u:{SECRET}@h:no",
        f"mqtt://u:{SECRET}@h/path",
        f"mqtt://u:a@b/{SECRET}@h",
        f"ws://u/{SECRET}@h",
        f"ws://u:a@b/{SECRET}@h",
        f"ws://u?{SECRET}@h",
        f"ws://h:x?sig={SECRET}",
        f"u:{SECRET}://x@h",
        f"mqtt://u:{SECRET} @h",
        f"mqtt://%ff:{SECRET}@h",
        f"mqtt://u:{SECRET}@[::",
        f"mqtt://u:{SECRET}@",
        f"mqtt://u:{SECRET}@::1",
    ],
)
def test_no_password_is_shown(text: str) -> None:
    with pytest.raises(UsageError) as failure:
        parse_url(text)
    assert SECRET not in str(failure.value)
    assert failure.value.__cause__ is None
    assert SECRET not in repr(failure.value.__context__)


def test_a_target_shows_no_secret() -> None:
    target = parse_url(f"wss://meter:{SECRET}@h/mqtt?sig={SECRET}")
    assert target.password == SECRET.encode()
    assert SECRET not in repr(target)
    assert str(target) == "wss://h:443"
    assert str(parse_url("unix:///run/x.sock")) == "unix:///run/x.sock"
    assert str(parse_url("[::1]")) == "mqtt://[::1]:1883"


@pytest.mark.parametrize(
    ("url", "reference", "expected"),
    [
        ("mqtts://u:p@a:1", "b", "mqtts://u:p@b"),
        ("mqtts://u:p@a:1", "b:2", "mqtts://u:p@b:2"),
        ("mqtt://a", "[::1]:2", "mqtt://[::1]:2"),
        ("mqtt://a", "[::1]", "mqtt://[::1]"),
        ("wss://u@a/x?y", "b:2", "wss://u@b:2/x?y"),
        ("wss://u@a/x?y", "wss://b:2/z", "wss://u@b:2/x?y"),
        ("mqtt://u:p@a", "mqtt://b", "mqtt://u:p@b"),
    ],
)
def test_a_reference_leads_to_another_server(url: str, reference: str, expected: str) -> None:
    assert parse_url(url).with_server(reference) == parse_url(expected)


@pytest.mark.parametrize(
    ("url", "reference", "expected"),
    [
        ("mqtts://a", "mqtt://b", "over mqtts://"),
        ("mqtt://a", "b:x", "port"),
        ("mqtt://a", "", "no host"),
        ("mqtt://a", "a/b", "neither a name"),
        ("mqtt://a", "u:p@b", "port"),
        ("unix:///a", "b", "Unix socket"),
    ],
)
def test_a_reference_that_cannot_be_followed(url: str, reference: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        parse_url(url).with_server(reference)


def test_references_come_as_a_list() -> None:
    assert server_references("a:1 [::1]:2  b") == ["a:1", "[::1]:2", "b"]
    assert server_references("") == []
