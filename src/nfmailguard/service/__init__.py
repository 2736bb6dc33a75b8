"""The running gateway: its queues, rules, configuration, control socket, logs and metrics."""
