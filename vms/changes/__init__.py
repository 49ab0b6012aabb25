"""What people ask to be changed of a machine that exists, where it takes quota: its size and its disks."""
