"""A genuine YARN on this machine: Hadoop's ResourceManager and NodeManagers, from Maven's jars.

Each machine of the cluster is a NodeManager with an address of its own in 127.0.0.0/8, and what YARN
accounts for it, memory and cores, is what a machine of EMR would have. Memory is enforced.
"""
