"""`holdfast pub` and `holdfast sub` as they are typed, against a real broker."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import BrokerProcess, NewBroker, holdfast_command
from tests.support.command import assert_one_line, holdfast
from tests.support.process import required
from tests.support.typed import Start, pub, starting, sub


@pytest.fixture
def start() -> Iterator[Start]:
    with starting() as run:
        yield run


def kept_session(broker: BrokerProcess, folder: Path, name: str, *filters: str) -> None:
    """Have a session with these subscriptions at the broker."""
    given = [part for one in filters for part in ("-t", one)]
    done = sub(broker, folder, *given, "-i", name, "--no-clean", "-E", "-q", "2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_daily_use_works_as_it_is_typed(
    broker: BrokerProcess, start: Start, tmp_path: Path, name: str
) -> None:
    """A subscriber is stopped, messages are published, it is started again, the messages come."""
    topic = f"{name}/temperature"
    pub(broker, tmp_path, "-t", topic, "-m", "retained", "-r")
    subscriber = start(broker, "sub", "-t", topic, "-i", name, "--no-clean")
    subscriber.wait_line("^retained$")
    subscriber.send_signal(signal.SIGINT)
    assert subscriber.wait() == 130
    pub(broker, tmp_path, "-t", topic, "-m", "1")
    pub(broker, tmp_path, "-t", topic, "-m", "2")
    subscriber = start(broker, "sub", "-t", topic, "-i", name, "--no-clean")
    subscriber.wait_line("^2$")
    assert [line for line in subscriber.lines if line != "retained"] == ["1", "2"]


def test_each_run_takes_its_messages_and_leaves_the_others(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    """What was not shown is not acknowledged: -C takes as many as it says."""
    kept_session(broker, tmp_path, name, name)
    pub(broker, tmp_path, "-t", name, "-l", given="one\ntwo\nthree\n")
    for expected in ("one\n", "two\nthree\n"):
        count = str(expected.count("\n"))
        done = sub(broker, tmp_path, "-t", name, "-i", name, "-c", "-C", count)
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_what_nobody_reads_any_more_comes_again(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    """Its reader closes the pipe: that is no error, and what was not read is not lost."""
    kept_session(broker, tmp_path, name, name)
    lines = "".join(f"{number} {'x' * 1000}\n" for number in range(200))
    pub(broker, tmp_path, "-t", name, "-l", given=lines)
    command = f"{holdfast_command()} sub -p {broker.port} -t {name} -i {name} -c"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == lines[: done.stdout.index("\n") + 1]
    rest = sub(broker, tmp_path, "-t", name, "-i", name, "-c", "-W", "2", "-F", "%.4t%p")
    assert rest.returncode == 27
    assert "199 xxx" in rest.stdout


def test_a_reader_that_goes_is_noticed_while_nothing_comes(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    pub(broker, tmp_path, "-t", name, "-m", "kept", "-r")
    command = f"{holdfast_command()} sub -p {broker.port} -t {name}"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("kept\n", "")


@pytest.mark.parametrize(
    ("arguments", "given", "expected"),
    [
        (["-m", "text"], "", ["text"]),
        (["-m", "Grüße"], "", ["Grüße"]),
        (["-m", "-D"], "", ["-D"]),
        (["-n"], "", [""]),
        (["-f", "file"], "", ["from a file"]),
        (["-f", "-"], "in\nput", ["in", "put"]),
        (["-s"], "in\nput", ["in", "put"]),
        (["-l"], "one\n\ntwo", ["one", "", "two"]),
        (["-m", "x", "--repeat", "3"], "", ["x", "x", "x"]),
        (["-m", "x", "--repeat", "2", "--repeat-delay", "0.01"], "", ["x", "x"]),
    ],
    ids=["-m", "utf8", "dash", "-n", "-f", "-f-", "-s", "-l", "repeat", "delay"],
)
def test_where_payloads_come_from(
    broker: BrokerProcess,
    start: Start,
    tmp_path: Path,
    name: str,
    arguments: list[str],
    given: str,
    expected: list[str],
) -> None:
    (tmp_path / "file").write_text("from a file")
    kept_session(broker, tmp_path, name, name)
    pub(broker, tmp_path, "-t", name, *arguments, given=given)
    pub(broker, tmp_path, "-t", name, "-m", "end")
    subscriber = start(broker, "sub", "-t", name, "-i", name, "-c")
    subscriber.wait_line("^end$")
    assert subscriber.lines == [*expected, "end"]


def test_the_properties_of_a_message_go_all_the_way(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    kept_session(broker, tmp_path, name, name)
    pub(
        *(broker, tmp_path, "-t", name, "-m", "x", "-q", "2"),
        *("--user-property", "a=1", "--user-property", "b==", "--message-expiry", "1000"),
        *("--content-type", "text/plain", "--response-topic", "answers", "--utf8"),
        *("--correlation-data", "42", "-D", "PUBLISH", "user-property", "c", "3"),
    )
    pub(
        *(broker, tmp_path, "-t", name, "-m", "x", "-D", "publish", "content-type", "a/b"),
        *("--property", "PUBLISH", "payload-format-indicator", "1", "-r"),
    )
    done = sub(broker, tmp_path, "-t", name, "-i", name, "-c", "-C", "2", "-q", "2", "--json")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    expiry_s = first["properties"].pop("message_expiry_interval")
    assert 900 < expiry_s <= 1000
    assert (first["topic"], first["payload"], first["qos"]) == (name, "x", 2)
    expected = {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": "answers",
        "correlation_data": "42",
        "user_properties": [["c", "3"], ["a", "1"], ["b", "="]],
    }
    assert {key: first["properties"][key] for key in expected} == expected
    assert second["properties"]["content_type"] == "a/b"
    assert (second["qos"], second["retain"]) == (1, False)


def test_retained_messages_are_told_apart(broker: BrokerProcess, tmp_path: Path, name: str) -> None:
    pub(broker, tmp_path, "-t", f"{name}/a", "-m", "old", "-r")
    both = ["-t", f"{name}/#"]
    done = sub(broker, tmp_path, *both, "-C", "1", "-v", "--time")
    assert done.stdout.endswith(f" (retained) {name}/a old\n")
    assert sub(broker, tmp_path, *both, "-W", "0.3", "-R").stdout == ""
    assert sub(broker, tmp_path, *both, "-W", "0.3", "-T", f"{name}/a").stdout == ""
    assert sub(broker, tmp_path, *both, "-W", "0.3", "--retain-handling", "2").stdout == ""
    # An unwanted one stays, one that is wanted is removed for good.
    sub(broker, tmp_path, *both, "-C", "1", "--remove-retained")
    assert sub(broker, tmp_path, *both, "-W", "0.3").stdout == ""


def test_retained_only_ends_with_the_first_that_is_none(
    broker: BrokerProcess, start: Start, tmp_path: Path, name: str
) -> None:
    pub(broker, tmp_path, "-t", name, "-m", "old", "-r")
    subscriber = start(broker, "sub", "-t", name, "--retained-only")
    subscriber.wait_line("^old$")
    pub(broker, tmp_path, "-t", name, "-m", "new")
    assert subscriber.wait() == 0
    assert subscriber.lines == ["old"]


def test_unsubscribe_ends_a_subscription_of_the_session(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    kept_session(broker, tmp_path, name, f"{name}/a", f"{name}/b")
    done = sub(broker, tmp_path, "-U", f"{name}/a", "-i", name, "-c", "-E")
    assert (done.returncode, done.stderr) == (0, "")
    pub(broker, tmp_path, "-t", f"{name}/a", "-m", "gone")
    pub(broker, tmp_path, "-t", f"{name}/b", "-m", "here")
    # What an earlier run has subscribed to comes as well.
    done = sub(broker, tmp_path, "-t", f"{name}/c", "-i", name, "-c", "-C", "1")
    assert done.stdout == "here\n"


def test_without_no_clean_a_session_begins_anew(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    kept_session(broker, tmp_path, name, name)
    pub(broker, tmp_path, "-t", name, "-m", "missed")
    assert sub(broker, tmp_path, "-t", name, "-i", name, "-W", "0.3").stdout == ""
    assert sub(broker, tmp_path, "-t", name, "-i", name, "-c", "-W", "0.3").stdout == ""


def test_forms_of_output(broker: BrokerProcess, tmp_path: Path, name: str) -> None:
    pub(broker, tmp_path, "-t", name, "-m", "ab", "-r")
    once = ["-t", name, "-C", "1"]
    assert sub(broker, tmp_path, *once, "--hex").stdout == "6162\n"
    assert sub(broker, tmp_path, *once, "--hex", "-v").stdout == f"{name} 6162\n"
    assert sub(broker, tmp_path, *once, "-N").stdout == "ab"
    assert sub(broker, tmp_path, *once, "-F", "%t=%p").stdout == f"{name}=ab\n"
    assert json.loads(sub(broker, tmp_path, *once, "--json", "--pretty").stdout)["payload"] == "ab"


def test_the_older_version(broker: BrokerProcess, tmp_path: Path, name: str) -> None:
    pub(broker, tmp_path, "-V", "mqttv311", "-t", name, "-m", "x", "-r")
    done = sub(broker, tmp_path, "-V", "311", "-t", name, "-C", "1", "--json")
    shown = json.loads(done.stdout)
    assert shown["payload"] == "x"
    assert "properties" not in shown


@pytest.mark.parametrize(
    "url", ["mqtt://127.0.0.1:{port}/{topic}", "mqtt://localhost:{port}/{topic}"]
)
def test_a_url_says_where_and_on_what_topic(
    broker: BrokerProcess, tmp_path: Path, name: str, url: str
) -> None:
    place = url.format(port=broker.port, topic=f"{name}%2F1")
    done = holdfast("pub", "-L", place, "-m", "x", "-r", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    variables = {"HOLDFAST_URL": place}
    done = holdfast("sub", "-C", "1", "-v", folder=tmp_path, variables=variables)
    assert (done.returncode, done.stdout) == (0, f"{name}/1 x\n")
    # A port of another server: the URL of the environment, and its password, is not for that.
    done = holdfast("sub", "-p", "1", "-t", name, folder=tmp_path, variables=variables)
    assert_one_line(done, 6, "localhost:1: ")


def test_the_will_is_published_when_the_client_is_lost(
    broker: BrokerProcess, start: Start, tmp_path: Path, name: str
) -> None:
    pub(broker, tmp_path, "-t", name, "-m", "here", "-r")
    client = start(
        *(broker, "sub", "-t", name, "--will-topic", f"{name}/will", "--will-payload", "lost"),
        *("--will-qos", "1", "--will-retain", "-D", "WILL", "content-type", "a/b"),
    )
    client.wait_line("^here$")
    client.kill9()
    done = sub(broker, tmp_path, "-t", f"{name}/will", "-C", "1", "-F", "%p %C %q")
    assert done.stdout == "lost a/b 1\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(
    broker: BrokerProcess, start: Start, tmp_path: Path, name: str, number: signal.Signals
) -> None:
    pub(broker, tmp_path, "-t", name, "-m", "here", "-r")
    subscriber = start(broker, "sub", "-t", name, "--will-topic", f"{name}/w", "--will-retain")
    subscriber.wait_line("^here$")
    subscriber.send_signal(number)
    assert subscriber.wait() == 130
    assert subscriber.lines == ["here"]
    assert sub(broker, tmp_path, "-t", f"{name}/w", "-W", "0.3").stdout == ""  # it said goodbye


def test_a_publisher_that_waits_for_its_input_is_ended_by_a_signal(
    broker: BrokerProcess, start: Start, tmp_path: Path, name: str
) -> None:
    publisher = start(broker, "pub", "-t", name, "-l", "-r")
    publisher.write_line("first")
    assert sub(broker, tmp_path, "-t", name, "-C", "1").stdout == "first\n"
    publisher.send_signal(signal.SIGINT)
    assert publisher.wait() == 130
    assert publisher.lines == []


def test_a_second_client_of_the_same_name_ends_the_first(
    broker: BrokerProcess, start: Start, tmp_path: Path, name: str
) -> None:
    """They would throw each other out for ever."""
    pub(broker, tmp_path, "-t", name, "-m", "here", "-r")
    subscriber = start(broker, "sub", "-t", name, "-i", name)
    subscriber.wait_line("^here$")
    assert sub(broker, tmp_path, "-t", name, "-i", name, "-C", "1").returncode == 0
    assert subscriber.wait() == 7
    _, last = subscriber.lines
    assert re.match("holdfast: .*another connection has taken the session over", last)


def test_a_server_that_goes_and_comes_back(
    new_broker: NewBroker, start: Start, tmp_path: Path, name: str
) -> None:
    broker = new_broker()
    pub(broker, tmp_path, "-t", name, "-m", "1", "-r")
    subscriber = start(broker, "sub", "-t", name)
    subscriber.wait_line("^1$")
    broker.restart()
    first, _ = subscriber.wait_line("^holdfast: not connected, trying again: ")
    second, _ = subscriber.wait_line("^holdfast: connected again$", first)
    pub(broker, tmp_path, "-t", name, "-m", "2")
    subscriber.wait_line("^2$", second)


def test_no_server_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        for command in ("pub", "sub", "rr"):
            payload = [] if command == "sub" else ["-m", "x"]
            done = holdfast(command, "-p", port, "-t", "a", *payload, folder=tmp_path)
            assert_one_line(done, 6, f"localhost:{port}: .*refused")
    done = holdfast("pub", "-h", "nowhere.invalid", "-t", "a", "-m", "x", folder=tmp_path)
    assert_one_line(done, 6, "nowhere.invalid")


def test_what_does_not_speak_mqtt_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        arguments = ["-t", "a", "-m", "x", "--connect-timeout", "0.2"]
        done = holdfast("pub", "-p", port, *arguments, folder=tmp_path)
        assert_one_line(done, 6, r"no CONNACK within 0\.2 s")


def test_mosquitto_is_on_the_other_end(
    broker: BrokerProcess, start: Start, tmp_path: Path, name: str
) -> None:
    mosquitto_pub = required("mosquitto_pub", "mosquitto-clients")
    mosquitto_sub = required("mosquitto_sub", "mosquitto-clients")
    port = str(broker.port)
    arguments = ["-p", port, "-t", name, "-q", "2", "-r", "-m", "from mosquitto"]
    subprocess.run([mosquitto_pub, *arguments], check=True, timeout=60)
    assert sub(broker, tmp_path, "-t", name, "-C", "1", "-q", "2").stdout == "from mosquitto\n"
    pub(broker, tmp_path, "-t", name, "-q", "2", "-r", "-m", "from holdfast")
    done = subprocess.run(
        [mosquitto_sub, "-p", port, "-t", name, "-C", "1", "-q", "2"],
        *(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "from holdfast\n"


def test_a_killed_subscriber_loses_nothing(
    broker: BrokerProcess, start: Start, tmp_path: Path, name: str
) -> None:
    """At the worst the last ones are shown twice: they were not acknowledged yet."""
    kept_session(broker, tmp_path, name, name)
    given = [str(number) for number in range(3000)]
    pub(broker, tmp_path, "-t", name, "-l", given="\n".join(given))
    pub(broker, tmp_path, "-t", name, "-m", "end")
    shown: list[str] = []
    for _ in range(3):
        subscriber = start(broker, "sub", "-t", name, "-i", name, "-c")
        subscriber.wait_line("")  # how far it is by then is not for us to say
        subscriber.kill9()
        shown += subscriber.lines
        if "end" in shown:
            break
    if "end" not in shown:
        subscriber = start(broker, "sub", "-t", name, "-i", name, "-c")
        subscriber.wait_line("^end$")
        shown += subscriber.lines
    assert list(dict.fromkeys(shown)) == [*given, "end"]


@pytest.mark.parametrize("is_as_published", [False, True])
def test_retain_as_published(
    broker: BrokerProcess, start: Start, tmp_path: Path, name: str, is_as_published: bool
) -> None:
    pub(broker, tmp_path, "-t", name, "-m", "old", "-r")
    more = ["--retain-as-published"] if is_as_published else []
    subscriber = start(broker, "sub", "-t", name, "-F", "%r %p", *more)
    subscriber.wait_line("^1 old$")
    pub(broker, tmp_path, "-t", name, "-m", "new", "-r")
    subscriber.wait_line("^1 new$" if is_as_published else "^0 new$")


def test_no_local_leaves_out_what_the_client_publishes(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    """To remove a retained message is to publish an empty one."""
    for more, code in (([], 0), (["--no-local"], 27)):
        pub(broker, tmp_path, "-t", name, "-m", "x", "-r")
        options = ["--remove-retained", "-C", "2", "-W", "1", *more]
        assert sub(broker, tmp_path, "-t", name, *options).returncode == code


def test_a_session_is_kept_for_the_time_that_is_given(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    done = sub(broker, tmp_path, "-t", name, "-i", name, "-x", "1000", "-E")
    assert (done.returncode, done.stderr) == (0, "")
    pub(broker, tmp_path, "-t", name, "-m", "missed")
    assert sub(broker, tmp_path, "-i", name, "-c", "-t", name, "-C", "1").stdout == "missed\n"


def test_an_identifier_with_the_number_of_the_process(
    broker: BrokerProcess, start: Start, tmp_path: Path, name: str
) -> None:
    pub(broker, tmp_path, "-t", name, "-m", "here", "-r")
    subscriber = start(broker, "sub", "-t", name, "-I", f"{name}-")
    subscriber.wait_line("^here$")
    sub(broker, tmp_path, "-t", name, "-i", f"{name}-{subscriber.pid}", "-C", "1")
    assert subscriber.wait() == 7  # that was its name: its session was taken over


def test_debugging_says_more_and_quiet_less(new_broker: NewBroker, start: Start) -> None:
    broker = new_broker()
    broker.kill9()
    for more, said in (["-d"], "info client"), ([], "holdfast: not connected, trying again"):
        outbox = str(broker.data_dir.parent / f"q{len(more)}.db")
        publisher = start(broker, "pub", "-t", "a", "-m", "x", "--outbox", outbox, *more)
        publisher.wait_line(said)
        publisher.kill9()
    outbox = str(broker.data_dir.parent / "quiet.db")
    options = ["--outbox", outbox, "--quiet", "--drain-timeout", "0.1"]
    publisher = start(broker, "pub", "-t", "a", "-m", "x", *options)
    assert publisher.wait() == 8
    assert [line for line in publisher.lines if "trying again" in line] == []
