"""Which flow a packet belongs to, and the life of a flow."""
