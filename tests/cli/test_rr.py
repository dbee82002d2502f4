"""`holdfast rr` against a broker, with an answerer on the other end."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

from holdfast import Client
from tests.support.broker import BrokerProcess
from tests.support.command import assert_one_line, holdfast


@contextmanager
def answering(broker: BrokerProcess, topic: str) -> Iterator[list[str]]:
    """Answer each request with its payload in capitals; the response topics are noted."""
    seen: list[str] = []
    is_ready, is_over = threading.Event(), threading.Event()

    async def answer() -> None:
        async with Client(f"mqtt://127.0.0.1:{broker.port}") as client:
            requests = await client.subscribe(topic, qos=1)
            is_ready.set()
            while not is_over.is_set():
                try:
                    message = await asyncio.wait_for(anext(requests), 0.05)
                except TimeoutError:
                    continue
                assert message.response_topic is not None
                seen.append(message.response_topic)
                # Somebody else's answer comes first: it is not taken.
                await client.publish(message.response_topic, b"wrong", correlation_data=b"other")
                await client.publish(
                    message.response_topic,
                    message.payload.upper(),
                    correlation_data=message.correlation_data,
                    content_type=message.content_type,
                    user_properties=message.user_properties,
                )

    thread = threading.Thread(target=lambda: asyncio.run(answer()))
    thread.start()
    try:
        assert is_ready.wait(30)
        yield seen
    finally:
        is_over.set()
        thread.join(30)


def rr(broker: BrokerProcess, folder: Path, *arguments: str) -> "CompletedProcess[str]":
    return holdfast("rr", "-p", str(broker.port), *arguments, folder=folder)


def test_the_answer_is_shown(broker: BrokerProcess, tmp_path: Path, name: str) -> None:
    with answering(broker, name) as seen:
        done = rr(broker, tmp_path, "-t", name, "-m", "question")
        assert (done.returncode, done.stdout, done.stderr) == (0, "QUESTION\n", "")
        done = rr(broker, tmp_path, "-t", name, "-m", "x", "-e", f"{name}/answers", "-v")
        assert (done.returncode, done.stdout) == (0, f"{name}/answers X\n")
    assert seen[0].startswith("holdfast/response/")
    assert seen[1] == f"{name}/answers"


def test_properties_go_with_the_request_and_come_with_the_answer(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    with answering(broker, name):
        arguments = ["-t", name, "-m", "x", "--content-type", "text/x", "--user-property", "a=b=c"]
        done = rr(broker, tmp_path, *arguments, "--json")
    properties = json.loads(done.stdout)["properties"]
    assert properties["content_type"] == "text/x"
    assert properties["user_properties"] == [["a", "b=c"]]


def test_no_answer_is_told(broker: BrokerProcess, tmp_path: Path, name: str) -> None:
    done = rr(broker, tmp_path, "-t", name, "-n", "-W", "0.2")
    assert_one_line(done, 27, r"no answer within 0\.2 s")
