from setuptools import Extension, setup

setup(ext_modules=[Extension("echo", ["echo.pyx"])])
