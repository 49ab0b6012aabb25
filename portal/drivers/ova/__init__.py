"""Open Virtualization Format: one file that holds a machine. Not for: what is inside its disks.

Format: DMTF DSP0243 1.1 (OVF); a package as one file (OVA) is a tar archive in POSIX ustar form.
"""
