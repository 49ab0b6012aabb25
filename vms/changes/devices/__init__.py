"""A machine's network cards, CD drives and its disks' limits: what needs nobody's consent."""
