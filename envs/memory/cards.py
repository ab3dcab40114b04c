"""What the card games share: shuffled decks, and pictures of cards."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import Env, State

Array = jax.Array

CARDS, COLORS, SUITS, RANKS = 52, 2, 4, 13
SUIT_LETTERS = "CDHS"  # clubs, diamonds, hearts, spades
RANK_LETTERS = "A23456789TJQK"  # the ace is low
ASKED, SEEN = draw.ORANGE, draw.BLUE  # frames: what must be answered, what is on show

_TABLE, _SLOT, _BACK = (233, 238, 235), (212, 219, 216), (150, 170, 196)
# A four-colour deck, so that a suit can be told by its ink alone.
_SUIT_INKS = ((39, 155, 88), (46, 104, 192), (205, 56, 48), (20, 20, 24))
_CARD_HEIGHT, _CARD_WIDTH, _FACE = 36, 28, 20


def shuffled(key: Array, decks: int, kinds: int) -> Array:
    """int8 [52 * decks]: the kinds of the cards in dealing order, as many of each kind. The key is consumed.

    Every card gets a random number, and the kind rides in its last four bits: sorting one array is seven times as fast
    on CPU as `jax.random.permutation`. Two of 52 cards draw the same 28 bits in 5 of a million decks; then the lower
    kind comes first.
    """
    kind = jnp.asarray(np.arange(CARDS * decks) % kinds, jnp.uint32)
    numbers = jax.random.bits(key, kind.shape, jnp.uint32)
    return (jnp.sort((numbers & ~jnp.uint32(15)) | kind) & 15).astype(jnp.int8)


@dataclass(frozen=True)
class CardGame(Env[State, tuple[()]]):
    """A game of N = 52 * decks cards, one dealt a step and the first at the reset: N - 1 steps. No params."""

    decks: int = 1
    """Decks of 52 cards shuffled together."""

    def __post_init__(self) -> None:
        if self.decks < 1:
            raise ValueError(f"{self.name}: decks must be at least 1, got {self.decks}.")

    @property
    def num_cards(self) -> int:
        return CARDS * self.decks

    @property
    def horizon(self) -> int:
        return self.num_cards - 1

    def default_params(self) -> tuple[()]:
        return ()


def kind_letters(kinds: int) -> str:
    """One letter for each of 2 colours, 4 suits or 13 ranks."""
    return {COLORS: "BR", SUITS: SUIT_LETTERS, RANKS: RANK_LETTERS}[kinds]


# --- pictures -----------------------------------------------------------------------------------------------
def table(height: int, width: int) -> Array:
    """uint8 [height, width, 3]: an empty table."""
    return draw.canvas(height, width, _TABLE)


def draw_card(
    image: Array, top: int, left: int, kinds: int, kind: Array, face_up: Array | bool, frame: tuple[int, int, int]
) -> Array:
    """A framed card, 36 x 28 pixels, with one of `kinds` faces (colours, suits or ranks), or face down."""
    height, width = image.shape[:2]

    def inset(border: int) -> Array:
        return draw.rectangle(
            height, width, top + border, left + border, top + _CARD_HEIGHT - border, left + _CARD_WIDTH - border
        )

    image = draw.paint(image, inset(0), frame)
    image = draw.paint(image, inset(2), draw.WHITE)
    y, x = np.mgrid[0:height, 0:width]
    weave = jnp.asarray((y + x) % 4 < 2) | jnp.asarray((y - x) % 4 < 2)
    image = draw.paint(image, inset(4) & weave & ~jnp.asarray(face_up, bool), _BACK)

    masks, inks = _faces(kinds)
    y0, x0 = top + (_CARD_HEIGHT - _FACE) // 2, left + (_CARD_WIDTH - _FACE) // 2
    mask = jnp.zeros((height, width), bool).at[y0 : y0 + _FACE, x0 : x0 + _FACE].set(jnp.asarray(masks)[kind])
    return draw.paint(image, mask & face_up, jnp.asarray(inks, jnp.uint8)[kind])


def suit_game(suits: Array, on_ribbon: Array, visible: Array, shown: Array, asked_for: Array, asked: Array) -> Array:
    """uint8 [64, 112, 3]: left the card to name (orange frame), right the visible one (blue), below the deck.

    `suits` int8 [N]; `on_ribbon` bool [N], the cards whose colour the ribbon below shows; `visible` and `asked_for`
    are places in the deck, marked above the ribbon; `shown` and `asked` say whether those two cards lie face up.
    """
    height, width, left, right = 64, 112, 6, 106
    image = table(height, width)
    image = draw_card(image, 6, 20, SUITS, suits[asked_for], asked, ASKED)
    image = draw_card(image, 6, 64, SUITS, suits[visible], shown, SEEN)

    cards = suits.shape[0]
    place = jnp.asarray(np.clip((np.arange(width) - left) * cards // (right - left), 0, cards - 1), jnp.int32)
    inks = jnp.asarray(_SUIT_INKS, jnp.uint8)[suits[place]]
    row = jnp.where(on_ribbon[place][:, None], inks, jnp.asarray(_SLOT, jnp.uint8))
    ribbon = draw.rectangle(height, width, 51, left, 60, right)
    image = draw.paint(image, ribbon, jnp.broadcast_to(row, (height, width, 3)))
    for index, there, color in ((visible, shown, SEEN), (asked_for, asked, ASKED)):
        x = left + (index + 0.5) * (right - left) / cards
        image = draw.paint(image, draw.rectangle(height, width, 46, x - 1.5, 50, x + 1.5) & there, color)
    return image


def progress(image: Array, share: Array, color: tuple[int, int, int] = draw.GREY) -> Array:
    """A bar along the lower edge, `share` of the width long."""
    height, width = image.shape[:2]
    return draw.paint(image, draw.rectangle(height, width, height - 3, 0, height, width * share), color)


def bars(image: Array, left: int, bottom: int, step: int, heights: Array, colors: Array) -> Array:
    """Upright bars, one every `step` pixels, with a pixel between them: heights float32 [n], colors uint8 [n, 3]."""
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    offset, count = x - left, heights.shape[0]
    bar = jnp.asarray(np.clip(offset // step, 0, count - 1), jnp.int32)
    inside = jnp.asarray((offset >= 0) & (offset < step * count) & (offset % step < step - 1) & (y < bottom))
    return draw.paint(image, inside & (y + 0.5 > bottom - heights[bar]), colors[bar])


def label_kinds(image: Array, top: int, left: int, step: int, kinds: int) -> Array:
    """The names of the kinds in a row, one every `step` pixels: ranks as letters of 7 x 5 pixels, else small faces."""
    if kinds == RANKS:
        labels = np.stack([_glyph(letter) for letter in RANK_LETTERS])
        inks, indent = np.full((RANKS, 3), 124, np.uint8), 0
    else:
        masks, inks = _faces(kinds)
        labels, indent = masks[:, 1::2, 1::2], (step - 1 - _FACE // 2) // 2
    for i, label in enumerate(labels):
        mask = np.zeros(image.shape[:2], bool)
        x = left + i * step + indent
        mask[top : top + label.shape[0], x : x + label.shape[1]] = label
        image = draw.paint(image, jnp.asarray(mask), tuple(inks[i].tolist()))
    return image


def _faces(kinds: int) -> tuple[np.ndarray, np.ndarray]:
    """(bool [kinds, 20, 20], uint8 [kinds, 3]): the masks and inks of the faces of 2, 4 or 13 kinds of cards."""
    suits = _suit_masks()
    if kinds == COLORS:
        return suits[[3, 2]], np.array([_SUIT_INKS[3], _SUIT_INKS[2]], np.uint8)
    if kinds == SUITS:
        return suits, np.array(_SUIT_INKS, np.uint8)
    return _rank_masks(), np.tile(np.array(draw.BLACK, np.uint8), (RANKS, 1))


def _suit_masks() -> np.ndarray:
    """bool [4, 20, 20]: clubs, diamonds, hearts and spades."""
    y, x = np.mgrid[0:20, 0:20] - 9.5

    def disc(y0: float, x0: float, radius: float) -> np.ndarray:
        return (y - y0) ** 2 + (x - x0) ** 2 <= radius**2

    stem = (np.abs(x) <= 1 + np.maximum(y - 4, 0) / 2) & (y >= 0) & (y < 9)
    club = disc(-4.5, 0, 4.2) | disc(1.5, -4.8, 4.2) | disc(1.5, 4.8, 4.2) | stem
    diamond = np.abs(x) / 7 + np.abs(y) / 9.5 <= 1

    def heart(y: np.ndarray) -> np.ndarray:
        lobes = (y + 3.5) ** 2 + (np.abs(x) - 4.2) ** 2 <= 4.6**2
        return lobes | ((y >= -2.5) & (np.abs(x) <= 8.4 * (9 - y) / 11.5))

    spade = heart(-y - 1.5) | stem
    return np.stack([club, diamond, heart(y), spade])


def _rank_masks() -> np.ndarray:
    """bool [13, 20, 20]: the names of the ranks, in letters of 14 x 10 pixels."""
    masks = np.zeros((RANKS, 20, 20), bool)
    for i, letter in enumerate(RANK_LETTERS):
        name = _glyph(letter)
        if letter == "T":
            name = np.concatenate([_glyph("1")[:, 1:4], np.zeros((7, 1), bool), _glyph("0")], axis=1)
        name = name.repeat(2, 0).repeat(2, 1)
        x = (20 - name.shape[1]) // 2
        masks[i, 3:17, x : x + name.shape[1]] = name
    return masks


# Rows of 5 bits from top to bottom; 0x10 is the leftmost pixel.
_GLYPHS = {
    "0": (0x0E, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0E),
    "1": (0x04, 0x0C, 0x04, 0x04, 0x04, 0x04, 0x0E),
    "2": (0x0E, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1F),
    "3": (0x1F, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0E),
    "4": (0x02, 0x06, 0x0A, 0x12, 0x1F, 0x02, 0x02),
    "5": (0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E),
    "6": (0x06, 0x08, 0x10, 0x1E, 0x11, 0x11, 0x0E),
    "7": (0x1F, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08),
    "8": (0x0E, 0x11, 0x11, 0x0E, 0x11, 0x11, 0x0E),
    "9": (0x0E, 0x11, 0x11, 0x0F, 0x01, 0x02, 0x0C),
    "A": (0x0E, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11),
    "J": (0x07, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0C),
    "K": (0x11, 0x12, 0x14, 0x18, 0x14, 0x12, 0x11),
    "Q": (0x0E, 0x11, 0x11, 0x11, 0x15, 0x12, 0x0D),
    "T": (0x1F, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04),
}


def _glyph(letter: str) -> np.ndarray:
    """bool [7, 5]."""
    rows = np.array(_GLYPHS[letter])[:, None]
    return (rows >> np.arange(4, -1, -1)) & 1 == 1
