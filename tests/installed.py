"""This project's entry points as installing it gives them, for a checkout that is not installed."""

import pathlib
import tomllib

ROOT = pathlib.Path(__file__).parents[1]


def entry_points(folder: pathlib.Path) -> str:
    """Writes them below a folder; what must be on Python's path, first, for them to be found."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    place = folder / "site" / "pqjax-0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: pqjax\nVersion: 0\n")
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {where}" for name, where in of.items())
        for group, of in groups.items()
    ]
    (place / "entry_points.txt").write_text("\n\n".join(lines))
    return str(place.parent)
