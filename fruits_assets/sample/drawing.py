"""Draws photo-like fruit on white: the embedded sample, free of anyone's rights and downloads.

A fruit is a solid of revolution (a banana: a tube along an arc) under a key light, in random
individuals, poses and lights. Orthographic rays are marched to the surface; the distance by which
a ray misses it gives antialiased outlines, and a height field on the skin tilts the normals (bump
mapping, Blinn 1978). Colours are mixed as linear light and shown with a gamma of 2.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

PHOTO_SIZE: Final = 100
SEED: Final = 2026
SPLITS: Final = ("Training", "Test")
JPEG_QUALITY: Final = 90

_OVERSAMPLING = 1.4
_MARCHING_STEPS = 10
_STRIDE = np.float32(0.12)
_PROFILE_STEPS = 2048
_TILE = 256
_CAMERA = np.array([0, 0, 1], np.float32)

Colour = np.ndarray
"""(3, 1, 1) or (3, h, w) float32: linear light, 0..1."""


def _rgb(red: int, green: int, blue: int) -> Colour:
    return np.square(np.array([red, green, blue], np.float32) / 255).reshape(3, 1, 1)


_WHITE = _rgb(255, 255, 255)


def _mix(first: Colour, second: Colour, share: np.ndarray) -> Colour:
    return first + (second - first) * share


def _ramp(values: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 at `start`, 1 at `end`, smooth between and flat beyond."""
    share = np.clip((values - start) / (end - start), 0, 1)
    return share * share * (3 - 2 * share)


def _near(angle: np.ndarray, width: float) -> np.ndarray:
    """1 at an angle of 0, fading over `width` radians."""
    return np.exp(-np.square(angle / width))


# What the camera sees


@dataclass(frozen=True)
class _Surface:
    """The visible side of a fruit; every array is (h, w) float32 unless noted.

    Attributes:
        direction: (3, h, w) unit vectors from the fruit's centre, in the fruit's own axes.
        normal: (3, h, w) unit normals in the camera's axes (right, up, towards the camera).
        theta: angle from the stem in radians, 0 to pi.
        phi: angle around the axis in radians, -pi to pi.
        right, up: position across the photo, in radii.
        depth: towards the camera, in radii.
        gap: by how much the ray misses the fruit, in radii; 0 or less where it hits.
        pixel: size of a pixel in radii.
    """

    direction: np.ndarray
    normal: np.ndarray
    theta: np.ndarray
    phi: np.ndarray
    right: np.ndarray
    up: np.ndarray
    depth: np.ndarray
    gap: np.ndarray
    pixel: float


@dataclass(frozen=True)
class _Skin:
    """What a skin shows.

    Attributes:
        colour: (3, h, w) linear light reflected.
        height: (h, w) relief in radii, seen in the shading.
        bulge: (h, w) by how much the outline swells, in radii.
    """

    colour: Colour
    height: np.ndarray | float = 0.0
    bulge: np.ndarray | float = 0.0


@dataclass(frozen=True)
class _Pose:
    """How a fruit lies before the camera.

    Attributes:
        rotation: (3, 3) float32, from the fruit's axes (the third points to the stem) to the
            camera's.
        fill: share of the frame that the fruit spans.
        keystone: relative change of width from the middle of the frame to its upper edge.
        light: (3,) float32, unit vector towards the key light.
    """

    rotation: np.ndarray
    fill: float
    keystone: float
    light: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator) -> _Pose:
        tilt = np.clip(rng.normal(0.1, 0.5), -1.4, 1.4)
        lean = rng.uniform(-np.pi, np.pi) if rng.random() < 0.2 else rng.normal(0, 0.35)
        spin = rng.uniform(-np.pi, np.pi)
        light = np.array([rng.uniform(-0.6, 0.6), rng.uniform(0.35, 0.8), 1.0])
        rotation = _about(2, lean) @ _about(0, tilt - np.pi / 2) @ _about(2, spin)
        return cls(
            rotation=rotation.astype(np.float32),
            fill=rng.uniform(0.8, 0.98),
            keystone=rng.uniform(-0.07, 0.07),
            light=(light / np.linalg.norm(light)).astype(np.float32),
        )


def _about(axis: int, angle: float) -> np.ndarray:
    """(3, 3) rotation about a coordinate axis."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3)
    rotation[[first, second], [first, second]] = np.cos(angle)
    rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
    return rotation


@cache
def _frame(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Right and up, each (pixels, pixels) float32 from -1 to 1. Shared: not to be written to."""
    axis = ((np.arange(pixels, dtype=np.float32) + 0.5) * 2 / pixels - 1).astype(np.float32)
    right, down = np.meshgrid(axis, axis)
    return right, -down


def _placed(
    pose: _Pose, pixels: int, *, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Right, up and pixel size in radii when the box from `low` to `high` fills the frame."""
    right, up = _frame(pixels)
    centre, half = (low + high) / 2, float(np.max(high - low)) / 2 / pose.fill
    x = right * (1 + np.float32(pose.keystone) * up) * np.float32(half) + np.float32(centre[0])
    y = up * np.float32(half) + np.float32(centre[1])
    return x, y, 2 * half / pixels


# Shapes


@dataclass(frozen=True)
class _Round:
    """A solid of revolution, in radii.

    Attributes:
        height: of the axis over the width.
        taper: wider at the stem if positive, at the other end if negative.
        neck: a bulge of the outline towards the stem, as a pear's.
        dimple: depth of the hollow around the stem.
        hollow: depth of the hollow at the other end.
        nipple: length of the point at the other end.
        stub: length of the point at the stem.
        variation: standard deviation of individuals, relative.
    """

    height: float = 1.0
    taper: float = 0.0
    neck: float = 0.0
    dimple: float = 0.0
    hollow: float = 0.0
    nipple: float = 0.0
    stub: float = 0.0
    variation: float = 0.06

    def individual(self, rng: np.random.Generator) -> _Round:
        numbers = [f.name for f in fields(self) if f.name != "variation"]
        grown = np.exp(rng.normal(0, self.variation, len(numbers)))
        changed = {name: getattr(self, name) * g for name, g in zip(numbers, grown, strict=True)}
        return replace(self, **changed)

    def outline(self) -> tuple[np.ndarray, np.ndarray]:
        """Radius and height above the centre from the stem to the other end, (n,) each."""
        t = np.linspace(0, np.pi, 512)
        radius = np.sin(t) * (1 + self.taper * np.cos(t))
        height = self.height * np.cos(t)
        height += self.neck * _near(t, 0.75)
        height += self.stub * _near(t, 0.2) - self.dimple * _near(t, 0.3)
        height += self.hollow * _near(np.pi - t, 0.28) - self.nipple * _near(np.pi - t, 0.24)
        return radius, height

    @property
    def pole(self) -> float:
        """Height of the skin under the stem above the centre."""
        return float(self.outline()[1][0])

    def surface(self, pose: _Pose, pixels: int) -> _Surface:
        radius, height = self.outline()
        low, high = _extent(radius, height, pose.rotation)
        x, y, pixel = _placed(pose, pixels, low=low, high=high)
        profile = _Profile.of(radius, height)
        depth, gap = profile.march(x, y, axis=pose.rotation[:, 2])
        points = np.stack([x, y, depth])
        length = np.sqrt(np.square(points).sum(0))
        points /= length
        own = np.tensordot(pose.rotation.T, points, 1)
        return _Surface(
            direction=own,
            normal=profile.normal(points, length, axis=pose.rotation[:, 2]),
            theta=np.arccos(np.clip(own[2], -1, 1)),
            phi=np.arctan2(own[1], own[0]),
            right=x,
            up=y,
            depth=depth,
            gap=gap,
            pixel=pixel,
        )


def _extent(
    radius: np.ndarray, height: np.ndarray, rotation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lower left and upper right corner (2,) of the projected outline."""
    phi = np.linspace(0, 2 * np.pi, 24, endpoint=False)[:, np.newaxis]
    r, h = radius[::16], height[::16]
    points = np.stack([np.cos(phi) * r, np.sin(phi) * r, np.broadcast_to(h, (24, h.size))])
    flat = np.tensordot(rotation[:2], points, 1).reshape(2, -1)
    return flat.min(1), flat.max(1)


@dataclass(frozen=True)
class _Profile:
    """Distance from the centre to the skin against the cosine of theta, tabulated from -1 to 1.

    Attributes:
        distance: (n,) float32.
        slope: (n,) float32, its derivative by the cosine.
    """

    distance: np.ndarray
    slope: np.ndarray

    @classmethod
    def of(cls, radius: np.ndarray, height: np.ndarray) -> _Profile:
        distance = np.hypot(radius, height)
        cosine = np.linspace(-1, 1, _PROFILE_STEPS)
        table = np.interp(cosine, (height / distance)[::-1], distance[::-1])
        return cls(table.astype(np.float32), np.gradient(table, cosine).astype(np.float32))

    def _steps(self, cosine: np.ndarray) -> np.ndarray:
        return ((cosine + 1) * np.float32((_PROFILE_STEPS - 1) / 2)).astype(np.int32)

    def march(
        self, x: np.ndarray, y: np.ndarray, *, axis: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Depth at which the ray through (x, y) comes nearest to the skin, and the gap there."""
        square = x * x + y * y
        along = axis[0] * x + axis[1] * y
        z = np.sqrt(np.maximum(self.distance.max() ** 2 - square, 0))
        depth, gap = z, np.full_like(z, np.inf)
        best, miss, step = gap, gap, np.ones_like(z)
        for _ in range(_MARCHING_STEPS):
            length = np.sqrt(square + z * z)
            cosine = (along + axis[2] * z) / length
            before, miss = miss, length - self.distance.take(self._steps(cosine), mode="clip")
            off = np.abs(miss)
            depth, best = np.where(off < best, z, depth), np.minimum(off, best)
            gap = np.minimum(gap, miss)
            # The secant cannot overshoot where the fruit is convex. A ray that leaves the skin
            # again has passed a shoulder, and strides across the hollow behind it.
            slope = (before - miss) / (step + np.float32(1e-9))
            near = miss / np.clip(slope, 0.45, 1)
            leaving = (slope < 0.1) & (miss > 0.01)
            step = np.where(leaving, np.maximum(miss, _STRIDE), near)
            z = z - step
        return depth, gap

    def normal(self, points: np.ndarray, length: np.ndarray, *, axis: np.ndarray) -> np.ndarray:
        """(3, h, w): the gradient of distance - profile at the unit vectors `points`, made unit."""
        a = axis.reshape(3, 1, 1)
        cosine = (a * points).sum(0)
        slope = self.slope.take(self._steps(cosine), mode="clip") / length
        return _unit(points - slope * (a - cosine * points))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt(np.square(vectors).sum(0) + np.float32(1e-12))


@dataclass(frozen=True)
class _Curved:
    """A tube along an arc, seen from the side, as a banana.

    Attributes:
        bend: half the angle of the arc, radians.
        thickness: radius of the tube over the radius of the arc.
        variation: standard deviation of individuals, relative.
    """

    bend: float
    thickness: float
    variation: float = 0.12

    def individual(self, rng: np.random.Generator) -> _Curved:
        bend, thickness = np.exp(rng.normal(0, self.variation, 2))
        return replace(self, bend=self.bend * bend, thickness=self.thickness * thickness)

    def _half_width(self, s: np.ndarray) -> np.ndarray:
        """Radius of the tube at s, from -1 (blossom end) to 1 (stem)."""
        body = 1 - np.abs(s + 0.05) ** 3 * 0.8
        stem = 0.28 + 0.75 * _ramp(-s, -0.92, -0.62)
        tip = 0.3 + 0.75 * _ramp(s, -1.0, -0.75)
        return (np.minimum(np.minimum(body, stem), tip) * self.thickness).astype(np.float32)

    def surface(self, pose: _Pose, pixels: int) -> _Surface:
        """Only the turn in the plane of the photo and the foreshortening follow the pose."""
        lean = np.arctan2(pose.rotation[1, 0], pose.rotation[0, 0])
        flat = 0.75 + 0.25 * abs(pose.rotation[2, 1])
        turn = _about(2, lean)[:2, :2] @ np.diag([1.0, flat])
        t = np.linspace(-self.bend, self.bend, 48)
        arc = np.stack([np.sin(t), -np.cos(t)])
        width = self._half_width(t / self.bend)
        ends = turn @ np.concatenate([arc * (1 + width), arc * (1 - width)], 1)
        x, y, pixel = _placed(pose, pixels, low=ends.min(1), high=ends.max(1))
        back = np.linalg.inv(turn).astype(np.float32)
        x, y = back[0, 0] * x + back[0, 1] * y, back[1, 0] * x + back[1, 1] * y
        return self._tube(x, y, turn=turn, pixel=pixel)

    def _tube(self, x: np.ndarray, y: np.ndarray, *, turn: np.ndarray, pixel: float) -> _Surface:
        distance = np.hypot(x, y)
        s = np.arctan2(x, -y) / np.float32(self.bend)
        width = self._half_width(np.clip(s, -1, 1))
        across = (distance - 1) / width
        beyond = (np.abs(s) - 1) * np.float32(self.bend)
        depth = width * np.sqrt(np.maximum(1 - across * across, 0))
        angle = np.arcsin(np.clip(across, -1, 1))
        # A banana has five faces: the normal lingers on each.
        face = np.float32(2 * np.pi / 5)
        edge = angle + np.float32(0.35)
        bent = angle + np.float32(0.55) * (np.round(edge / face) * face - edge)
        normal = np.stack([np.sin(bent) * x / distance, np.sin(bent) * y / distance, np.cos(bent)])
        normal[:2] = np.tensordot(turn.astype(np.float32), normal[:2], 1)
        return _Surface(
            direction=np.stack([np.sin(angle), np.cos(angle), s]),
            normal=_unit(normal),
            theta=np.arccos(np.clip(s, -1, 1)),
            phi=angle,
            right=x,
            up=y,
            depth=depth,
            gap=np.maximum((np.abs(across) - 1) * width, beyond),
            pixel=pixel,
        )


# Textures


@cache
def _tile(stretch: int) -> np.ndarray:
    """(256, 256) float32 of smooth noise that repeats: mean 0, deviation 1, longer along rows."""
    noise = np.fft.fft2(np.random.default_rng(stretch).normal(size=(_TILE, _TILE)))
    frequency = np.fft.fftfreq(_TILE)
    blur = np.exp(-np.square(frequency * 7)), np.exp(-np.square(frequency * 7 * stretch))
    smooth = np.fft.ifft2(noise * np.outer(*blur)).real
    return (smooth / smooth.std()).astype(np.float32)


def _grain(
    surface: _Surface, rng: np.random.Generator, *, repeats: int = 1, stretch: int = 1
) -> np.ndarray:
    """(h, w) fine noise on the skin; a `stretch` above 1 draws it out from end to end."""
    offset = rng.integers(_TILE, size=2)
    row = (surface.phi * np.float32(repeats * _TILE / (2 * np.pi))).astype(np.int32) + offset[0]
    column = (surface.theta * np.float32(repeats * _TILE / (2 * np.pi))).astype(np.int32)
    return _tile(stretch).ravel().take((row % _TILE) * _TILE + (column + offset[1]) % _TILE)


def _blotches(surface: _Surface, rng: np.random.Generator, *, frequency: float) -> np.ndarray:
    """(h, w) large soft patches: a sum of random waves, mean 0 and deviation about 1."""
    waves = 6
    vectors = rng.normal(0, frequency, (waves, 3)).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, (waves, 1, 1)).astype(np.float32)
    total = np.cos(np.tensordot(vectors, surface.direction, 1) + phases).sum(0)
    return total * np.float32(np.sqrt(2 / waves))


def _dots(
    surface: _Surface, rng: np.random.Generator, *, rows: int, scatter: float
) -> tuple[np.ndarray, np.ndarray]:
    """One dot per cell of a lattice of `rows` from end to end.

    Returns:
        Distance to the dot of the cell, 1 about where cells touch, and a random number from 0 to
        1 per cell; both (h, w).
    """
    band = surface.theta * np.float32(rows / np.pi)
    row = np.minimum(band.astype(np.int32), rows - 1)
    columns = np.maximum(np.round(2 * rows * np.sin((np.arange(rows) + 0.5) * np.pi / rows)), 3)
    around = (surface.phi / np.float32(2 * np.pi) + 0.5) * columns.astype(np.float32)[row]
    around += np.where(row % 2, np.float32(0.5), np.float32(0))
    column = around.astype(np.int32)
    cell = row * (2 * rows + 2) + column
    moved = rng.uniform(0.5 - scatter, 0.5 + scatter, (2, rows * (2 * rows + 2))).astype(np.float32)
    across, down = around - column - moved[0].take(cell), band - row - moved[1].take(cell)
    chance = rng.random(moved.shape[1], dtype=np.float32).take(cell)
    return 2 * np.sqrt(across * across + down * down), chance


def _pores(surface: _Surface, rng: np.random.Generator, *, depth: float) -> np.ndarray:
    """(h, w) height of a citrus peel."""
    return depth * _grain(surface, rng, repeats=2)


# Skins: colour and relief of each fruit


def _green_apple(surface: _Surface, rng: np.random.Generator) -> _Skin:
    colour = _mix(
        _rgb(128, 168, 44),
        _rgb(178, 198, 88),
        _ramp(_blotches(surface, rng, frequency=1.5), -1.5, 1.8),
    )
    distance, chance = _dots(surface, rng, rows=15, scatter=0.3)
    freckle = _ramp(distance, 0.3, 0.12) * (chance > 0.5)
    colour = _mix(colour, _rgb(212, 216, 150), 0.6 * freckle)
    return _Skin(_mix(colour, _rgb(120, 108, 50), 0.8 * _near(surface.theta, 0.22)))


def _red_apple(surface: _Surface, rng: np.random.Generator) -> _Skin:
    streaks = _grain(surface, rng, repeats=2, stretch=12)
    blush = _blotches(surface, rng, frequency=1.1) + 0.45 * streaks + rng.normal(0.9, 0.3)
    colour = _mix(_rgb(222, 168, 72), _rgb(172, 26, 28), _ramp(blush, -1.2, 1.4))
    colour = colour * (1 + 0.1 * streaks)
    distance, chance = _dots(surface, rng, rows=17, scatter=0.3)
    colour = _mix(colour, _rgb(226, 176, 110), 0.45 * _ramp(distance, 0.28, 0.1) * (chance > 0.4))
    return _Skin(_mix(colour, _rgb(170, 140, 60), 0.75 * _near(surface.theta, 0.3)))


def _banana(surface: _Surface, rng: np.random.Generator) -> _Skin:
    s = np.cos(surface.theta)
    ripe = _ramp(_blotches(surface, rng, frequency=1.4), -2, 2)
    colour = _mix(_rgb(226, 176, 34), _rgb(246, 208, 74), ripe)
    green = _ramp(s, 0.62, 0.95) * rng.uniform(0.3, 0.8)
    colour = _mix(colour, _rgb(150, 160, 50), green)
    spots = _ramp(_grain(surface, rng) + 0.6 * _blotches(surface, rng, frequency=4), 1.9, 2.5)
    colour = _mix(colour, _rgb(96, 60, 24), 0.75 * spots)
    bruise = _ramp(surface.phi * surface.phi, 0.02, 0.0) * rng.uniform(0, 0.35)
    colour = _mix(colour, _rgb(150, 104, 40), bruise)
    ends = np.maximum(_ramp(s, 0.93, 0.99), _ramp(-s, 0.93, 0.98))
    return _Skin(_mix(colour, _rgb(62, 44, 26), 0.9 * ends))


def _blueberry(surface: _Surface, rng: np.random.Generator) -> _Skin:
    bloom = _blotches(surface, rng, frequency=2.5) + 0.35 * _grain(surface, rng)
    colour = _mix(_rgb(36, 46, 92), _rgb(118, 138, 190), _ramp(bloom, -1.8, 2.4))
    end = np.pi - surface.theta
    edge = 0.42 + 0.09 * np.cos(5 * surface.phi)
    crown = _ramp(np.abs(end - edge), 0.12, 0.02)
    inside = _ramp(end, 0.36, 0.3)
    colour = _mix(colour, _rgb(30, 26, 44), 0.85 * inside)
    colour = _mix(colour, _rgb(96, 104, 140), 0.6 * crown)
    colour = _mix(colour, _rgb(110, 96, 70), _near(surface.theta, 0.12))
    return _Skin(colour, 0.07 * crown - 0.06 * inside)


def _cherry(surface: _Surface, rng: np.random.Generator) -> _Skin:
    depth = _ramp(_blotches(surface, rng, frequency=1.3), -1.6, 1.6)
    colour = _mix(_rgb(92, 6, 18), _rgb(172, 18, 34), depth * rng.uniform(0.5, 1))
    seam = _near(surface.phi, 0.07) * _ramp(surface.theta, 0.15, 0.6)
    return _Skin(colour * (1 - 0.25 * seam), -0.02 * seam)


def _white_grape(surface: _Surface, rng: np.random.Generator) -> _Skin:
    glow = _ramp(_blotches(surface, rng, frequency=1.2), -2, 2)
    colour = _mix(_rgb(160, 178, 84), _rgb(208, 212, 140), glow)
    veins = _ramp(np.cos(8 * surface.phi + 0.5 * _grain(surface, rng)), 0.7, 1)
    colour = _mix(colour, _rgb(222, 226, 172), 0.25 * veins)
    distance, chance = _dots(surface, rng, rows=14, scatter=0.35)
    colour = _mix(colour, _rgb(140, 104, 48), 0.6 * _ramp(distance, 0.4, 0.15) * (chance > 0.93))
    return _Skin(_mix(colour, _rgb(110, 84, 44), _near(np.pi - surface.theta, 0.1)))


def _kiwi(surface: _Surface, rng: np.random.Generator) -> _Skin:
    fibres = _grain(surface, rng, repeats=3, stretch=4)
    tone = 0.6 * _blotches(surface, rng, frequency=2) + 0.4 * fibres
    colour = _mix(_rgb(98, 70, 34), _rgb(166, 128, 78), _ramp(tone, -1.8, 1.8))
    ends = _near(surface.theta, 0.25) + _near(np.pi - surface.theta, 0.22)
    return _Skin(_mix(colour, _rgb(58, 42, 24), 0.8 * ends), 0.0025 * fibres)


def _lemon(surface: _Surface, rng: np.random.Generator) -> _Skin:
    ripe = _ramp(_blotches(surface, rng, frequency=1.2), -2.2, 1.5)
    colour = _mix(_rgb(232, 180, 16), _rgb(250, 212, 52), ripe)
    tips = _near(surface.theta, 0.22) + 0.7 * _near(np.pi - surface.theta, 0.16)
    colour = _mix(colour, _rgb(170, 160, 50), 0.6 * tips)
    return _Skin(colour, _pores(surface, rng, depth=0.004))


def _lime(surface: _Surface, rng: np.random.Generator) -> _Skin:
    ripe = _ramp(_blotches(surface, rng, frequency=1.4), -1, 2.4)
    colour = _mix(_rgb(58, 108, 26), _rgb(150, 176, 62), ripe)
    colour = _mix(colour, _rgb(150, 146, 80), 0.8 * _near(surface.theta, 0.16))
    return _Skin(colour, _pores(surface, rng, depth=0.004))


def _orange(surface: _Surface, rng: np.random.Generator) -> _Skin:
    ripe = _ramp(_blotches(surface, rng, frequency=1.2), -2, 2)
    colour = _mix(_rgb(226, 104, 6), _rgb(246, 146, 24), ripe)
    button = _ramp(surface.theta, 0.15, 0.11)
    colour = _mix(colour, _rgb(116, 124, 60), button)
    navel = _near(np.pi - surface.theta, 0.1)
    colour = _mix(colour, _rgb(140, 80, 30), 0.7 * navel)
    return _Skin(colour, _pores(surface, rng, depth=0.006) + 0.03 * button - 0.05 * navel)


def _peach(surface: _Surface, rng: np.random.Generator) -> _Skin:
    blush = _blotches(surface, rng, frequency=1.0) + 0.12 * _grain(surface, rng)
    colour = _mix(
        _rgb(238, 172, 84), _rgb(186, 52, 46), _ramp(blush + rng.normal(0.1, 0.3), -0.8, 1.1)
    )
    seam = _near(surface.phi, 0.12) * _ramp(np.pi - surface.theta, 0.05, 0.5)
    colour = _mix(colour, _rgb(150, 60, 40), 0.4 * seam)
    return _Skin(_mix(colour, _rgb(120, 84, 44), 0.7 * _near(surface.theta, 0.2)), -0.07 * seam)


def _pear(surface: _Surface, rng: np.random.Generator) -> _Skin:
    ripe = _ramp(_blotches(surface, rng, frequency=1.2), -2, 2)
    colour = _mix(_rgb(160, 160, 58), _rgb(208, 196, 96), ripe)
    blush = _ramp(_blotches(surface, rng, frequency=0.8), 0.4, 2) * rng.uniform(0, 0.6)
    colour = _mix(colour, _rgb(190, 112, 60), blush)
    distance, chance = _dots(surface, rng, rows=26, scatter=0.3)
    colour = _mix(colour, _rgb(132, 104, 46), 0.5 * _ramp(distance, 0.5, 0.2) * (chance > 0.3))
    ends = _near(np.pi - surface.theta, 0.13) + 0.5 * _near(surface.theta, 0.12)
    return _Skin(_mix(colour, _rgb(84, 62, 34), 0.9 * ends))


def _raspberry(surface: _Surface, rng: np.random.Generator) -> _Skin:
    distance, chance = _dots(surface, rng, rows=8, scatter=0.05)
    bead = np.sqrt(np.maximum(1.1 - distance * distance, 0))
    colour = _mix(_rgb(150, 12, 40), _rgb(214, 44, 76), 0.25 + 0.5 * chance)
    colour = colour * (0.35 + 0.65 * _ramp(bead, 0.1, 0.8))
    hull = _ramp(surface.theta, 0.3, 0.24)
    colour = _mix(colour, _rgb(226, 196, 160), hull)
    return _Skin(colour, 0.16 * bead * (1 - hull) - 0.1 * hull, 0.08 * bead * (1 - hull))


def _strawberry(surface: _Surface, rng: np.random.Generator) -> _Skin:
    ripe = surface.theta + 0.2 * _blotches(surface, rng, frequency=1.5)
    colour = _mix(_rgb(232, 130, 96), _rgb(196, 18, 26), _ramp(ripe, 0.25, 0.9))
    distance, chance = _dots(surface, rng, rows=11, scatter=0.08)
    pit = _ramp(distance, 0.75, 0.25)
    colour = _mix(colour, _rgb(228, 180, 84), _ramp(distance, 0.4, 0.24) * (0.4 + 0.5 * chance))
    leaf = surface.theta + 0.22 * np.cos(int(rng.integers(7, 10)) * surface.phi)
    calyx = _ramp(leaf + 0.06 * _blotches(surface, rng, frequency=3), 0.62, 0.52)
    green = _mix(_rgb(62, 104, 30), _rgb(122, 158, 62), _ramp(surface.theta, 0.1, 0.7))
    return _Skin(_mix(colour, green, calyx), 0.06 * calyx - 0.035 * pit * (1 - calyx))


def _watermelon(surface: _Surface, rng: np.random.Generator) -> _Skin:
    ragged = 1.1 * _blotches(surface, rng, frequency=5) + 0.5 * _grain(surface, rng)
    stripes = np.cos(int(rng.integers(7, 10)) * surface.phi + 0.9 * ragged)
    colour = _mix(_rgb(146, 176, 92), _rgb(34, 70, 32), _ramp(stripes, -0.35, 0.35))
    fine = 0.5 * _ramp(_grain(surface, rng) + stripes, 0.6, 1.4)
    colour = _mix(colour, _rgb(66, 104, 48), fine * _ramp(-stripes, 0, 0.6))
    ends = _near(surface.theta, 0.3) + _near(np.pi - surface.theta, 0.25)
    return _Skin(_mix(colour, _rgb(150, 160, 96), 0.5 * ends))


# Fruits


@dataclass(frozen=True)
class _Stem:
    """A stalk: length and radius at the skin in radii, colours at the skin and at the tip."""

    length: float
    radius: float
    foot: Colour
    tip: Colour


_WOODY = (_rgb(92, 66, 38), _rgb(58, 40, 26))
_FRESH = (_rgb(112, 128, 48), _rgb(110, 84, 44))


@dataclass(frozen=True)
class _Fruit:
    """How one kind of fruit looks.

    Attributes:
        shape: its body.
        skin: its colour and relief.
        gloss: strength of the highlight, linear light.
        polish: sharpness of the highlight: the exponent is 2 to this power.
        glow: how much light passes through the flesh, 0 to 1.
        fuzz: brightening of the outline by hairs, 0 to 1.
        stem: its stalk.
    """

    shape: _Round | _Curved
    skin: Callable[[_Surface, np.random.Generator], _Skin]
    gloss: float = 0.2
    polish: int = 4
    glow: float = 0.0
    fuzz: float = 0.0
    stem: _Stem | None = None


_APPLE = _Round(height=0.9, taper=0.1, dimple=0.3, hollow=0.2)
_FRUITS: dict[str, _Fruit] = {
    "Apple Green": _Fruit(_APPLE, _green_apple, 0.3, 5, stem=_Stem(0.5, 0.04, *_WOODY)),
    "Apple Red": _Fruit(_APPLE, _red_apple, 0.35, 5, stem=_Stem(0.5, 0.04, *_WOODY)),
    "Banana": _Fruit(_Curved(bend=0.95, thickness=0.24), _banana, 0.1, 3),
    "Blueberry": _Fruit(_Round(height=0.84, dimple=0.06, hollow=0.12), _blueberry, 0.05, 3),
    "Cherry": _Fruit(
        _Round(height=0.92, taper=0.08, dimple=0.22),
        _cherry,
        0.8,
        6,
        stem=_Stem(1.1, 0.035, *_FRESH),
    ),
    "Grape White": _Fruit(
        _Round(height=1.25), _white_grape, 0.4, 5, glow=0.5, stem=_Stem(0.25, 0.06, *_FRESH)
    ),
    "Kiwi": _Fruit(_Round(height=1.25, stub=0.04, nipple=0.04), _kiwi, 0.02, 2, fuzz=0.5),
    "Lemon": _Fruit(_Round(height=1.2, stub=0.1, nipple=0.24), _lemon, 0.22, 4),
    "Lime": _Fruit(_Round(height=1.06, stub=0.03, nipple=0.1), _lime, 0.25, 4),
    "Orange": _Fruit(_Round(height=0.97, dimple=0.04, hollow=0.02), _orange, 0.22, 4),
    "Peach": _Fruit(_Round(height=0.93, dimple=0.26, nipple=0.04), _peach, 0.03, 2, fuzz=0.35),
    "Pear": _Fruit(
        _Round(height=1.05, taper=-0.22, neck=0.75, hollow=0.12),
        _pear,
        0.12,
        3,
        stem=_Stem(0.55, 0.05, *_WOODY),
    ),
    "Raspberry": _Fruit(_Round(height=1.12, taper=0.12, dimple=0.1), _raspberry, 0.25, 5),
    "Strawberry": _Fruit(
        _Round(height=1.3, taper=0.3, dimple=0.12),
        _strawberry,
        0.3,
        5,
        stem=_Stem(0.3, 0.05, *_FRESH),
    ),
    "Watermelon": _Fruit(
        _Round(height=1.15), _watermelon, 0.15, 3, stem=_Stem(0.14, 0.05, *_FRESH)
    ),
}

CLASSES: tuple[str, ...] = tuple(_FRUITS)
"""The labels of the sample."""


def draw_fruit(label: str, rng: np.random.Generator, *, size: int = PHOTO_SIZE) -> np.ndarray:
    """One random individual of a fruit in a random pose and light, on white.

    Args:
        label: one of `CLASSES`.
        rng: decides everything else; the same state draws the same photo.
        size: height and width in pixels.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        KeyError: there is no such label.
    """
    fruit = _FRUITS[label]
    pose = _Pose.random(rng)
    shape = fruit.shape.individual(rng)
    surface = shape.surface(pose, round(size * _OVERSAMPLING))
    skin = fruit.skin(surface, rng)
    light = _shaded(fruit, surface, skin, pose, tint=np.exp(rng.normal(0, [0.07, 0.05, 0.07])))
    cover = np.clip(1 - (surface.gap - skin.bulge) / surface.pixel, 0, 1)
    photo = _mix(_WHITE, light, cover)
    if fruit.stem is not None and isinstance(shape, _Round):
        foot = pose.rotation[:, 2] * shape.pole
        photo = _with_stem(photo, fruit.stem, surface, pose=pose, foot=foot, rng=rng)
    return _developed(photo, size, rng)


def _shaded(
    fruit: _Fruit, surface: _Surface, skin: _Skin, pose: _Pose, *, tint: np.ndarray
) -> Colour:
    """(3, h, w) linear light that the skin sends to the camera."""
    normal = surface.normal
    if isinstance(skin.height, np.ndarray):
        normal = _bumped(normal, skin.height / surface.pixel)
    half = pose.light + _CAMERA
    half /= np.linalg.norm(half)
    facing = np.tensordot(pose.light, normal, 1)
    wrap = 0.15 + 0.5 * fruit.glow
    diffuse = np.maximum(facing + wrap, 0) / (1 + wrap)
    sky = 0.26 + 0.12 * normal[1]
    highlight = np.maximum(np.tensordot(half, normal, 1), 0)
    for _ in range(fruit.polish):
        highlight = highlight * highlight
    rim = np.square(1 - np.clip(normal[2], 0, 1))
    exposure = 0.92 * diffuse + sky + fruit.glow * 0.35 * rim + fruit.fuzz * 0.5 * rim
    colour = skin.colour * tint.astype(np.float32).reshape(3, 1, 1) * exposure
    return colour + fruit.gloss * highlight + 0.03 * rim


def _bumped(normal: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Normals tilted by the slope of a height in pixels."""
    tilted = normal.copy()
    tilted[0, :, 1:-1] -= (height[:, 2:] - height[:, :-2]) / 2
    tilted[1, 1:-1] += (height[2:] - height[:-2]) / 2
    return _unit(tilted)


def _with_stem(
    photo: Colour,
    stem: _Stem,
    surface: _Surface,
    *,
    pose: _Pose,
    foot: np.ndarray,
    rng: np.random.Generator,
) -> Colour:
    """Draws the stalk from `foot` (3,) outwards, where the fruit does not hide it."""
    length, bend = stem.length * rng.uniform(0.6, 1.3), rng.normal(0, 0.25, 2)
    axis = pose.rotation[:, 2] * length
    sides = pose.rotation[:, :2] @ bend.astype(np.float32) * length
    chord = (axis + sides)[:2]
    x, y = surface.right - foot[0], surface.up - foot[1]
    t = (x * chord[0] + y * chord[1]) / (chord @ chord + np.float32(1e-6))
    t = np.clip(t, 0, 1)[np.newaxis]
    centre = axis.reshape(3, 1, 1) * t + sides.reshape(3, 1, 1) * t * t
    across = np.stack([x, y]) - centre[:2]
    distance = np.sqrt(np.square(across).sum(0))
    radius = stem.radius * (1 + 0.5 * np.square(2 * t[0] - 1))
    cover = np.clip(0.5 - (distance - radius) / surface.pixel, 0, 1)
    cover *= (surface.gap > 0.5 * surface.pixel) | (foot[2] + centre[2] + radius > surface.depth)
    lit = np.tensordot(pose.light[:2], across, 1) / radius
    colour = _mix(stem.foot, stem.tip, t) * (0.75 + 0.5 * np.clip(lit, -1, 1))
    return _mix(photo, colour, cover)


def _developed(photo: Colour, size: int, rng: np.random.Generator) -> np.ndarray:
    """Linear light (3, h, w) -> (size, size, 3) uint8: gamma, reduction, sensor noise."""
    shown = np.sqrt(np.clip(photo, 0, 1)) * 255
    large = Image.fromarray(np.moveaxis(shown + 0.5, 0, -1).astype(np.uint8))
    small = np.asarray(large.resize((size, size), Image.Resampling.HAMMING), np.float32)
    noise = rng.normal(0, 1.5, small.shape).astype(np.float32) * (small < 250)
    return np.clip(small + noise + 0.5, 0, 255).astype(np.uint8)


# The sample


def draw_photo(split: str, label: str, index: int, *, seed: int = SEED) -> np.ndarray:
    """One photo of the sample, the same whatever else is drawn.

    Args:
        split: one of `SPLITS`; each holds individuals of its own.
        label: one of `CLASSES`.
        index: number of the photo in its folder, from 0.
        seed: of the sample.

    Returns:
        (100, 100, 3) uint8 RGB.
    """
    folder = zlib.crc32(f"{split}/{label}".encode())
    return draw_fruit(label, np.random.default_rng([seed, folder, index]))


def write_sample(
    folder: Path, *, photos_per_class: tuple[int, int] = (30, 10), seed: int = SEED
) -> int:
    """Writes `<folder>/<split>/<label>/<n>.jpg`, all or nothing.

    The photos are drawn beside `folder` and moved there in one step: a folder that holds photos
    is whole, and left as it is.

    Args:
        folder: to be made; may exist if it is empty.
        photos_per_class: for Training and for Test.
        seed: another one draws other photos.

    Returns:
        How many photos the folder holds.

    Raises:
        OSError: the folder cannot be written, or holds something else.
    """
    if found := _count(folder):
        return found
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as partial:
        drawn = Path(partial) / folder.name
        for split, photos in zip(SPLITS, photos_per_class, strict=True):
            _write_split(drawn / split, photos, seed=seed)
        _move(drawn, folder)
    return _count(folder)


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.glob("*/*/*.jpg"))


def _write_split(folder: Path, photos: int, *, seed: int) -> None:
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for index in range(photos):
            photo = Image.fromarray(draw_photo(folder.name, label, index, seed=seed))
            photo.save(folder / label / f"{index}.jpg", quality=JPEG_QUALITY)


def _move(drawn: Path, folder: Path) -> None:
    """Renames, unless another process has just done the same."""
    try:
        drawn.rename(folder)
    except OSError:
        if not _count(folder):
            raise
