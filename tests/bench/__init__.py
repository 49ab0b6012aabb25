"""The bench: rows of figures with limits, measured on real parts by `scripts/bench`.

Not for: deciding whether the code is right. It holds no test, and no test asserts a time.
"""
