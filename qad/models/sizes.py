"""The architectures: what sizes define each, and the names and shapes of its arrays."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from qad.models.layers import dense_shapes

FEATURE_PX = 16
"""Grid pixels in a bin of what the encoder sees."""
CORRECTION_PX = 4
"""Grid pixels between the knots of the nonlinear correction: 550 km/s on the default grid, so it cannot learn noise."""
ARCHITECTURES = ("rest-frame", "factor", "mlp")


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model; which of them count depends on `arch`.

    Attributes
    ----------
    arch : str
        ``rest-frame``, ``factor`` or ``mlp``.
    n_rest, n_obs, n_latent : int
    encoder, decoder : tuple of int
        Hidden widths, in the order of the data.
    n_input : int
        Pixels that the mlp sees.
    vae : bool
    """

    arch: str
    n_rest: int
    n_obs: int
    n_latent: int
    encoder: tuple[int, ...] = ()
    decoder: tuple[int, ...] = ()
    n_input: int = 0
    vae: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the sizes as JSON types."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, document: Any) -> Sizes:
        """Read what :meth:`as_json` gave.

        Raises
        ------
        ValueError
            If a size is missing, unknown, of another type or impossible.
        """
        if not isinstance(document, dict) or set(document) != {item.name for item in fields(cls)}:
            raise ValueError("sizes are missing or unknown")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in document.items()
        }
        if values["arch"] not in ARCHITECTURES:
            raise ValueError(f"architecture {values['arch']!r} is not one of {', '.join(ARCHITECTURES)}")
        numbers = [values[key] for key in ("n_rest", "n_obs", "n_latent")]
        numbers += [*values["encoder"], *values["decoder"]]
        if any(type(number) is not int or not 0 < number < 2**24 for number in numbers):
            raise ValueError("a size is not a positive integer")
        if type(values["n_input"]) is not int or type(values["vae"]) is not bool:
            raise ValueError("a size is of a wrong type")
        return cls(**values)

    @property
    def n_features(self) -> int:
        """Bins of the rest frame that the encoder sees."""
        return -(-self.n_rest // FEATURE_PX)

    @property
    def n_correction(self) -> int:
        """Knots of the nonlinear correction."""
        return -(-self.n_rest // CORRECTION_PX)

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """Widths of the encoder from its input to its output."""
        if self.arch == "mlp":
            return (self.n_input, *self.encoder, self.n_latent)
        n_out = self.n_latent * (2 if self.vae else 1)
        return (self.n_latent + 2 * self.n_features, *self.encoder, n_out)

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Widths of the decoder from the latents to its output."""
        return (self.n_latent, *self.decoder, self.n_input if self.arch == "mlp" else self.n_correction)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every array of the model."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.arch != "mlp":
            shapes |= {"mean": (self.n_rest,), "loading": (self.n_rest, self.n_latent), "variance": (self.n_rest,)}
        if self.arch != "factor":
            shapes |= dense_shapes("encoder", self.encoder_widths) | dense_shapes("decoder", self.decoder_widths)
        return shapes
