// The command line of the echo servers in C++: PORT [--deflate] [--tls CERT KEY]

#ifndef ECHO_ARGUMENTS_H
#define ECHO_ARGUMENTS_H

#include <cstdlib>
#include <iostream>
#include <string>

struct Arguments {
    int port = 0;
    bool deflate = false;
    std::string certificate, key; // empty: no TLS
};

[[noreturn]] inline void usage(const char* name)
{
    std::cerr << "usage: " << name << " PORT [--deflate] [--tls CERT KEY]\n";
    std::exit(2);
}

inline Arguments parse_arguments(int argc, char** argv, const char* name)
{
    Arguments arguments;
    arguments.port = argc > 1 ? std::atoi(argv[1]) : 0;
    for (int i = 2; i < argc; i++) {
        std::string option = argv[i];
        if (option == "--deflate") {
            arguments.deflate = true;
        } else if (option == "--tls" && i + 2 < argc) {
            arguments.certificate = argv[++i];
            arguments.key = argv[++i];
        } else {
            usage(name);
        }
    }
    if (arguments.port < 1 || arguments.port > 65535)
        usage(name);
    return arguments;
}

#endif
