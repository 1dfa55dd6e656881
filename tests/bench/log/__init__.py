"""The log's benchmark: what it stores, reads and costs, beside its peers on the same server in the same run."""
