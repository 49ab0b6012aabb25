"""What lies in the pools of hosts: looked at, used, made, grown, copied and deleted."""
