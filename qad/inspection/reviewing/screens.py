"""The screens over the review: help, a line to type into, a list to choose from, a text to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Input, Label, Static

from qad.errors import QadError
from qad.inspection.reviewing.keys import GROUPS, KEYS

_BOX = """
{name} {{ align: center middle; }}
{name} > #box {{ width: {width}; max-width: 98%; height: auto; max-height: 96%; border: round $primary; padding: 0 1; background: $surface; }}
"""


class Help(ModalScreen[None]):
    """The keys, in two columns."""

    CSS = _BOX.format(name="Help", width=78)
    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,question_mark,f1,enter,space", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        box = VerticalScroll(Static(self._text(), id="keys"), id="box")
        box.border_title = "Keys of the review  (Esc closes)"
        yield box

    @staticmethod
    def _text() -> Text:
        columns: list[list[Text]] = []
        for groups in (GROUPS[:2] + GROUPS[5:], GROUPS[2:5]):
            lines: list[Text] = []
            for group in groups:
                lines.append(Text(group, style="bold underline"))
                lines += [
                    Text.assemble((f"{key.shown:>5} ", "bold cyan"), key.text)
                    for key in KEYS
                    if key.group == group and key.text
                ]
            columns.append(lines)
        whole = Text()
        for row in range(max(map(len, columns))):
            left = columns[0][row] if row < len(columns[0]) else Text()
            right = columns[1][row] if row < len(columns[1]) else Text()
            left = left.copy()
            left.align("left", 40)
            whole.append_text(left).append_text(right).append("\n")
        return whole


class Prompt(ModalScreen[None]):
    """A line to type into; it stays open, and says why, while what was typed is refused.

    Parameters
    ----------
    title, value : str
    hint : str
    accept : callable
        Takes the text; a QadError that it raises is shown.
    """

    CSS = (
        _BOX.format(name="Prompt", width=76)
        + "Prompt #error { color: $error; height: auto; }\n#hint { color: $text-muted; }"
    )
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss", "Cancel")]

    def __init__(self, title: str, value: str, hint: str, accept: Callable[[str], None]) -> None:
        super().__init__()
        self._title, self._value, self._hint, self._accept = title, value, hint, accept

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        box = Vertical(
            Input(self._value, id="line", compact=True),
            Static(Text(self._hint), id="hint"),
            Static("", id="error"),
            id="box",
        )
        box.border_title = Text(self._title)
        yield box

    @on(Input.Submitted)
    def submit(self, event: Input.Submitted) -> None:
        """Hand the text on, or say why not."""
        try:
            self._accept(event.value)
        except QadError as error:
            self.query_one("#error", Static).update(Text(str(error)))
            return
        self.dismiss()


class Choice(ModalScreen[int | None]):
    """A table to choose a row from.

    Parameters
    ----------
    title : str
    header : sequence of str
    rows : sequence of sequence of str
    """

    CSS = _BOX.format(name="Choice", width="94%") + "Choice DataTable { height: auto; max-height: 18; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape,q,t", "dismiss", "Close"),
        ("j", "down", "Down"),
        ("k", "up", "Up"),
    ]

    def __init__(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self._title, self._header, self._rows = title, header, rows

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        table: DataTable[Text] = DataTable(cursor_type="row", id="table")
        table.add_columns(*self._header)
        for row in self._rows:
            table.add_row(*(Text(text) for text in row))
        box = Vertical(table, Label("Enter goes there, Esc closes"), id="box")
        box.border_title = Text(self._title)
        yield box

    def on_mount(self) -> None:
        """Give the table the keys."""
        self.query_one(DataTable).focus()

    def action_down(self) -> None:
        """Go a row down."""
        self.query_one(DataTable).action_cursor_down()

    def action_up(self) -> None:
        """Go a row up."""
        self.query_one(DataTable).action_cursor_up()

    @on(DataTable.RowSelected)
    def chosen(self, event: DataTable.RowSelected) -> None:
        """Return the row."""
        self.dismiss(event.cursor_row)


class Reading(ModalScreen[None]):
    """A text to scroll through."""

    CSS = _BOX.format(name="Reading", width="96%")
    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,d,enter", "dismiss", "Close")]

    def __init__(self, title: str, text: Text) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        box = VerticalScroll(Static(self._text), id="box")
        box.border_title = Text(self._title)
        yield box
