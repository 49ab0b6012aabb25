"""The libvirt driver; the only package that imports the libvirt library."""
