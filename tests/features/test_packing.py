"""Rows behind one beginning have the states that they have apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_decoders import FAMILIES, small_decoder, text_model
from tiny_vlm import mixed_samples, talk

from liit.config import FeatureSettings
from liit.data.sample import Sample
from liit.features import packing
from liit.features.engine import Extractor, Twin
from liit.features.packing import Pack, lay_out, pack_rows
from liit.features.passes import Passes
from liit.features.sharing import Sharing
from liit.model.chat import ChatEncoder, Encoded
from liit.model.vlm import VLM

IMAGE = 63


def row(*ids: int, answer: int = 2, name: str = "r") -> Encoded:
    """A row whose last tokens are its answer."""
    mask = np.arange(len(ids)) >= len(ids) - answer
    return Encoded(name, np.asarray(ids, dtype=np.int64), mask, ())


def test_packs_hold_every_row_once_and_save_tokens() -> None:
    rng = np.random.default_rng(0)
    stems = [rng.integers(3, 60, n).tolist() for n in (3, 9, 20, 20)]
    stems.append([*stems[2][:12], *rng.integers(3, 60, 6).tolist()])
    rows = [row(*stems[int(rng.integers(5))], *rng.integers(3, 60, int(rng.integers(2, 7)))) for _ in range(60)]
    for most in (10, 50, 10**6):
        packs = pack_rows(rows, [()] * 60, IMAGE, most)
        assert sorted(i for pack in packs for i in pack.rows) == list(range(60))
        for pack in packs:
            first = rows[pack.rows[0]].input_ids[: pack.prefix]
            assert all((rows[i].input_ids[: pack.prefix] == first).all() for i in pack.rows)
            assert pack.tokens == pack.prefix + sum(len(rows[i]) - pack.prefix for i in pack.rows)
            assert len(pack.rows) == 1 or (pack.prefix >= packing.SHORTEST and pack.tokens <= most)
        assert sum(pack.tokens for pack in packs) <= sum(map(len, rows))
    assert sum(pack.tokens for pack in packs) < 0.6 * sum(map(len, rows))


def test_packs_do_not_depend_on_the_order_of_the_rows() -> None:
    rows = [row(1, 2, 3, 4, 5, 6, i, 7) for i in range(9)] + [row(9, 9, 9, i) for i in range(3)]
    order = np.random.default_rng(0).permutation(12)
    plain = pack_rows(rows, [()] * 12, IMAGE, 100)
    mixed = pack_rows([rows[i] for i in order], [()] * 12, IMAGE, 100)
    assert {frozenset(p.rows) for p in plain} == {frozenset(int(order[i]) for i in p.rows) for p in mixed}


def test_rows_share_only_what_comes_after_all_their_images_and_only_with_the_same_ones() -> None:
    one = [row(5, IMAGE, IMAGE, 6, 7, 8, i, i) for i in (20, 21, 22)]
    late = [row(5, 6, 7, 8, 9, i, IMAGE, 9) for i in (20, 21)]
    packs = pack_rows([*one, *late], ["a", "a", "b", "c", "c"], IMAGE, 100)
    assert {pack.rows: pack.prefix for pack in packs} == {(0, 1): 6, (2,): 8, (3,): 8, (4,): 8}


def test_a_row_that_would_shorten_the_beginning_too_much_stays_out() -> None:
    long = list(range(3, 33))
    rows = [row(*long, 40 + i, 1) for i in range(5)] + [row(*long[:6], 50, 51)]
    packs = pack_rows(rows, [()] * 6, IMAGE, 1000)
    assert sorted(len(pack.rows) for pack in packs) == [1, 5]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("gemma2", "gemma3_text", "mistral")])
def test_states_behind_a_shared_beginning_are_those_of_separate_rows(family: str, implementation: str) -> None:
    model = small_decoder(family, implementation)
    stem = [5, 9, 3, 8, 4]
    rows = [row(*stem, 7, 7, 9), row(*stem, 6), row(11, 12, 13, 14), row(*stem, 7, 8)]
    packs = pack_rows(rows, [()] * 4, IMAGE, 100)
    assert sorted(len(pack.rows) for pack in packs) == [1, 3]
    packed = lay_out(packs, rows, torch.device("cpu"))
    allowed = packed.allowed
    if implementation == "eager":
        allowed = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)  # type: ignore[assignment]
    with torch.no_grad():
        together = packed.unpack(model(packed.input_ids, attention_mask=allowed, position_ids=packed.position_ids)[0])
        for states, number in zip(together, packed.rows, strict=True):
            alone = model(torch.from_numpy(rows[number].input_ids)[None])[0][0]
            torch.testing.assert_close(states[: len(alone)], alone, rtol=1e-4, atol=1e-4)


def test_cut_finds_every_rows_positions_in_its_pack() -> None:
    rows = [row(5, 9, 3, 8, i, i + 1, i + 2, answer=n) for i, n in ((20, 1), (30, 3), (40, 2))]
    rows += [row(50, 51, 52, answer=1), row(*range(3, 12), answer=4)]
    packed = lay_out([Pack((0, 1, 2), 4, 13), Pack((3,), 3, 3), Pack((4,), 9, 9)], rows, torch.device("cpu"))
    assert torch.equal(packed.unpack(packed.input_ids) * packed.mask, packed.unpack(packed.input_ids * 1) * packed.mask)
    positions = torch.tensor([[0, 6, 0], [6, 5, 4], [3, 5, 0], [2, 0, 0], [8, 1, 4]])
    real = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]]).bool()
    cut, slots = packed.cut(positions, real)
    assert cut.shape == (3, 7)
    for n in range(5):
        for s in range(3):
            if real[n, s]:
                place = cut[packed.owner[n], slots[n, s]]
                assert packed.input_ids[packed.owner[n], place] == rows[packed.rows[n]].input_ids[positions[n, s]]
                assert packed.position_ids[packed.owner[n], place] == positions[n, s]


def conversations() -> list[Sample]:
    """Few questions with many answers about few pictures of three sizes, and all shapes of rows besides."""
    words = ["cat", "dog", "red", "box", "yes", "no"]
    asked = ["What is it?", "Describe the first one in one sentence, please.", "Is it red?"]
    samples = [
        talk(f"{i}", f"<image>\n{asked[i % 3]}", f"{words[i % 6]} {words[i // 6]}", images=[i % 4]) for i in range(24)
    ]
    return samples + mixed_samples()


@pytest.mark.parametrize("batch_tokens", [60, 10**6])
@pytest.mark.parametrize("blind", ["drop", "zeros"])
def test_no_image_scores_are_the_same_and_cost_fewer_tokens(adapted: VLM, blind: str, batch_tokens: int) -> None:
    encoder = ChatEncoder(adapted)
    rows = [Twin(encoder.encode(s), encoder.encode(s, images=False) if s.images else None) for s in conversations()]
    out, tokens = {}, {}
    for share in (True, False):
        settings = FeatureSettings(blind=blind, batch_tokens=batch_tokens, share_beginnings=share)
        extractor = Extractor(adapted, ["blind_log_perplexity"], settings)
        assert extractor.blind is not None
        assert extractor.blind.share == share
        out[share] = extractor(rows)["blind_log_perplexity"]
        tokens[share] = extractor.report.blind_tokens
    np.testing.assert_allclose(out[True], out[False], rtol=1e-4)
    if batch_tokens > 60:
        assert tokens[True] < (0.5 if blind == "zeros" else 0.7) * tokens[False]


def test_pack_that_does_not_fit_into_memory_is_taken_apart(adapted: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ChatEncoder(adapted)
    rows = [Twin(encoder.encode(s), encoder.encode(s, images=False)) for s in conversations()[:24]]
    names = ["blind_log_perplexity"]
    expected = Extractor(adapted, names, FeatureSettings(share_beginnings=False))(rows)[names[0]]
    extractor = Extractor(adapted, names, FeatureSettings())
    longest = max(len(twin.blind) for twin in rows if twin.blind is not None)
    real = extractor.passes.run

    def run(batch: dict[str, torch.Tensor], *args: object) -> object:
        if batch["input_ids"].numel() > longest:
            raise MemoryError
        return real(batch, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(extractor.passes, "run", run)
    np.testing.assert_allclose(extractor(rows)[names[0]], expected, rtol=1e-4)
    assert extractor.report.out_of_memory > 0


def test_families_that_see_a_window_do_not_share() -> None:
    """The window of this one is far longer than the words that are tried out."""
    for family, window, shares in (("llama", None, True), ("qwen3", None, True), ("mistral", 40, False)):
        vlm = text_model(family)
        if window is not None:
            vlm.text_config.sliding_window = window
        vlm.max_length = 50
        assert Sharing(Passes(vlm, head=True)).packs == shares, family
    vlm.max_length = 40
    assert Sharing(Passes(vlm, head=True)).packs
