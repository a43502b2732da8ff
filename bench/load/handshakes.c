/* Storms of opening handshakes.
 *
 *     handshakes HOST PORT [options], see usage() below
 *
 * A storm opens --connections connections, --at-once of them at a time, with the request of a
 * browser. They stay open until the storm is over; then all are closed, which is not timed. The
 * next storm begins when the server has nothing left to do for them. The time of a handshake is from connect() to the end of the response, so
 * over TLS that of the TLS handshake is included. (No session is resumed.)
 *
 *     cc -O2 -o handshakes handshakes.c
 *     cc -O2 -DLOAD_TLS -o handshakes handshakes.c -lssl -lcrypto
 */

#include "connections.h"

/* When a server of which PAUSE takes less than a tenth has nothing left to do, and how long to
 * wait for that; in nanoseconds. */
#define PAUSE (20 * NS / 1000)
#define LONGEST_REST (NS / 2)

/* What Chrome sends from a page, with the fields of every request 14 of them: 5 are in
 * make_request. */
#define BROWSER                                                                                   \
    "Pragma: no-cache\r\n"                                                                        \
    "Cache-Control: no-cache\r\n"                                                                 \
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "         \
    "Chrome/142.0.0.0 Safari/537.36\r\n"                                                          \
    "Origin: http://localhost\r\n"                                                                \
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"                                                \
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"                                                \
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=1\r\n"                 \
    "DNT: 1\r\n"                                                                                  \
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"

struct handshake {
    struct connection connection; /* the first member */
    uint64_t begun;
};

static struct handshake *all;
static unsigned at_once = 20;
static uint64_t measured;
static bool measuring;

static struct connection *connection_at(unsigned number)
{
    return &all[number % options.connections].connection;
}

static void start_next(void)
{
    struct handshake *h = (struct handshake *)connection_at(started);
    h->begun = now();
    start(&h->connection);
}

static void on_opened(struct connection *c, const char *response)
{
    (void)response;
    if (measuring) {
        record(now() - ((struct handshake *)c)->begun);
        measured++;
    }
}

static void on_messages(struct connection *c)
{
    complain(c->number, "the server closed it or spoke first");
}

/* One storm; returns how long it took. */
static uint64_t rage(void)
{
    uint64_t begin = now(), deadline = begin + OPEN_TIMEOUT;
    unsigned before = opened;
    started = opened; /* all that were started are open */
    unsigned target = before + options.connections;
    while (opened < target && !error_count) {
        while (started < target && started - opened < at_once)
            start_next();
        turn(100, on_event);
        if (now() > deadline)
            die(EXIT_WRONG, "%u of %u connections opened in time", opened - before,
                options.connections);
    }
    return now() - begin;
}

/* Some servers end a connection before we hear of it, others when we have closed our side. What
 * the latter still have to do must not be timed with the next storm. */
static void rest(void)
{
    struct timespec pause = {0, PAUSE};
    uint64_t deadline = now() + LONGEST_REST;
    double used;
    do {
        struct cpu before = cpu_so_far();
        nanosleep(&pause, NULL);
        used = cpu_since(before).server;
    } while (used > (double)PAUSE / NS / 10 && now() < deadline);
}

static void calm(void)
{
    if (error_count)
        return;
    gone = 0;
    for (unsigned i = 0; i < options.connections; i++)
        send_close(connection_at(i));
    close_all(options.connections);
    /* Do not wait longer for a server that does not end its connections. */
    for (unsigned i = 0; i < options.connections; i++)
        if (connection_at(i)->state != GONE)
            forget(connection_at(i));
    rest();
}

static void measure(void)
{
    uint64_t spent = 0;
    while (!error_count && spent < (uint64_t)(options.warmup * 1e9)) {
        spent += rage();
        calm();
    }
    struct cpu used = {0};
    measuring = true;
    spent = 0;
    unsigned storms = 0;
    for (; !error_count && spent < (uint64_t)(options.seconds * 1e9); storms++) {
        struct cpu before = cpu_so_far();
        spent += rage();
        struct cpu storm = cpu_since(before);
        used.own += storm.own;
        used.server += storm.server;
        calm();
    }
    double seconds = (double)spent / 1e9;
    begin_result(seconds, used);
    printf(", \"storms\": %u, \"handshakes\": %llu, \"handshakes_per_second\": %.1f", storms,
           (unsigned long long)measured, seconds > 0 ? (double)measured / seconds : 0);
    print_percentiles();
    end_result();
}

_Noreturn static void usage(void)
{
    fputs("usage: handshakes HOST PORT [options]\n" USAGE_OF_ALL
          "  --at-once M       handshakes at the same time (20)\n" EXITS_OF_ALL,
          stderr);
    exit(EXIT_USAGE);
}

static void parse_arguments(int argc, char **argv)
{
    static const struct option known[] = {
        OPTIONS_OF_ALL,
        {"at-once", required_argument, NULL, 'a'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (take_option(option, optarg))
            continue;
        if (option != 'a')
            usage();
        at_once = (unsigned)number(optarg, 1, 1000);
    }
    if (!take_target(argc, argv))
        usage();
}

int main(int argc, char **argv)
{
    parse_arguments(argc, argv);
    start_network();
    make_request(BROWSER);
    all = allocate(options.connections * sizeof *all);
    measure();
    return error_count ? EXIT_WRONG : 0;
}
