"""Definitions that others made: read what the portal understands of them, and know what it must keep.

`document` parses and writes them without losing anything, `fields` says how values are read, `domain`,
`network` and `volume` say which. Not for: what the portal itself defines, which the modules beside this do.
"""
