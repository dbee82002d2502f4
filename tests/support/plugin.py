"""A package as an installer leaves it behind, without installing anything."""

import tomllib
from pathlib import Path


def install(folder: Path, module: str, code: str, pyproject: str) -> Path:
    """Put a module into a folder, with the metadata that its pyproject.toml asks for."""
    project = tomllib.loads(pyproject)["project"]
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    metadata = folder / f"{module}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, entries in project["entry-points"].items():
        lines.append(f"[{group}]")
        lines += [f"{name} = {value}" for name, value in entries.items()]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder
