"""Bytes as a person writes them."""


def readable(n: float) -> str:
    """``2_390_000_000`` -> ``"2.39 GB"``: three digits, decimal units."""
    for unit in ("bytes", "kB", "MB"):
        if n < 999.5:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB" if n < 1000 else f"{n:,.0f} GB"
