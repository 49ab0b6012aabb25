"""The catalogue as admins keep it: items, sizes, images. Not for: asking for what it offers."""
