"""The screen of the review: a head line, the spectrum, a foot line; one key an action."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from qad.errors import QadError
from qad.inspection.axes import Size
from qad.inspection.details import describe
from qad.inspection.labels import user
from qad.inspection.neighbours import LatentSpace, Neighbour
from qad.inspection.plot import as_rich, draw
from qad.inspection.report import report_lines
from qad.inspection.reviewing.keys import KEYS
from qad.inspection.reviewing.screens import Choice, Help, Prompt, Reading
from qad.inspection.reviewing.session import Session
from qad.inspection.reviewing.shelf import Shelf
from qad.inspection.scene import LEAST_PIXELS, Frame, PlotOptions, driving_region, extent
from qad.inspection.spectrum import Spectrum
from qad.inspection.tables import Tables
from qad.inspection.text import cell, one_line, shortened
from qad.storage.labels import Label
from qad.terminal.console import printable

POLL_S = 1.0
"""How often the labels of others are looked for."""
AHEAD = 4
"""Spectra read ahead."""
N_NEIGHBOURS = 20
LABEL_STYLES = {
    "interesting": "bold green",
    "known": "bold yellow",
    "artefact": "bold red",
    "boring": "bold bright_black",
}
FOOT = "n next  p prev  i k a b label  u undo  c comment  + - zoom  z region  ← → redshift  ? help"


class Review(App[int]):
    """The review.

    Parameters
    ----------
    tables : Tables
    session : Session
    options : PlotOptions
        How spectra are drawn at first.
    background : {"dark", "light"}
    """

    CSS = """
    #head, #foot, #state { height: 1; padding: 0; }
    #head { background: $primary-background; color: $text; }
    #foot { color: $text-muted; }
    #plot { height: 1fr; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key.keys, key.action, key.text, show=False, priority=False) for key in KEYS
    ]

    def __init__(self, tables: Tables, session: Session, options: PlotOptions, background: str = "dark") -> None:
        super().__init__()
        self.tables, self.session, self.options = tables, session, options
        self.theme = "textual-light" if background == "light" else "textual-dark"
        self._background = background
        self._shelf = Shelf(tables)
        self._space: LatentSpace | None = None
        self._view: tuple[float, float] | None = None
        self._shift = 0.0
        self._spectrum: Spectrum | None = None
        self._shown: dict[str, Any] | None = None
        self._is_reading = False
        self._message = ""
        self.stopped_by = 0

    # ---------------------------------------------------------------- life

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Static(id="head")
        yield Static(id="plot")
        yield Static(id="state")
        yield Static(id="foot")

    def on_mount(self) -> None:
        """Show the first candidate, and look for the labels of others from now on."""
        import asyncio

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            try:
                loop.add_signal_handler(number, self._stop, number)
            except (NotImplementedError, RuntimeError, ValueError):
                break  # not the main thread: whoever runs the review there handles signals
        self.set_interval(POLL_S, self._poll)
        self._show()

    def on_unmount(self) -> None:
        """Stop reading."""
        self._shelf.close()

    def on_resize(self) -> None:
        """Draw to the new size, once it is in force."""
        self.call_after_refresh(self._draw)

    def _stop(self, number: int) -> None:
        self.stopped_by = number
        self.exit()

    def _poll(self) -> None:
        new = self.session.feed.poll()
        others = [label for label in new if label.who != user()]
        if others:
            self._message = _said(others)
        if new:
            self._draw()

    # ---------------------------------------------------------------- showing

    def _show(self) -> None:
        """Show the session's candidate: at once if its spectrum is here, else when it has been read."""
        row = self.session.current
        if row is not self._shown:
            self._view, self._shift, self._shown = None, 0.0, row
        if row is None:
            self._spectrum = None
            self._draw()
            return
        coming = self._shelf.get(row)
        self._shelf.ahead(self.session.upcoming(AHEAD))
        if coming.done():
            self._take(row, coming)
            return
        self._spectrum, self._is_reading = None, True
        self._draw()
        coming.add_done_callback(lambda done: self._later(self._take, row, done))

    def _later(self, function: Any, *arguments: Any) -> None:
        """Call back in the screen's thread, unless the screen has gone."""
        if self.is_running:
            if self._is_own_thread():
                function(*arguments)
            else:
                self.call_from_thread(function, *arguments)

    def _is_own_thread(self) -> bool:
        import threading

        return self._thread_id == threading.get_ident()

    def _take(self, row: dict[str, Any], coming: Future[Spectrum | None]) -> None:
        if row is not self._shown or coming.cancelled():
            return
        self._is_reading = False
        try:
            self._spectrum = coming.result()
        except QadError as error:
            self._spectrum, self._message = None, str(error)
        self._draw()

    def _draw(self) -> None:
        if not self.query("#foot"):
            return
        self.query_one("#head", Static).update(self._head())
        self.query_one("#plot", Static).update(self._picture())
        self.query_one("#state", Static).update(self._state())
        self.query_one("#foot", Static).update(Text(shortened(FOOT, self.size.width), style="dim"))

    def _picture(self) -> Text:
        row, spectrum = self._shown, self._spectrum
        if row is None:
            return Text("no candidates")
        if spectrum is None:
            waits = "reading…" if self._is_reading else "no spectrum of this target in the work directory"
            return Text(f"TARGETID {row['targetid']}\n\n{waits}")
        size = Size(self.size.width, max(16, self.size.height - 3), unicode=True, colour=not self.no_color)
        moved = replace(spectrum, z=self._z(spectrum))
        options = self.options
        if self._view is not None:
            shift = options.shift(moved)
            options = replace(options, zoom=(self._view[0] / shift, self._view[1] / shift))
        lines = draw(moved, row, size, options)
        return as_rich(lines, "light" if self._background == "light" else "dark")

    def _z(self, spectrum: Spectrum) -> float:
        return (1 + spectrum.z) * (1 + self._shift) - 1

    def _head(self) -> Text:
        session, place = self.session, f"{self.session.at + 1}/{len(self.session.order)}"
        parts = [f" {place}", f"{session.n_labelled} of {len(session.order)} labelled"]
        parts += ["unlabelled only"] if session.only_unlabelled else []
        parts += [f"order {session.sort}"] if session.sort != "rank" else []
        parts += [f"filter {session.where}"] if session.where else []
        return Text(shortened(one_line("  ·  ".join(parts)), self.size.width), style="bold")

    def _state(self) -> Text:
        label = self.session.label
        text = Text(" ")
        if label is None:
            text.append("not labelled", "dim")
        else:
            text.append(one_line(label.label), LABEL_STYLES.get(label.label, "bold"))
            by = "" if label.who == user() else f" by {label.who}"
            comment = f": {label.comment}" if label.comment else ""
            text.append(printable(f"{by}{comment}"))
        if self._spectrum is not None and self._shift:
            text.append(f"   z {self._z(self._spectrum):.4f} (redrock {self._spectrum.z:.4f})", "bold magenta")
        if self._message:
            text.append(f"   {one_line(self._message)}", "italic")
        text.truncate(self.size.width, overflow="ellipsis")
        return text

    def _tell(self, message: str = "") -> None:
        self._message = message
        self._draw()

    # ---------------------------------------------------------------- moving

    def action_step(self, direction: int) -> None:
        """Go to the next or previous candidate."""
        self._message = "" if self.session.step(direction) else ("the last one" if direction > 0 else "the first one")
        self._show()

    def action_jump(self) -> None:
        """Ask for a rank or TARGETID and go there."""
        self.push_screen(Prompt("Go to", "", "a rank or a TARGETID", self._go))

    def _go(self, text: str) -> None:
        self.session.go(text)
        self._message = ""
        self._show()

    def action_neighbours(self) -> None:
        """List the candidates most like this one."""
        row = self._shown
        if row is None:
            return
        self._tell("looking for neighbours…")
        future = self._shelf.work(lambda: self._find_neighbours(row))
        future.add_done_callback(lambda done: self._later(self._list_neighbours, row, done))

    def _find_neighbours(self, row: dict[str, Any]) -> tuple[list[Neighbour], Any]:
        if self._space is None:
            self._space = LatentSpace(self.tables)
        found = self._space.nearest(row["rank"], N_NEIGHBOURS)
        return found, self.tables.of_ranks([one.rank for one in found], list(row))

    def _list_neighbours(self, row: dict[str, Any], done: Future[tuple[list[Neighbour], Any]]) -> None:
        if done.cancelled():
            return
        try:
            found, frame = done.result()
        except QadError as error:
            self._tell(str(error))
            return
        self._tell()
        if not found:
            self._tell("no neighbours: the scores hold no latent position of it")
            return
        by_rank = {other["rank"]: i for i, other in enumerate(frame.to_dicts())}
        rows = [self._neighbour_row(frame.row(by_rank[one.rank], named=True), one.distance) for one in found]
        header = ("rank", "TARGETID", "z", "S/N", "distance", "label", "class", "reason")

        def go(choice: int | None) -> None:
            if choice is not None:
                place = by_rank[found[choice].rank]
                self.session.add(frame.slice(place, 1))
                self._show()

        self.push_screen(Choice(f"Nearest to {row['targetid']}", header, rows), go)

    def _neighbour_row(self, other: dict[str, Any], distance: float) -> list[str]:
        label = self.session.feed.last.get(other["targetid"])
        return [
            str(other["rank"]),
            str(other["targetid"]),
            cell("z", other["z"]),
            cell("snr", other.get("snr")),
            f"{distance:.2f}",
            one_line(label.label) if label else "-",
            one_line(str(other.get("class_guess") or "-")),
            one_line(str(other.get("reason") or "-")),
        ]

    # ---------------------------------------------------------------- labelling

    def action_label(self, label: str) -> None:
        """Label the candidate, and go on to the next one."""
        try:
            said = self.session.say(label)
        except QadError as error:
            self._tell(str(error))
            return
        moved = self.session.step(1)
        self._message = f"{said.targetid} is {label}" + ("" if moved else "; that was the last one")
        self._show()

    def action_undo(self) -> None:
        """Take the last label back."""
        try:
            self._message = self.session.undo()
        except QadError as error:
            self._message = str(error)
        self._show()

    def action_comment(self) -> None:
        """Ask for a comment."""
        if self._shown is None:
            return
        label = self.session.label
        value = label.comment if label is not None and label.who == user() else ""
        goes_with = f"goes with the label {label.label}" if label else "labels it 'noted'"
        self.push_screen(
            Prompt(f"Comment on {self._shown['targetid']}", value, f"Enter keeps it; {goes_with}", self._comment)
        )

    def _comment(self, text: str) -> None:
        self.session.comment(text)
        self._tell("comment kept")

    # ---------------------------------------------------------------- the plot

    def _range(self) -> tuple[float, float] | None:
        return self._view or (None if self._spectrum is None else extent(self._spectrum))

    def _set_view(self, low: float, high: float) -> None:
        whole = None if self._spectrum is None else extent(self._spectrum)
        if whole is None or self._spectrum is None:
            return
        width = min(high - low, whole[1] - whole[0])
        least = 4 * LEAST_PIXELS * (whole[1] - whole[0]) / len(self._spectrum.wave)
        if width < least:
            return
        low = min(max(low, whole[0]), whole[1] - width)
        self._view = None if width >= whole[1] - whole[0] else (low, low + width)
        self._tell()

    def action_zoom(self, factor: float) -> None:
        """Zoom about the middle."""
        if (shown := self._range()) is not None:
            middle, half = (shown[0] + shown[1]) / 2, (shown[1] - shown[0]) / 2 * factor
            self._set_view(middle - half, middle + half)

    def action_pan(self, share: float) -> None:
        """Move along the axis."""
        if (shown := self._range()) is not None:
            move = share * (shown[1] - shown[0])
            self._set_view(shown[0] + move, shown[1] + move)

    def action_region(self) -> None:
        """Zoom on what drives the score."""
        if self._spectrum is None or self._shown is None:
            return
        region = driving_region(self._spectrum, self._shown)
        if region is None:
            self._tell("no region drives its score")
        else:
            self._set_view(*region)

    def action_whole(self) -> None:
        """Show the whole spectrum."""
        self._view = None
        self._tell()

    def action_smooth(self, step: int) -> None:
        """Smooth more or less."""
        width = min(501, max(1, self.options.smooth_px + step * (1 if self.options.smooth_px < 21 else 5)))
        self.options = replace(self.options, smooth_px=width)
        self._tell(f"mean of {width} pixels")

    def action_layer(self, layer: str) -> None:
        """Show or hide a layer."""
        self.options = replace(self.options, layers=self.options.layers ^ {layer})
        self._tell(f"{layer} {'shown' if layer in self.options.layers else 'hidden'}")

    def action_frame(self) -> None:
        """Change between rest and observed wavelengths."""
        other: Frame = "observed" if self.options.frame == "rest" else "rest"
        self.options = replace(self.options, frame=other)
        self._tell(f"{other} wavelengths below")

    def action_shift(self, step: float) -> None:
        """Move the lines as a change of redshift does."""
        if self._spectrum is not None and self._z(self._spectrum) + step > -0.99:
            self._shift = (1 + self._shift) * (1 + step) - 1
            self._tell()

    def action_reset_shift(self) -> None:
        """Go back to redrock's redshift."""
        self._shift = 0.0
        self._tell()

    # ---------------------------------------------------------------- the list

    def action_unlabelled(self) -> None:
        """Skip labelled candidates, or not."""
        self.session.only_unlabelled = not self.session.only_unlabelled
        if self.session.only_unlabelled and self.session.label is not None and not self.session.step(1):
            self.session.step(-1)
        self._message = ""
        self._show()

    def action_filter(self) -> None:
        """Ask for a filter."""
        hint = "SQL over any column, also label and label_who: class_guess = 'BAL' and label is null; empty: all"
        self.push_screen(Prompt("Filter", self.session.where, hint, self._filter))

    def _filter(self, text: str) -> None:
        self.session.arrange(where=text)
        self._tell("")
        self._show()

    def action_sort(self) -> None:
        """Take the next order."""
        names = orders(list(self.session.rows[0]) if self.session.rows else [])
        after = names[(names.index(self.session.sort) + 1) % len(names)] if self.session.sort in names else names[0]
        try:
            self.session.arrange(sort=after)
        except QadError as error:
            self._tell(str(error))
            return
        self._message = f"in order of {after}"
        self._show()

    def action_details(self) -> None:
        """Show everything known of the target."""
        row = self._shown
        if row is None:
            return
        future = self._shelf.work(lambda: describe(self.tables, [row["targetid"]]))
        future.add_done_callback(lambda done: self._later(self._read, row, done))

    def _read(self, row: dict[str, Any], done: Future[list[dict[str, Any]]]) -> None:
        if done.cancelled():
            return
        try:
            (document,) = done.result()
        except QadError as error:
            self._tell(str(error))
            return
        lines = report_lines(document, max(40, int(self.size.width * 0.96) - 6))
        text = as_rich(lines, "light" if self._background == "light" else "dark")
        self.push_screen(Reading(f"TARGETID {row['targetid']}  (Esc closes)", text))

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())

    def action_quit_review(self) -> None:
        """End."""
        self.exit()


def orders(columns: Sequence[str]) -> list[str]:
    """Return the orders that ``o`` goes through: rank, the views' p-values, signal-to-noise, redshift."""
    views = [name for name in columns if name.startswith("p_") and name != "p_value"]
    return ["rank", *views, *(f"-{name}" for name in ("snr", "artefact") if name in columns), "z"]


def _said(labels: Sequence[Label]) -> str:
    last = labels[-1]
    more = f", and {len(labels) - 1} more" if len(labels) > 1 else ""
    return f"{last.who} says {last.targetid} is {last.label or 'not labelled'}{more}"
