"""docs/guides/acl.md, typed through."""

from pathlib import Path

from tests.support.guide import Guide


def test_the_guide_works_as_it_is_written(tmp_path: Path) -> None:
    with Guide("acl.md", tmp_path) as guide:
        guide.follow()
