"""What a gateway gives up once its queues are bound: capabilities, users, system calls, files."""
