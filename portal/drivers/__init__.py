"""Drivers: pure Python that speaks to hypervisors; not for Django, queues or database code."""
