import pytest
import torch

from deadweight.data import load_text
from deadweight.errors import SourceError


def test_the_standard_library_is_real_text_in_two_parts():
    text = load_text("embedded:stdlib")
    assert len(text.train) > 1_000_000
    assert 0.05 < len(text.validation) / len(text.train) < 0.3
    assert b"def __init__(self" in bytes(text.train.tolist())
    assert load_text("embedded:stdlib").fingerprint == text.fingerprint


def test_a_file_is_cut_after_nine_tenths(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(bytes(range(256)) * 100)
    text = load_text(f"text:{path}")
    assert bytes(torch.cat([text.train, text.validation]).tolist()) == path.read_bytes()
    assert len(text.validation) == 2560


def test_a_folder_holds_out_whole_files(tmp_path):
    for number in range(11):
        (tmp_path / f"{number:02}.md").write_bytes(bytes([65 + number]) * 2000)
    text = load_text(f"text:{tmp_path}")
    assert set(text.validation.tolist()) == {65, 75, 10}
    assert not {65, 75} & set(text.train.tolist())


@pytest.mark.parametrize(
    ("source", "message"),
    [("text:/nowhere.txt", "0 bytes in 0 files"), ("embedded:bible", "unknown text source"), ("csv:x", "text:PATH")],
)
def test_what_cannot_be_learned_from_is_refused(source, message):
    with pytest.raises(SourceError, match=message):
        load_text(source)
