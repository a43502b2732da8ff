# This module is of no use in Python. capi.pxd declares what other Cython projects can use.
