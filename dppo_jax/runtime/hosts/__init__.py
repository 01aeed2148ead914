"""Several processes: start-up, agreement, rows per host, preemption."""
