"""The documents: links lead somewhere, examples of configuration are right, lists are complete."""

import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

from holdfast.config import Settings
from holdfast.config.loading import load_settings
from tools import reference
from tools.configuration import models_in

REPOSITORY: Final = Path(__file__).parent.parent
PAGES: Final = sorted(
    [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("tests/*/*.md")]
)
NAMES: Final = [str(page.relative_to(REPOSITORY)) for page in PAGES]
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
BLOCK: Final = re.compile(r"^```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What links may point to in a page, as Markdown makes it from headings."""
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    if page.name == "configuration.in.md":
        return
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue  # elsewhere
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{link} is not there"
        if anchor:
            assert anchor in anchors(target), f"{link}: there is no such heading"


def test_the_security_page_names_every_library() -> None:
    text = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    for requirement in project["project"]["dependencies"]:
        name = re.match(r"[\w-]+", requirement)
        assert name is not None and name[0] in text, requirement


def test_the_configuration_of_the_deployment_page_is_right(tmp_path: Path) -> None:
    page = REPOSITORY / "docs" / "operating" / "deployment.md"
    (example,) = BLOCK.findall(page.read_text(encoding="utf-8"))
    file = tmp_path / "a.toml"
    file.write_text(example)
    settings = load_settings(config_file=file)
    assert isinstance(settings, Settings)
    assert settings.data_dir == Path("/var/lib/holdfast")


@pytest.mark.parametrize("name", ["SECURITY.md", "docs/operating/deployment.md"])
def test_settings_are_called_by_their_names(name: str) -> None:
    """What looks like a setting in a page for operators is one."""
    text = re.sub(
        r"^```.*?^```", "", (REPOSITORY / name).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    known = {*Settings.model_fields}
    for table in models_in(Settings):
        known |= table.model_fields.keys()
    found = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?: = [^`]*)?`", text))
    assert len(found) > 2
    assert found <= known, found - known


def test_the_reference_of_the_library_is_current() -> None:
    written = reference.PAGE.read_text(encoding="utf-8")
    assert written == reference.page(), "run `python -m tools.reference`"
