"""Commands that list what exists."""

from __future__ import annotations

import json

from liit.cli.app import app
from liit.cli.show import AsJson


@app.command()
def methods(as_json: AsJson = False) -> None:
    """List methods, selectors and hooks, and the features they need."""
    from liit.lifelong.methods import METHODS
    from liit.selection import selectors
    from liit.training.hooks import hooks

    found = {
        "methods": [
            {
                "name": m.name,
                "description": m.description,
                "selector": m.part.selector,
                "needs": list(m.needs),
                "hooks": [name for name, _ in m.hooks],
            }
            for m in METHODS.values()
        ],
        "selectors": [
            {"name": s.name, "description": s.description, "needs": list(s.needs), "reads": list(s.reads)}
            for s in selectors().values()
        ],
        "hooks": [{"name": h.name, "description": h.description, "needs": []} for h in hooks().values()],
    }
    if as_json:
        print(json.dumps(found))
        return
    for title, entries in found.items():
        print(f"{title}:")
        width = max(len(str(entry["name"])) for entry in entries)
        for entry in entries:
            needs = f" [needs {', '.join(entry['needs'])}]" if entry["needs"] else ""
            print(f"  {entry['name']!s:<{width}}  {entry['description']}{needs}")
        print()
    print("Every selector that takes a budget is a method too; a continuum file defines more under 'methods'.")
