"""Domains that somebody made elsewhere: found on hosts, adopted, released. Not for: editing them."""
