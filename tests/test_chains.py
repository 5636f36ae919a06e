"""Chains by name, and what is refused before anything is asked."""

import pytest

from agents.chat import open_model, parse_address
from agents.errors import KeyMissing, ModelUnavailable, NotFound
from agents.plugins import load_plugin
from tasks.chains import check_models, find_chain, load_chains
from tasks.models import remote_places
from tasks.storage.settings import read_settings

KEYS = ("ANTHROPIC_API_KEY", "OPENROUTER_API_KEY")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEYS, "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def models(name: str) -> list[str]:
    return [rung.model for chain in find_chain(name) for rung in chain.rungs]


@pytest.mark.parametrize("name", load_chains())
def test_every_model_of_a_chain_is_known_and_tried_up_to_four_times(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for key in KEYS:
        monkeypatch.setenv(key, "k")
    check_models(models(name))
    for model in models(name):
        assert load_plugin("models", parse_address(model).provider)
    assert {rung.attempts for chain in find_chain(name) for rung in chain.rungs} == {4}


def test_every_key_that_is_missing_is_named() -> None:
    with pytest.raises(KeyMissing) as raised:
        check_models(models("quality"))
    assert raised.value.remedy == "Set ANTHROPIC_API_KEY. Set OPENROUTER_API_KEY."


@pytest.mark.parametrize("address", ["nobody/model", "anthropic/claude-sonnet-4-20250514"])
def test_an_unknown_model_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    with pytest.raises(NotFound):
        check_models(["scripted/write", address])


def test_what_is_only_not_there_now_is_left_to_the_chain() -> None:
    check_models(["scripted/missing", "scripted/write"])
    with pytest.raises(ModelUnavailable):
        open_model("scripted/missing", remote_places(read_settings()))


def test_an_unknown_chain_is_told_what_there_is() -> None:
    with pytest.raises(NotFound, match="Known: embedded, quality"):
        find_chain("best")
