"""Who must agree to a request: policies as data, the levels they demand, deputies. Not for: quotas."""
