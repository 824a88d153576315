"""A genuine YARN on this machine: Hadoop's ResourceManager and NodeManagers, from Maven's jars.

Each machine of the cluster is a NodeManager with an address of its own in 127.0.0.0/8. YARN
accounts to it the memory and cores of a machine of EMR, and ends containers that take more memory.
"""
