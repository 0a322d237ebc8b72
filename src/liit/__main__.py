"""`python -m liit` is the command `liit`."""

from __future__ import annotations

from liit.cli import main

if __name__ == "__main__":
    main()
