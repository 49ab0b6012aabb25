"""Real further hosts on this machine, for tests: see `lab.Lab`. Not for: anything but tests."""
