from __future__ import annotations

from collections.abc import Callable

import pytest

from liit.data.formats import get_format
from liit.errors import InputError, unknown_name
from liit.evaluation.metrics import get_metric
from liit.features.settings import check_features
from liit.lifelong.methods import get_method
from liit.selection import select
from liit.selection._experts import find_expert
from liit.training.hooks import make_hook


def test_a_name_that_is_not_known_is_answered_with_the_nearest_and_the_list() -> None:
    known = ("exact-match", "chrf")
    assert unknown_name("metric", "exact", known) == (
        "unknown metric 'exact'; did you mean 'exact-match'? (known: chrf, exact-match)"
    )
    assert unknown_name("metric", "CHRF", known).startswith("unknown metric 'CHRF'; did you mean 'chrf'?")
    assert unknown_name("metric", "zzz", known) == "unknown metric 'zzz' (known: chrf, exact-match)"
    assert unknown_name("option", 3, ()) == "unknown option '3' (known: none)"


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda: select("replya", {"id": ["a"]}, 1), "unknown selector 'replya'; did you mean 'replay'"),
        (lambda: select("el2n", {"id": ["a"]}, 1, trimm=1), "unknown option 'trimm'"),
        (lambda: find_expert("entrpy"), "unknown expert 'entrpy'; did you mean 'entropy'"),
        (lambda: get_method("adapt-ing"), "unknown method 'adapt-ing'; did you mean 'adapt-inf'"),
        (lambda: make_hook("ewk", {}), "unknown hook 'ewk'; did you mean 'ewc'"),
        (lambda: make_hook("ewc", {"strenght": 1}), "unknown option 'strenght'; did you mean 'strength'"),
        (lambda: get_format("lava-json"), "unknown format 'lava-json'; did you mean 'llava-json'"),
        (lambda: get_metric("exact-mach"), "unknown metric 'exact-mach'; did you mean 'exact-match'"),
        (lambda: get_metric("anls", {"treshold": 1}), "unknown option 'treshold'; did you mean 'threshold'"),
        (lambda: check_features(["el2m"]), "unknown feature 'el2m'; did you mean 'el2n'"),
    ],
)
def test_every_registry_answers_in_the_same_words(ask: Callable[[], object], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        ask()
    assert expected in str(caught.value)
    assert "(known: " in str(caught.value)
