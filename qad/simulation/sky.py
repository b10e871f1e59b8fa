"""The noise that night sky, optics and detectors leave in a DESI spectrum of 1000 s of dark time.

Measured on the public EDR coadds sv3/dark/9144 and sv3/dark/26065 (four faint targets of one dark exposure): the noise
between sky lines, and by how much sky lines raise the variance.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qad.desi.datamodel import CAMERA_FIRST, CAMERA_PIXELS
from qad.schema import N_WAVE, WAVE_START, WAVE_STEP

Array = NDArray[np.float64]
WAVE: Array = WAVE_START + WAVE_STEP * np.arange(N_WAVE, dtype=np.float64)
"""The merged grid, Å."""
CAMERAS = ("b", "r", "z")
LINE_SIGMA = 1.1
"""Width of a sky line in the noise, Å: the line spread function and the extraction's cross talk."""


def _pairs(text: str) -> Array:
    return np.array([[float(number) for number in pair.split(":")] for pair in text.split()])


_CONTINUUM_SIGMA = {
    "b": _pairs("""
3600:3.116 3700:1.881 3800:1.338 3900:0.991 4000:0.837 4100:0.765 4200:0.676 4300:0.652 4400:0.665 4500:0.589
4600:0.547 4700:0.52 4800:0.491 4900:0.505 5000:0.486 5100:0.479 5200:0.471 5300:0.472 5400:0.471 5500:0.474
5600:0.478 5700:0.498 5800:0.594
    """),
    "r": _pairs("""
5760:0.903 5800:0.479 5900:0.337 6000:0.316 6100:0.289 6200:0.276 6300:0.272 6400:0.25 6500:0.245 6600:0.237
6700:0.226 6800:0.219 6900:0.22 7000:0.213 7100:0.212 7200:0.217 7300:0.221 7400:0.215 7500:0.228 7600:0.342
7620:0.347
    """),
    "z": _pairs("""
7520:0.32 7600:0.318 7700:0.203 7800:0.193 7900:0.196 8000:0.186 8100:0.175 8200:0.173 8300:0.17 8400:0.168
8500:0.155 8600:0.161 8700:0.157 8800:0.162 8900:0.166 9000:0.161 9100:0.158 9200:0.158 9300:0.163 9400:0.223
9500:0.228 9600:0.221 9700:0.25 9800:0.233 9824:0.261
    """),
}
"""Noise between the lines, 1e-17 erg/s/cm2/Å per 0.8 Å pixel, at wavelengths in Å."""

SKY_LINES: Array = _pairs("""
5462.4:0.5 5578.4:63.63 5891.2:6.14 5897.6:3.98 6238.4:1.57 6260:1.74 6289.6:1.75 6302.4:10.91 6308.8:2.14
6331.2:1.78 6365.6:4.25 6500.8:2.21 6534.4:2.23 6556:2.09 6579.2:2.03 6831.2:3.1 6836:3.12 6865.6:6.09
6870.4:1.53 6872.8:2.01 6891.2:2.09 6902.4:2.38 6914.4:2.25 6925.6:3.38 6941.6:2.24 6951.2:4.33 6972:1.22
6980:2.45 7012.8:1.37 7242.4:9.89 7247.2:11.62 7255.2:2.9 7278.4:16.78 7286.4:4.73 7297.6:1.59 7305.6:4.17
7318.4:11.41 7331.2:4.44 7343.2:11.86 7360.8:4.77 7371.2:8.83 7394.4:3.18 7404:6.42 7432:1.82 7440.8:3.48
7475.2:2.27 7481.6:2.28 7485.6:3.45 7525.6:9.54 7532.8:3.53 7542.4:1.76 7559.2:1.32 7574.4:3.37 7588:1.22
7600.8:10.24 7604:6.78 7606.4:10.08 7611.2:4.01 7625.6:1.92 7630.4:9.5 7633.6:3.1 7638.4:2.78 7642.4:2.87
7647.2:2.41 7651.2:1.5 7656.8:1.7 7664.8:1.55 7714.4:10.71 7719.2:11.96 7728:2.3 7752.8:17.51 7762.4:5.11
7776:2.03 7782.4:3.63 7796:12.53 7810.4:4.78 7824:15.2 7843.2:4.13 7852:1.62 7855.2:14.92 7863.2:4.78
7870.4:2.23 7872.8:6.88 7880.8:3.07 7884:2.47 7892:8.54 7915.2:21.3 7923.2:9.73 7933.6:5.78 7951.2:3.39
7967.2:15.61 7981.6:4.66 7996:19.44 8016.8:3.79 8028:11.86 8054.4:2.8 8064.8:5.83 8096:1.42 8104.8:2.49
8149.6:1.32 8281.6:4.85 8284:12.34 8290.4:18.77 8301.6:19.14 8312.8:5.19 8346.4:52.82 8352:1.27 8355.2:14.92
8367.2:4.37 8384.8:8.88 8401.6:35.32 8417.6:11.95 8432.8:41.65 8454.4:11.45 8468:26.22 8496:6.84 8507.2:14.47
8540.8:2.87 8551.2:6.43 8590.4:1.63 8599.2:1.96 8625.6:4.21 8628:4.44 8630.4:5.13 8634.4:5.69 8637.6:3.52
8642.4:1.7 8652.8:3.76 8657.6:4.8 8662.4:5.8 8667.2:5.1 8672.8:3.89 8677.6:3.73 8683.2:2.53 8688.8:1.61
8763.2:24.4 8769.6:32.8 8780.8:31.39 8793.6:10.4 8828.8:136.62 8838.4:26.78 8852:6.81 8869.6:16.91
8888.8:59.14 8905.6:19.19 8922.4:69.21 8945.6:13.21 8960.8:49.98 8973.6:1.23 8990.4:21.16 8994.4:2.14
9003.2:37.84 9040.8:5.08 9052:11.41 9095.2:3.58 9105.6:4.23 9155.2:3.44 9158.4:1.28 9163.2:3.28 9219.2:2.47
9227.2:2.53 9288.8:1.94 9296.8:2.58 9310.4:77.23 9315.2:90.52 9319.2:18.63 9327.2:168.88 9333.6:2.13
9336.8:1.49 9340.8:15.12 9347.2:8.34 9352:1.34 9356:4.04 9360.8:4.14 9369.6:1.46 9374.4:6.24 9380:605.57
9384:7.67 9389.6:5.8 9404.8:15.56 9422.4:21.08 9430.4:5.81 9443.2:677.39 9451.2:1.63 9462.4:100.99
9479.2:124.65 9484:6.78 9496.8:3.86 9504.8:88.85 9521.6:50.7 9531.2:1.85 9538.4:3.22 9547.2:1.74 9556:40.96
9569.6:115.99 9594.4:1.76 9610.4:11.71 9623.2:16.97 9662.4:1.3 9664.8:1.69 9671.2:7.82 9683.2:17.47
9692.8:3.76 9702.4:15.21 9714.4:6.15 9722.4:21.78 9740.8:10.38 9748.8:3.77 9793.6:115.94 9802.4:21.87
9810.4:2.84 9815.2:4.51 9820:2.35
""")
"""Sky lines: wavelength, Å (vacuum), and variance at the peak over that of the continuum."""

_GAIN = _pairs("3600:9 4000:22 4500:34 5000:40 5700:42 5900:46 6500:61 7200:66 8000:70 8800:68 9400:58 9824:50")
"""Detected electrons per 0.8 Å pixel and 1e-17 erg/s/cm2/Å in 1000 s; 61 at 6500 Å follows from the mirror's 8.7 m2 and a
throughput of 0.27, the shape from the instrument's throughput curve (DESI Collaboration 2022, AJ 164, 207)."""


def camera_wave(camera: str) -> Array:
    """Return the wavelengths of a camera, Å."""
    first = CAMERA_FIRST[camera]
    return WAVE[first : first + CAMERA_PIXELS[camera]]


@lru_cache(maxsize=8)
def sky_variance(camera: str) -> Array:
    """Return the variance of one 1000 s exposure without a source, (1e-17 erg/s/cm2/Å)2, shape (n_wave,)."""
    wave = camera_wave(camera)
    nodes = _CONTINUUM_SIGMA[camera]
    base = np.exp(2 * np.interp(wave, nodes[:, 0], np.log(nodes[:, 1])))
    return np.asarray(base * (1.0 + line_strength(camera)))


@lru_cache(maxsize=8)
def line_strength(camera: str) -> Array:
    """Return by how much sky lines raise the variance of each pixel, in units of the continuum's."""
    wave = camera_wave(camera)
    total = np.zeros_like(wave)
    for centre, peak in SKY_LINES:
        near = np.abs(wave - centre) < 6 * LINE_SIGMA
        total[near] += peak * np.exp(-0.5 * ((wave[near] - centre) / LINE_SIGMA) ** 2)
    return total


@lru_cache(maxsize=8)
def gain(camera: str) -> Array:
    """Return the electrons per unit of flux in 1000 s: the source's own noise is ``flux / gain``."""
    return np.interp(camera_wave(camera), _GAIN[:, 0], _GAIN[:, 1])
