"""``holdfast outbox``: the tools to look after the outbox file of a client."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.output import failures, size, tell
from holdfast.client.outbox_reading import look_into
from holdfast.client.outbox_repair import OutboxRepair, repair_outbox
from holdfast.client.records import LoadedOutbox, LoadedOutgoing

__all__ = ["OUTBOX_HELP", "add_to", "app"]

OUTBOX_HELP: Final = "Look after the outbox file of a client: show, check and repair it."
SHOWN: Final = 20  # messages, if nothing else is said

_FILE: Final = "FILE is what `holdfast pub --outbox` or `Client(outbox=...)` was given."

SHOW_HELP: Final = f"""Say what is in an outbox file: how much, how old, and which messages.

It reads one moment of the file and writes nothing; the client may run. Payloads are not shown.
{_FILE}

Examples:

```text
holdfast outbox show meter.db
holdfast outbox show meter.db --top 0 --json
```

Exit codes: 0 done; 1 internal failure; 2 wrong usage; 4 the file cannot be read (missing, written
by a newer version); 5 it is damaged, or no outbox.
"""

CHECK_HELP: Final = f"""Verify an outbox file: every page and every row.

It reads one moment of the file and writes nothing; the client may run. {_FILE}

Examples:

```text
holdfast outbox check meter.db
holdfast outbox check meter.db --json
```

Exit codes: 0 sound; 1 internal failure; 2 wrong usage; 4 the file cannot be read (missing, written
by a newer version); 5 it is damaged, or no outbox.
"""

REPAIR_HELP: Final = f"""Put what is sound of a damaged outbox file into a new one.

The client has to be stopped. The damaged file stays beside it, whole, under a dated name. A file
without damage is left as it is. {_FILE}

Examples:

```text
holdfast outbox repair meter.db
holdfast outbox repair meter.db --json
```

Exit codes: 0 nothing was lost; 1 internal failure; 2 wrong usage; 4 the file cannot be used
(missing, locked by a client, no space); 5 repaired, and something is lost or may be, or no outbox.
"""

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The file of an outbox.")]


def add_to(parent: typer.Typer) -> None:
    """Add the subcommand."""
    parent.add_typer(app, name="outbox", help=OUTBOX_HELP)


@app.command(name="show", help=SHOW_HELP)
def _show(
    file: File,
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=0, help="How many messages, oldest first.")
    ] = SHOWN,
    as_json: Json = False,
) -> None:
    with failures():
        loaded = look_into(file)
        now = datetime.now(UTC)
        values = _values(file, loaded, now)
        messages = [_message(entry) for entry in loaded.outgoing[:top]]
        lines = [_summary(values), *(_line(message) for message in messages)]
        if len(loaded.outgoing) > top > 0:
            lines.append(f"... and {len(loaded.outgoing) - top} more")
        tell(values | {"outgoing": messages}, "\n".join(lines), as_json=as_json)


@app.command(name="check", help=CHECK_HELP)
def _check(file: File, as_json: Json = False) -> None:
    with failures():
        loaded = look_into(file)
        values = _values(file, loaded, datetime.now(UTC)) | {"is_sound": True}
        tell(values, f"{file}: sound; {_counted(values)}", as_json=as_json)


@app.command(name="repair", help=REPAIR_HELP)
def _repair(file: File, as_json: Json = False) -> None:
    with failures():
        report = repair_outbox(file, datetime.now(UTC))
        tell(_repair_values(report), "\n".join(_repair_lines(report)), as_json=as_json)
        if report.is_damaged:
            raise typer.Exit(ExitCode.DAMAGE)


def _values(file: Path, loaded: LoadedOutbox, now: datetime) -> dict[str, object]:
    waiting = [entry for entry in loaded.outgoing if not entry.is_released]
    queued = [entry.queued_at_ms for entry in loaded.outgoing if entry.queued_at_ms > 0]
    age_s = max(0.0, now.timestamp() - min(queued) / 1000) if queued else 0.0
    return {
        "file": str(file),
        "client_id": loaded.client_id,
        "messages": len(waiting),
        "bytes": sum(
            len(entry.topic.encode()) + len(entry.packed_properties) + len(entry.payload)
            for entry in waiting
        ),
        "released": len(loaded.outgoing) - len(waiting),
        "oldest_age_s": round(age_s, 3),
        "held": len(loaded.incoming),
        "held_handed_over": sum(entry.is_handed for entry in loaded.incoming),
        "next_seq": loaded.next_seq,
        "next_delivery_id": loaded.next_delivery_id,
    }


def _summary(values: dict[str, object]) -> str:
    client_id = values["client_id"]
    named = f"client {client_id!r}" if client_id else "no client identifier yet"
    return f"{values['file']}: {named}; {_counted(values)}"


def _counted(values: dict[str, object]) -> str:
    """The counts, in words."""
    count, released, held = values["messages"], values["released"], values["held"]
    what = "message" if count == 1 else "messages"
    parts = [f"{count} {what} of {size(int(str(values['bytes'])))} to be sent"]
    if released:
        parts.append(f"{released} sent, to be completed (QoS 2)")
    if count or released:
        parts.append(f"the oldest {_age(float(str(values['oldest_age_s'])))} old")
    if held:
        parts.append(f"{held} identifiers of QoS 2 messages held")
    return ", ".join(parts)


def _age(seconds: float) -> str:
    """A time, for a person."""
    whole = int(seconds)
    for name, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if whole >= 2 * length:
            return f"{whole // length} {name}s"
    return f"{seconds:.1f} seconds" if seconds < 10 else f"{whole} seconds"


def _message(entry: LoadedOutgoing) -> dict[str, object]:
    return {
        "seq": entry.seq,
        "stage": "released" if entry.is_released else "stored",
        "qos": entry.qos,
        "retain": entry.retain,
        "topic": entry.topic,
        "payload_bytes": len(entry.payload),
        "queued_at": _time(entry.queued_at_ms),
        "expires_at": _time(entry.expires_at_ms) if entry.expires_at_ms else None,
    }


def _line(message: dict[str, object]) -> str:
    if message["stage"] == "released":
        return f"{message['seq']}: {message['queued_at']} QoS 2, received by the server"
    retained = ", retained" if message["retain"] else ""
    expires = f", expires {message['expires_at']}" if message["expires_at"] else ""
    topic = str(message["topic"])
    shown = "".join(one if one.isprintable() else "?" for one in topic)
    return (
        f"{message['seq']}: {message['queued_at']} QoS {message['qos']}{retained} {shown}"
        f" ({message['payload_bytes']} bytes{expires})"
    )


def _time(unix_ms: int) -> str:
    """A time as ISO 8601 says it, in UTC; a damaged clock may be beyond the calendar."""
    try:
        return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{unix_ms} ms"


def _repair_values(report: OutboxRepair) -> dict[str, object]:
    return {
        "file": report.file,
        "client_id": report.client_id,
        "messages": report.messages,
        "released": report.released,
        "held": report.held,
        "set_aside": report.set_aside,
        "findings": report.findings,
        "losses": report.losses,
    }


def _repair_lines(report: OutboxRepair) -> list[str]:
    kept = f"{report.messages} messages, {report.released} sent, {report.held} identifiers held"
    if not report.set_aside:
        return [f"{report.file}: sound, and left as it is; {kept}"]
    lines = [f"found: {finding}" for finding in report.findings]
    lines += [f"lost: {loss}" for loss in report.losses]
    lines.append(f"{report.file}: repaired; kept {kept}")
    lines.append(f"the damaged file is {report.set_aside[0]}")
    return lines
