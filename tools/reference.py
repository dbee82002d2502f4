"""``python -m tools.reference``: write docs/reference/client.md from the docstrings.

It has all that ``import holdfast`` offers. It is read from the source, since compiled modules do
not tell their signatures.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import holdfast

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "reference" / "client.md"
SOURCE: Final = ROOT / "src"
WIDTH_MAX: Final = 100

HEAD: Final = """\
# The Python library

What `import holdfast` offers, made from the docstrings by `python -m tools.reference`. The first
steps are in [the tutorial](../guides/client.md); what is promised, and what happens when, is in the
guides for [the outbox](../guides/outbox.md), [receiving exactly once](../guides/inbox.md) and
[connections](../guides/connections.md).
"""

SECTIONS: Final = {
    "The client": (
        "Client",
        "Receipt",
        "Subscription",
        "Stream",
        "ReceivedMessage",
        "OutboxState",
    ),
    "The client without asyncio": ("SyncClient", "SyncReceipt", "SyncSubscription", "SyncStream"),
    "What a client is given": ("OutboxLimits", "Reconnect", "Will", "TlsOptions"),
    "Who the client is": ("Scram", "Token", "Authentication", "Exchange"),
    "A broker in the process": ("Server", "SyncServer"),
    "Errors": (
        "HoldfastError",
        "UsageError",
        "ConnectionLost",
        "Refused",
        "LimitExceeded",
        "ProtocolError",
        "StoreError",
        "StoreFull",
        "StoreLocked",
        "StoreTooNew",
        "StoreCorrupt",
        "ConfigError",
        "AuthenticatorUnavailable",
    ),
}

# Names for the parts of the library itself: an application has no use for them.
INNER: Final = {
    "Client": {
        "accept",
        "accept_nowait",
        "acknowledge",
        "add_subscription",
        "engine",
        "entry",
        "is_begun",
        "withdraw",
    },
    "Receipt": {"end", "finish"},
    "Stream": {
        "acknowledge_last",
        "deliver",
        "dismiss",
        "end",
        "error",
        "given_back",
        "is_ended",
        "share",
        "take_refusal",
    },
    "Subscription": {"end", "is_asked_for", "take_refusal", "take_suback", "wants"},
    "SyncClient": {"forked"},
    "SyncStream": {"finish", "forked", "is_finished", "ring"},
}
# Classes that an application makes an object of; of the others it is given some.
CALLED: Final = ("Client", "SyncClient", "Server", "SyncServer", "Scram", "Token", "Exchange")
# What several classes have in common is shown with each of them.
COMMON: Final = {"Stages": "holdfast.client.receipt"}
# Of the special methods, those that say how an object is used.
SPECIAL: Final = ("__await__", "__aiter__", "__anext__", "__iter__", "__next__")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def page() -> str:
    """The page as it should be. Raises ValueError if something is in no section, or has no text."""
    shown = [name for names in SECTIONS.values() for name in names]
    wanted = set(holdfast.__all__) - {"__version__"}
    if sorted(shown) != sorted(wanted):
        odd = sorted({*shown, *wanted} - ({*shown} & wanted))
        raise ValueError(f"expected each name of holdfast in one section: {odd}")
    parts = [HEAD]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in names:
            parts += _class(name)
    return "\n".join(parts)


def _class(name: str) -> Iterator[str]:
    node, lines = _source(name)
    yield f"### {name}\n"
    bases = [ast.unparse(base) for base in node.bases]
    known = [base for base in bases if base in holdfast.__all__]
    members = list(node.body)
    for base in bases:
        if base in COMMON:
            members = [*_source(base, COMMON[base])[0].body, *members]
    init = next((one for one in members if _is_function(one, "__init__")), None)
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
    if isinstance(init, ast.FunctionDef) and name in CALLED:
        yield _code(_signature(init, name))
    elif fields:
        yield _code("\n".join(lines[one.lineno - 1].strip() for one in fields))
    yield _text(node, name)
    if known:
        links = " and ".join(f"[{base}](#{base.lower()})" for base in known)
        yield f"It is a {links}, and has all that one has.\n"
    inner = INNER.get(name, set())
    for one in members:
        if not isinstance(one, Function) or one.name in inner:
            continue
        if one.name.startswith("_") and one.name not in SPECIAL:
            continue
        yield f"#### {name}.{one.name}\n"
        if any(ast.unparse(decorator) == "property" for decorator in one.decorator_list):
            assert one.returns is not None
            yield _code(f"{one.name}: {_plain(ast.unparse(one.returns))}")
        else:
            keyword = "async def " if isinstance(one, ast.AsyncFunctionDef) else "def "
            yield _code(_signature(one, f"{keyword}{one.name}"))
        yield _text(one, f"{name}.{one.name}")


def _source(name: str, module: str = "") -> tuple[ast.ClassDef, list[str]]:
    """A class of the package, and the lines of its file."""
    module = module or getattr(holdfast, name).__module__
    path = SOURCE / f"{module.replace('.', '/')}.py"
    text = path.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node, text.splitlines()
    raise ValueError(f"expected the class {name} in {path}")


def _is_function(node: ast.stmt, name: str) -> bool:
    return isinstance(node, Function) and node.name == name


def _signature(node: Function, name: str) -> str:
    """The call, in one line, or one for each argument if that is too long."""
    arguments = _arguments(node.args)
    returns = "" if node.returns is None else f" -> {_plain(ast.unparse(node.returns))}"
    if node.name == "__init__":
        returns = ""
    line = f"{name}({', '.join(arguments)}){returns}"
    if len(line) > WIDTH_MAX:
        inside = "".join(f"    {argument},\n" for argument in arguments)
        line = f"{name}(\n{inside}){returns}"
    return line


def _arguments(arguments: ast.arguments) -> list[str]:
    """The arguments without ``self``, as they are written."""
    without_self = ast.arguments(
        posonlyargs=arguments.posonlyargs,
        args=arguments.args[1:],
        vararg=arguments.vararg,
        kwonlyargs=arguments.kwonlyargs,
        kw_defaults=arguments.kw_defaults,
        kwarg=arguments.kwarg,
        defaults=arguments.defaults,
    )
    found: list[str] = []
    plain = without_self.args
    first_default = len(plain) - len(without_self.defaults)
    for number, one in enumerate(plain):
        default = without_self.defaults[number - first_default] if number >= first_default else None
        found.append(_argument(one, default))
    if without_self.vararg is not None:
        found.append(f"*{_argument(without_self.vararg, None)}")
    elif without_self.kwonlyargs:
        found.append("*")
    for one, default in zip(without_self.kwonlyargs, without_self.kw_defaults, strict=True):
        found.append(_argument(one, default))
    if without_self.kwarg is not None:
        found.append(f"**{_argument(without_self.kwarg, None)}")
    return found


def _argument(one: ast.arg, default: ast.expr | None) -> str:
    annotation = "" if one.annotation is None else f": {_plain(ast.unparse(one.annotation))}"
    value = "" if default is None else f" = {ast.unparse(default)}".replace("'", '"')
    return f"{one.arg}{annotation}{value}"


def _plain(annotation: str) -> str:
    """An annotation without the quotes of forward references."""
    return annotation.replace("'", "")


def _text(node: ast.ClassDef | Function, name: str) -> str:
    text = ast.get_docstring(node)
    if not text:
        raise ValueError(f"expected a docstring of {name}")
    text = re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL)
    return "\n\n".join(_paragraph(part) for part in text.split("\n\n")) + "\n"


def _paragraph(text: str) -> str:
    """A paragraph, or a list whose items begin with "- ", in the width of the documents."""
    parts = text.split("\n- ")
    items = [parts[0], *(f"- {part}" for part in parts[1:])]
    return "\n".join(
        textwrap.fill(
            " ".join(item.split()),
            130,
            subsequent_indent="  " if item.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    )


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
