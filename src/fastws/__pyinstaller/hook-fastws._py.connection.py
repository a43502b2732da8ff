"""What PyInstaller is told of a source that is compiled, too: it does not import Cython."""

excludedimports = ["cython"]
