from __future__ import annotations

from pathlib import Path

import pytest

from zsvss.results.atomic_files import fill_in


def test_a_part_of_a_page_is_written_anew(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("above\n<!-- numbers -->\nold\n<!-- end of numbers -->\nbelow\n")
    fill_in(page, "numbers", "new")
    fill_in(page, "numbers", "newer")
    assert page.read_text() == "above\n<!-- numbers -->\nnewer\n<!-- end of numbers -->\nbelow\n"
    page.write_text("<!-- end of numbers --> <!-- numbers -->")
    with pytest.raises(ValueError, match=r"README\.md must have the lines '<!-- numbers -->'"):
        fill_in(page, "numbers", "new")
