import pytest

from deadweight.errors import SourceError
from deadweight.source import parse_source


@pytest.mark.parametrize(
    ("text", "scheme", "name", "options"),
    [
        ("timm:vit_base_patch16_224", "timm", "vit_base_patch16_224", {}),
        ("timm:vit_tiny?pretrained=false", "timm", "vit_tiny", {"pretrained": "false"}),
        (r"folder:C:\pictures\cats", "folder", r"C:\pictures\cats", {}),
        (r"csv:C:\a.csv?text=body&label=stars", "csv", r"C:\a.csv", {"text": "body", "label": "stars"}),
        ("folder:/what is this?/x", "folder", "/what is this?/x", {}),
        (
            "csv:a.csv?template=Q & A: {text}\\nA:&label=y",
            "csv",
            "a.csv",
            {"template": "Q & A: {text}\\nA:", "label": "y"},
        ),
        ("csv:a.csv?template=C++? {text} Is it?", "csv", "a.csv", {"template": "C++? {text} Is it?"}),
        ("csv:who?.csv?template=100%25 {text}=%26b", "csv", "who?.csv", {"template": "100% {text}=&b"}),
        ("csv:a.csv?text=a+b&words=", "csv", "a.csv", {"text": "a+b", "words": ""}),
        ("csv:a.csv?text=50% off", "csv", "a.csv", {"text": "50% off"}),
        ("csv:a.csv?text=my%20column&label=y", "csv", "a.csv", {"text": "my column", "label": "y"}),
    ],
)
def test_a_source_string_is_split(text, scheme, name, options):
    source = parse_source(text)
    assert (source.scheme, source.name, source.options) == (scheme, name, options)


@pytest.mark.parametrize("text", ["vit_base", r"C:\models\vit", "", "timm:", ":x", "Timm:vit"])
def test_a_string_without_a_kind_is_refused_with_an_example(text):
    with pytest.raises(SourceError, match="timm:vit_base_patch16_224"):
        parse_source(text)


def test_an_option_given_twice_is_refused():
    with pytest.raises(SourceError, match=r"the option 'text' twice(.|\n)*%26"):
        parse_source("csv:a.csv?text=a&label=b&text=c")


@pytest.mark.parametrize("text", ["2.5", "8", "17", "-9", "", "nine", "1e1"])
def test_a_number_out_of_range_is_refused(text):
    assert parse_source("folder:x?bits=12").number("bits", lowest=9, highest=16) == 12
    assert parse_source("folder:x").number("bits", lowest=9) is None
    with pytest.raises(SourceError, match=r"bits=.*\n.*9 to 16"):
        parse_source(f"folder:x?bits={text}").number("bits", lowest=9, highest=16)


def test_a_repository_has_revision_and_split():
    assert parse_source("hf:org/name@v1.2#test").repository == ("org/name", "v1.2", "test")
    assert parse_source("hf:org/name").repository == ("org/name", None, None)


def test_a_flag_that_is_neither_yes_nor_no_is_refused():
    assert parse_source("timm:x?pretrained=0").flag("pretrained", True) is False
    with pytest.raises(SourceError, match="pretrained='maybe'"):
        parse_source("timm:x?pretrained=maybe").flag("pretrained", True)
