"""Correct content with random damage."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

ODD_PIECES: Sequence[bytes] = (
    b"",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\r",
    b"\n\n",
    b'"',
    b"'",
    b",",
    b"::",
    b"|",
    b"\t",
    b"-",
    b"nan",
    b"inf",
    b"1e999",
    b"9" * 50,
    b"9223372036854775808",
    b"[" * 50,
    "Ж\u202e".encode(),
    b"null",
    b"=",
    b"#",
    b" ",
)

Damage = tuple[float, float, bytes]
"""Where it begins and what share is replaced, both from 0 to 1, and by what."""


def damages() -> st.SearchStrategy[list[Damage]]:
    """A few random changes."""
    piece = st.one_of(st.sampled_from(ODD_PIECES), st.binary(max_size=6))
    length = st.one_of(st.just(0.0), st.floats(0, 0.05), st.floats(0, 1))
    return st.lists(st.tuples(st.floats(0, 1), length, piece), min_size=1, max_size=4)


def damaged(content: bytes, changes: Sequence[Damage]) -> bytes:
    """``content`` with these changes, one after the other."""
    for where, share, piece in changes:
        start = int(where * len(content))
        end = start + int(share * (len(content) - start))
        content = content[:start] + piece + content[end:]
    return content
