"""The keys of the review, in one place: the screen binds them, the help screen and the foot line tell them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """A key.

    Attributes
    ----------
    keys : str
        As Textual names them, separated by commas.
    action : str
    shown : str
        As a person reads it.
    text : str
        What it does; empty for the second of a pair that the first one tells of.
    group : str
    """

    keys: str
    action: str
    shown: str
    text: str
    group: str


KEYS = (
    Key("n,j,space,pagedown", "step(1)", "n", "next candidate", "Move"),
    Key("p,pageup", "step(-1)", "p", "previous", "Move"),
    Key("g", "jump", "g", "go to a rank or TARGETID", "Move"),
    Key("t", "neighbours", "t", "nearest neighbours", "Move"),
    Key("i", "label('interesting')", "i", "interesting", "Label"),
    Key("k", "label('known')", "k", "known", "Label"),
    Key("a", "label('artefact')", "a", "artefact", "Label"),
    Key("b", "label('boring')", "b", "boring", "Label"),
    Key("u,ctrl+z", "undo", "u", "take the last label back", "Label"),
    Key("c", "comment", "c", "comment", "Label"),
    Key("plus,equals_sign,up", "zoom(0.6)", "+ -", "zoom (also ↑ ↓)", "Plot"),
    Key("minus,down", "zoom(1.6666666666666667)", "-", "", "Plot"),
    Key("comma,less_than_sign", "pan(-0.25)", ", .", "move left, right", "Plot"),
    Key("full_stop,greater_than_sign", "pan(0.25)", ".", "", "Plot"),
    Key("z", "region", "z", "zoom on driving region", "Plot"),
    Key("w,home", "whole", "w", "whole spectrum", "Plot"),
    Key("left_square_bracket", "smooth(-2)", "[ ]", "smooth less, more", "Plot"),
    Key("right_square_bracket", "smooth(2)", "]", "", "Plot"),
    Key("l", "layer('lines')", "l", "lines", "Show"),
    Key("e", "layer('error')", "e", "error", "Show"),
    Key("m", "layer('model')", "m", "model", "Show"),
    Key("r", "layer('residual')", "r", "residual", "Show"),
    Key("x", "layer('raw')", "x", "single pixels", "Show"),
    Key("v", "layer('zoom')", "v", "second panel", "Show"),
    Key("f", "frame", "f", "rest or observed axis", "Show"),
    Key("d", "details", "d", "everything known", "Show"),
    Key("left", "shift(-0.001)", "← →", "move lines in z (⇧ faster)", "Redshift"),
    Key("right", "shift(0.001)", "→", "", "Redshift"),
    Key("shift+left", "shift(-0.02)", "⇧←", "", "Redshift"),
    Key("shift+right", "shift(0.02)", "⇧→", "", "Redshift"),
    Key("0", "reset_shift", "0", "back to redrock's z", "Redshift"),
    Key("U", "unlabelled", "U", "only unlabelled, or all", "List"),
    Key("slash", "filter", "/", "filter by any column, label", "List"),
    Key("o", "sort", "o", "order: rank, views, S/N, z", "List"),
    Key("question_mark,f1", "help", "?", "this help", "List"),
    Key("q", "quit_review", "q", "quit; labels are kept", "List"),
)
GROUPS = ("Move", "Label", "Plot", "Show", "Redshift", "List")
