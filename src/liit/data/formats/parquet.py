"""Parquet files of any layout, told by their columns: `messages`, `conversations`, `texts`, or M3IT's.

Written anew, a row gets the columns of `messages`, with its images inside.
"""

from __future__ import annotations

from liit.data.formats import messages
from liit.data.formats.layouts import parse_any
from liit.data.formats.registry import Format, register_format

register_format(
    Format(
        "parquet", "Parquet of any of these layouts, told by the columns (also The Cauldron's); .parquet",
        parse_any, messages.render, ("parquet",), columns=messages.columns,
    )
)  # fmt: skip
