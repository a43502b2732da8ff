"""Echo servers under load: fastws, its peers, and what C++ and Node do."""
