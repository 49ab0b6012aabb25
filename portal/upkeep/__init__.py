"""The portal's own safety: copies of its database, keys and settings. Not for: machines' disks."""
