"""The lab: a client, a gateway and a server in network namespaces of their own, with real mail software."""
