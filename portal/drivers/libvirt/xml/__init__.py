"""libvirt XML, one class an element, both ways; not for calls to a host."""
