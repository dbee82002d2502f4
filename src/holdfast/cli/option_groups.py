"""Options that several commands share, as dataclasses; and ``-D`` as Mosquitto has it.

A command takes a group as one parameter, whose fields become its options:

    @dataclass(frozen=True, slots=True)
    class ServerOptions:
        host: Annotated[str, typer.Option("-h", "--host")] = "localhost"

    def pub(server: ServerOptions, *, topic: Annotated[str, typer.Option("-t")]) -> None: ...

    parent.command(cls=ClientCommand)(with_groups(pub))
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Final, get_type_hints

from typer.core import TyperCommand

from holdfast.cli.quick_start import quickened
from holdfast.errors import ProtocolError, UsageError

if TYPE_CHECKING:
    from typer._click import Context, Parameter

__all__ = ["PROPERTY_PARTS", "ClientCommand", "checked", "with_groups"]

# Stands between the parts of a ``-D`` that were arguments of their own: no argument can have it.
PROPERTY_PARTS: Final = "\0"
_PROPERTY: Final = ("-D", "--property")
_USER_PROPERTY: Final = "user-property"


def checked(option: str, check: Callable[[str], None], values: Iterable[str]) -> None:
    """Have the protocol's own check look at the values of an option. Raises UsageError."""
    for value in values:
        try:
            check(value)
        except ProtocolError as error:
            raise UsageError(f"{option}: {error.detail}") from None


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its groups as parameters of its own, as Typer sees it."""
    groups: dict[str, type] = {}
    shown: list[inspect.Parameter] = []
    own: list[inspect.Parameter] = []
    hints = get_type_hints(command, include_extras=True)
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if isinstance(hint, type) and is_dataclass(hint):
            groups[parameter.name] = hint
            shown += _parameters(hint)
        else:
            own.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))

    def run(**values: object) -> None:
        built = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**built, **values)

    # What a command is about comes first in its help.
    run.__signature__ = inspect.Signature([*own, *shown])  # type: ignore[attr-defined]  # for Typer
    run.__doc__ = command.__doc__
    return run


def _parameters(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


class ClientCommand(TyperCommand):
    """A command with ``-D PACKET IDENTIFIER VALUE`` as Mosquitto has it.

    The number of values of a ``-D`` depends on one of them (a user-property has a name as well),
    which no declaration of an option can say.
    """

    def get_params(self, ctx: "Context") -> "list[Parameter]":
        """All parameters, that of the help included."""
        return quickened(super().get_params(ctx))

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        """Read the arguments, after those of each ``-D`` were made one."""
        with_value = {
            name
            for parameter in self.params
            if not getattr(parameter, "is_flag", False) and name_is_option(parameter.opts)
            for name in parameter.opts
        }
        return super().parse_args(ctx, folded(args, with_value))


def name_is_option(names: Sequence[str]) -> bool:
    """Whether a parameter with these names is an option, and no argument."""
    return all(name.startswith("-") for name in names)


def folded(arguments: Sequence[str], with_value: set[str]) -> list[str]:
    """The arguments with the parts of each ``-D`` in one, ``PROPERTY_PARTS`` between them.

    ``with_value`` names the options whose value follows: a ``-D`` there is that value.
    """
    given = list(arguments)
    result: list[str] = []
    while given:
        argument = given.pop(0)
        if argument == "--":
            return [*result, argument, *given]
        result.append(argument)
        if argument in _PROPERTY:
            count = 4 if given[1:2] == [_USER_PROPERTY] else 3
            result.append(PROPERTY_PARTS.join(given[:count]))
            del given[:count]
        elif argument in with_value and given:
            result.append(given.pop(0))
    return result
