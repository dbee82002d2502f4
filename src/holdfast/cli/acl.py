"""``holdfast acl``: what an ACL file says, decided by the code that the broker decides with."""

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from holdfast.cli.exit_codes import ExitCode, one_line
from holdfast.config import Settings, load_settings
from holdfast.errors import ConfigError, ProtocolError, Refused

if TYPE_CHECKING:
    from holdfast.auth.access_rules import Subject
    from holdfast.auth.acl import AclText
    from holdfast.broker.permissions import Permissions, Verdict

__all__ = ["ACL_HELP", "add_to"]

ACL_HELP: Final = "Look into an ACL file: check it, and ask which rule decides."
DENIED: Final = 1  # the exit code of ``acl test``

CHECK_HELP: Final = """Check an ACL file, as the broker does when it reads it.

It also names rules that decide nothing because an earlier one always does, and roles that look
misspelt. `holdfast config check` does so too, and knows the listeners.

Example:

```text
holdfast acl check acl.toml
```

Exit codes: 0 the file is in order; 1 internal failure; 2 wrong usage, or the file is wrong.
"""

TEST_HELP: Final = """Say whether a client may do something, and which rule decides.

ACTION is publish, subscribe or receive; TOPIC is a topic, or for subscribe a topic filter, which
may be shared. The client is as it would be after it was let in. Its roles are those that the file
gives to its user, and those given here, as a token or a plug-in would bring them.

The file is that of `--acl`, or else the setting `acl_file` of the configuration.

Examples:

```text
holdfast acl test --acl acl.toml --user ada --client desk publish site/door
holdfast acl test --config holdfast.toml --user meter-7 subscribe 'site/#'
holdfast acl test --acl acl.toml --attribute site=north receive north/door
```

Exit codes: 0 allowed; 1 denied; 2 wrong usage, or the file is wrong.
"""


class Action(StrEnum):
    """What may be asked about."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    RECEIVE = "receive"


app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


def add_to(parent: typer.Typer) -> None:
    """Add the subcommand."""
    parent.add_typer(app, name="acl", help=ACL_HELP)


@app.command(name="check", help=CHECK_HELP)
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The ACL file.")],
) -> None:
    """Read a file and say what is in it."""
    from holdfast.auth.acl_advice import advice

    acl = _read(file)
    for line in advice(acl):
        typer.echo(f"{file}: {line}")
    count = len(acl.rules)
    typer.echo(f"{file}: in order, {count} {'rule' if count == 1 else 'rules'}")


@app.command(name="test", help=TEST_HELP)
def decide(
    action: Annotated[Action, typer.Argument(metavar="ACTION", help="What the client does.")],
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic or topic filter.")],
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="User name. Without it: anonymous.")
    ] = None,
    client: Annotated[str, typer.Option(metavar="ID", help="Client identifier.")] = "",
    role: Annotated[
        list[str] | None, typer.Option(metavar="ROLE", help="A role; give it again for more.")
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An attribute; give it again for more."),
    ] = None,
    listener: Annotated[str, typer.Option(metavar="NAME", help="Name of the listener.")] = "",
    retain: Annotated[bool, typer.Option("--retain", help="Publish a retained message.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="Configuration file, for acl_file and more."),
    ] = None,
    acl: Annotated[Path | None, typer.Option(metavar="FILE", help="The ACL file.")] = None,
) -> None:
    """Print what is decided and by which rule, and leave with the exit code that says so."""
    from holdfast.auth.access_rules import Subject
    from holdfast.auth.acl import permissions_of

    if retain and action is not Action.PUBLISH:
        _fail("--retain: expected with publish alone")
    settings = _settings(config)
    file = settings.acl_file if acl is None else acl
    if file is None:
        _fail("expected --acl FILE, or a configuration with acl_file")
    text = _read(file)
    subject = Subject(client, user, listener, tuple(role or ()), _attributes(attribute or ()))
    rules = text.rules_for(subject)
    narrows = settings.acl_wide_subscriptions == "narrow"
    permissions = permissions_of(rules, subject)
    verdict = _verdict(permissions, action, topic, settings, retain=retain, narrows=narrows)
    what = "publish retained" if retain else action.value
    if verdict is None:
        typer.echo(f"denied: {what} {topic}\n  only the broker publishes under $SYS")
        raise typer.Exit(DENIED)
    word = "allowed" if verdict.is_allowed else "denied"
    typer.echo("\n".join([f"{word}: {what} {topic}", *_reasons(verdict, text, file, subject)]))
    raise typer.Exit(ExitCode.STOPPED if verdict.is_allowed else DENIED)


def _verdict(
    permissions: "Permissions",
    action: Action,
    topic: str,
    settings: Settings,
    *,
    retain: bool,
    narrows: bool,
) -> "Verdict | None":
    """What the broker would decide; None for what it takes from nobody."""
    from holdfast.broker.authorization import judged_topic
    from holdfast.broker.delayed import address_of, is_delayed
    from holdfast.protocol.topics import check_filter, check_topic, is_sys_topic

    try:
        if action is Action.SUBSCRIBE:
            check_filter(topic)
            return permissions.judge_subscribe(topic, narrows)
        check_topic(topic)
        if action is Action.RECEIVE:
            return permissions.judge_receive(topic)
        if is_delayed(topic):
            address_of(topic, settings.delayed_seconds_max)
    except (ProtocolError, Refused) as error:
        _fail(error.detail)
    if is_sys_topic(topic):
        return None
    return permissions.judge_publish(judged_topic(topic), retain)


def _reasons(verdict: "Verdict", acl: "AclText", file: Path, subject: "Subject") -> list[str]:
    rule = verdict.rule
    lines: list[str] = []
    if rule is None:
        count = len(acl.rules_for(subject))
        about = f"{count} of {len(acl.rules)} are about this client"
        lines.append(f"  no rule of {file} allows it: {about}")
    else:
        written = next(one for one in acl.rules if one.name == rule.name)
        lines.append(f"  {rule.name} of {file}: {written.text}")
        if rule.topic_filter not in (topic.text for topic in written.topics):
            lines.append(f"  for this client: {rule.topic_filter}")
    if verdict.part:
        what = "not delivered" if verdict.is_allowed else "not allowed"
        lines.append(f"  {what}: {verdict.part}")
    return lines


def _settings(config: Path | None) -> Settings:
    try:
        return load_settings(config_file=config, environment=os.environ)
    except ConfigError as error:
        _fail(one_line(error))


def _read(file: Path) -> "AclText":
    # Here and not above: no other command waits for it.
    from holdfast.auth.acl import read_acl

    try:
        return read_acl(file)
    except ConfigError as error:
        _fail(one_line(error))


def _attributes(given: Sequence[str]) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not name or not separator:
            _fail(f"--attribute: expected NAME=VALUE, {text} came")
        attributes[name] = value
    return attributes


def _fail(text: str) -> NoReturn:
    typer.echo(f"holdfast: {text}", err=True)
    raise typer.Exit(ExitCode.USAGE)
