"""The lines of the magics."""

import pytest

from lazynb.errors import OptionError
from lazynb.notebook.arguments import ask_parser, engine_options, generation


def asked(line):
    return generation(ask_parser().parse(line))


@pytest.mark.parametrize(
    "line", ["m --max-tokens 20", "m --max_tokens 20", "m --max_tokens=20", "--max-tokens=20 m"]
)
def test_options_have_the_openai_names_with_either_dash(line):
    assert asked(line) == {"max_tokens": 20}


def test_values_have_types():
    line = 'm --temperature 0.5 --stop \'["a"]\' --seed 1 --ignore-eos true --response-format \'{"type": "json_object"}\''
    assert asked(line) == {
        "temperature": 0.5,
        "stop": ["a"],
        "seed": 1,
        "ignore_eos": True,
        "response_format": {"type": "json_object"},
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("m --temprature 1", "--temperature"),
        ("m --max-tokens many", "integer"),
        ("", "MODEL"),
        ("m extra", "one word too many"),
        ("m 'open", "quotes"),
    ],
)
def test_an_error_is_one_line_with_a_suggestion(line, said):
    with pytest.raises(OptionError, match=said) as caught:
        asked(line)
    assert "\n" not in caught.value.message


def test_engine_options_pass_through():
    words = ["--n-ctx", "2048", "n_parallel=4", "--flash-attn=on", "--mlock"]
    assert engine_options(words) == {
        "n_ctx": "2048",
        "n_parallel": "4",
        "flash_attn": "on",
        "mlock": "true",
    }
