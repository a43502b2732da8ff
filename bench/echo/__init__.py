"""Echo servers under load: fastws, its peers, and servers in C++ and on Node."""
