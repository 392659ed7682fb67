"""A network: who its members are, what each may do where, and how a member proves that it is one."""
