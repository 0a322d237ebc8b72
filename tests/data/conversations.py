"""Conversations every format is tried with: text only, one image, two images, several turns; in several languages."""

from __future__ import annotations

TALKS: dict[str, tuple[int, list[tuple[str, str]]]] = {
    "text": (0, [("user", "2 + 2 = ?  "), ("assistant", "四 — vier\n")]),
    "one": (1, [("user", "<image>\nWhat is it?"), ("assistant", "a cat")]),
    "two": (2, [("user", "<image> ou <image> ?"), ("assistant", "الأول")]),
    "turns": (1, [("system", "Réponds court."), ("user", "色は？<image>"), ("assistant", "赤です。 🎣"),
                  ("user", "Точно?"), ("assistant", "כן")]),
}  # fmt: skip
SINGLE = ("text", "one", "two")  # what M3IT has a place for
