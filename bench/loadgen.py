"""The load generator's process: takes orders as lines of JSON, answers each with one line.

Kept apart from the process that starts brokers and writes reports, so that it has a core to itself
and nothing else to do. It ends when its standard input ends.
"""

import gc
import json
import socket
import sys
from dataclasses import asdict
from typing import TextIO

from bench.endpoints import Misbehaved
from bench.flow import Flow, run_flow
from bench.sessions import (
    close_sessions,
    first_message_s,
    open_sessions,
    puback_times,
    publish_one,
)

Order = dict[str, object]


class Generator:
    """Carries out orders; keeps the sessions that an order left open for a later one."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def obey(self, order: Order) -> object:
        """What the order gave, fit for JSON. Raises Misbehaved, OSError or ValueError."""
        port = _int(order, "port")
        match order["do"]:
            case "flow":
                parameters = order["flow"]
                assert isinstance(parameters, dict)
                return asdict(run_flow(Flow(**parameters), port, _int(order, "broker_pid")))
            case "open":
                first = _int(order, "first")
                self._held += open_sessions(
                    port,
                    _str(order, "prefix"),
                    range(first, first + _int(order, "count")),
                    durable=bool(order["durable"]),
                    topic=_str(order, "topic"),
                    qos=_int(order, "qos"),
                )
                return len(self._held)
            case "close":
                held, self._held = self._held, []
                close_sessions(held)
                return len(held)
            case "drop":
                for sock in self._held:
                    sock.close()
                self._held.clear()
                return 0
            case "puback_times":
                return puback_times(port, _int(order, "count"), warmup=_int(order, "warmup"))
            case "publish":
                publish_one(port, _str(order, "topic"), _str(order, "payload").encode())
                return 1
            case "first_message":
                return first_message_s(
                    port, _str(order, "client_id"), _str(order, "payload").encode()
                )
            case unknown:
                raise ValueError(f"unknown order {unknown!r}")


def serve(orders: TextIO, answers: TextIO) -> None:
    """Obey until the orders end. An order that fails is answered with its reason."""
    generator = Generator()
    gc.disable()
    for line in orders:
        answer: dict[str, object]
        try:
            answer = {"ok": generator.obey(json.loads(line))}
        except (Misbehaved, OSError, ValueError) as error:
            answer = {"error": f"{error}" or type(error).__name__}
        gc.collect()
        print(json.dumps(answer), file=answers, flush=True)


def _int(order: Order, key: str) -> int:
    value = order[key]
    assert isinstance(value, int)
    return value


def _str(order: Order, key: str) -> str:
    value = order[key]
    assert isinstance(value, str)
    return value


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
