# There is nothing here for Python: capi.pxd has what other Cython projects can use.
