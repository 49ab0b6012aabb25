"""Hosts of Xen: by fakes, and a real one where its image was built (`scripts/images/build xen-host`)."""
