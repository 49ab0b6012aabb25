"""One suite for every driver: what `portal.drivers.base` promises.

A test takes the fixture `bench` and so runs on the fake and, marked `live`, on libvirt. A new driver is a
parameter of that fixture and gets no tests of its own here.
"""
