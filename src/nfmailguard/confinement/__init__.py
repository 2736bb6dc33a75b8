"""What a gateway gives up once its queues are bound: capabilities, user, system calls, files."""
