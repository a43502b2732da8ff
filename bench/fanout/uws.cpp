// A server with uWebSockets that publishes one message to all of its connections.
//
//     uws PORT --size B
//
// fanout.c says what the messages are, and how to ask for them. bench/load/programs.py builds it.

#include "App.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

namespace {

constexpr unsigned numbers = 1000;

struct Nothing {};

struct Station {
    uWS::App& app;
    std::size_t size;
    unsigned number = 0;
    bool in_turns = false;

    void broadcast()
    {
        char digits[16];
        std::snprintf(digits, sizeof digits, "%06u", number);
        number = (number + 1) % numbers;
        std::string text{digits};
        text.resize(size, '.');
        app.publish("all", text, uWS::OpCode::TEXT, false);
    }

    void every_turn()
    {
        broadcast();
        uWS::Loop::get()->defer([this] { every_turn(); });
    }

    void obey(std::string_view command)
    {
        if (command == "next") {
            broadcast();
        } else if (!in_turns) {
            in_turns = true;
            every_turn();
        }
    }
};

} // namespace

int main(int argc, char** argv)
{
    int port = argc > 1 ? std::atoi(argv[1]) : 0;
    int size = argc == 4 && std::string{argv[2]} == "--size" ? std::atoi(argv[3]) : 0;
    if (port < 1 || port > 65535 || size < 6) {
        std::cerr << "usage: uws PORT --size B\n";
        return 2;
    }
    std::signal(SIGUSR2, SIG_IGN); // the benchmark's "collect your garbage"
    uWS::App app;
    Station station{app, static_cast<std::size_t>(size)};
    bool listening = false;
    app.ws<Nothing>("/*",
                    {
                        .compression = uWS::DISABLED,
                        .idleTimeout = 0,
                        .maxBackpressure = 0, // no limit
                        .sendPingsAutomatically = false,
                        .open = [](auto* ws) { ws->subscribe("all"); },
                        .message = [&station](auto*, std::string_view message,
                                              uWS::OpCode) { station.obey(message); },
                    })
        .listen("127.0.0.1", port, [&](auto* socket) { listening = socket != nullptr; })
        .run();
    if (!listening)
        std::cerr << "cannot listen on port " << port << "\n";
    return 1; // it does not end while it listens
}
