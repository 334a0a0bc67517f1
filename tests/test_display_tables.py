"""The one writer of HTML tables: what it shows, escapes and aligns."""

import pandas as pd
import pytest

from sarlab.display.tables import html_table


def test_everything_is_escaped_but_the_named_markup():
    frame = pd.DataFrame({"a<b": ["<i>x</i>"], "shown": ["<b>y</b>"]})
    found = html_table(frame, "1 < 2", markup=["shown"])
    assert "&lt;i&gt;x&lt;/i&gt;" in found and "<b>y</b>" in found
    assert "a&lt;b" in found and "1 &lt; 2" in found
    assert "<i>" not in found


def test_numbers_stand_right_text_left_and_a_missing_value_is_a_dash():
    frame = pd.DataFrame(
        {
            "run": ["1", "2"],
            "p": ["< 0.001", "0.250"],
            "Δ": ["−3.1 [−4.0, −2.0]", "+0.5 [−1, 2]"],
            "note": ["7 seeds", "another"],
            "SAR": [0.5, None],
        }
    )
    found = html_table(frame)
    row = found.split("<tbody>")[1].split("</tr>")[1]
    sides = [cell.split("text-align:")[1].split(";")[0] for cell in row.split("<td")[1:]]
    assert sides == ["left", "right", "right", "left", "right"]
    assert row.endswith(">–</td>")
    assert found.count("overflow-x:auto") == 1  # a wide table scrolls by itself


def test_columns_of_one_name_and_given_sides():
    frame = pd.DataFrame([["3", ">", "4"]], columns=["SAR", "", "SAR"])
    assert html_table(frame, align="lcr").count("text-align:center") == 2
    with pytest.raises(ValueError, match="for 3 columns"):
        html_table(frame, align="lc")


def test_an_empty_table_keeps_its_head():
    assert "<th" in html_table(pd.DataFrame({"step": [], "SAR": []}))
