from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from liit.report.measured import how_measured


def run(label: str, *evaluations: dict[str, Any] | None) -> Any:
    return SimpleNamespace(
        label=label,
        continuum=SimpleNamespace(skills=("signs", "talk", "never")),
        steps=[SimpleNamespace(evaluation=evaluation) for evaluation in evaluations],
    )


def entry(**more: Any) -> dict[str, Any]:
    return {"metric": "chrf", "score": 0.5, "n": 12, "wrong_format": 0, **more}


def test_metric_options_version_and_corpus_values_are_shown_of_the_last_evaluation() -> None:
    facts = {"corpus_chrf": 41.26, "signature": "nrefs:1"}
    early = {"talk": entry(facts={"corpus_chrf": 9.9})}
    late = {"talk": entry(facts=facts, options={"word_order": 2}), "signs": entry(metric="anls", version=3)}
    signs, talk = how_measured([run("replay", early, late, None)])
    assert (signs.skill, signs.metric, signs.version, signs.rows, signs.facts) == ("signs", "anls", "3", 12, "")
    assert (talk.metric, talk.version, talk.facts) == ("chrf (word_order 2)", "", "corpus chrf 41.3")


def test_several_runs_have_their_facts_by_name() -> None:
    runs = [run(name, {"talk": entry(facts={"corpus_bleu": value})}) for name, value in (("a", 10.0), ("b", 20.0))]
    assert [measure.facts for measure in how_measured(runs)] == ["a: corpus bleu 10.0; b: corpus bleu 20.0"]
