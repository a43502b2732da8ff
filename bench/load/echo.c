/* Messages that come back: a fixed number is in flight on each connection.
 *
 *     echo HOST PORT [options], see usage() below
 *
 * The client replaces each reply with a new message at once, and sends the replacements of
 * replies that it read together in one write.
 *
 *     cc -O2 -o echo echo.c -lz
 *     cc -O2 -DLOAD_TLS -o echo echo.c -lz -lssl -lcrypto
 */

#include "ring.h"
#include <poll.h>

#define DRAIN_TIMEOUT (10 * NS)

struct echo {
    struct exchange exchange; /* the first member */
    /* When the messages in flight were sent: a ring. */
    uint64_t *sent_at;
    unsigned oldest, flying;
};

static struct echo *all;
static unsigned in_flight = 1;
static bool idle;
static uint64_t flying_total, measured;
static bool measuring, sending;

static struct connection *connection_at(unsigned number)
{
    return &all[number].exchange.connection;
}

static void on_opened(struct connection *c, const char *response)
{
    check_extensions(response);
    start_exchange((struct exchange *)c);
}

static void send_next(struct echo *e, unsigned count, uint64_t time)
{
    owe(&e->exchange, count);
    for (unsigned i = 0; i < count; i++) {
        unsigned slot = e->oldest + e->flying++;
        e->sent_at[slot < in_flight ? slot : slot - in_flight] = time;
    }
    flying_total += count;
}

static void on_messages(struct connection *c)
{
    struct echo *e = (struct echo *)c;
    long completed = take_replies(&e->exchange);
    if (completed < 0)
        return;
    if (completed > (long)e->flying) {
        complain(c->number, "more replies than messages");
        return;
    }
    if (completed) {
        uint64_t time = now();
        for (long i = 0; i < completed; i++) {
            if (measuring)
                record(time - e->sent_at[e->oldest]);
            e->oldest = e->oldest + 1 == in_flight ? 0 : e->oldest + 1;
        }
        if (measuring)
            measured += (uint64_t)completed;
        e->flying -= (unsigned)completed;
        flying_total -= (uint64_t)completed;
        if (sending)
            send_next(e, (unsigned)completed, time);
    }
    if (e->exchange.owed || c->stream.wants_out)
        flush(&e->exchange);
}

/* The run --------------------------------------------------------------------------------- */

static void stay_idle(void)
{
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd files[] = {{.fd = 0, .events = POLLIN}, {.fd = epoll_fd, .events = POLLIN}};
        char ignored[256];
        if (poll(files, 2, -1) < 0 && errno != EINTR)
            die(EXIT_USAGE, "poll: %s", strerror(errno));
        if (files[0].revents && read(0, ignored, sizeof ignored) <= 0)
            return;
        if (files[1].revents)
            turn(0, on_event);
        if (error_count)
            return;
    }
}

static void measure(void)
{
    sending = true;
    uint64_t begin = now();
    for (unsigned i = 0; i < options.connections && !error_count; i++) {
        send_next(&all[i], in_flight, now());
        flush(&all[i].exchange);
    }
    turn_until(begin + (uint64_t)(options.warmup * 1e9));

    struct cpu before = cpu_so_far();
    uint64_t from = now();
    measuring = true;
    turn_until(from + (uint64_t)(options.seconds * 1e9));
    measuring = false;
    double seconds = (double)(now() - from) / 1e9;
    struct cpu used = cpu_since(before);

    /* Messages in flight must come back, too. */
    sending = false;
    uint64_t deadline = now() + DRAIN_TIMEOUT;
    while (!error_count && flying_total && now() < deadline)
        turn(10, on_event);
    if (!error_count && flying_total) {
        fprintf(stderr, "load: %llu messages were not answered\n",
                (unsigned long long)flying_total);
        error_count = flying_total;
    }
    expect_some(measured, "reply");
    double rate = seconds > 0 ? (double)measured / seconds : 0;
    begin_result(seconds, used);
    printf(", \"messages\": %llu, \"messages_per_second\": %.1f, "
           "\"megabytes_per_second\": %.3f",
           (unsigned long long)measured, rate, rate * (double)options.size / 1e6);
    print_percentiles();
    end_result();
}

_Noreturn static void usage(void)
{
    fputs("usage: echo HOST PORT [options]\n" USAGE_OF_ALL USAGE_OF_CONTENT
          "  --in-flight M     messages in flight on each connection (1)\n"
          "  --idle            open the connections, print 'ready', wait for the end of stdin\n"
          EXITS_OF_ALL "Exit status 3: the server declines --deflate as offered.\n",
          stderr);
    exit(EXIT_USAGE);
}

static void parse_arguments(int argc, char **argv)
{
    static const struct option known[] = {
        OPTIONS_OF_ALL,
        OPTIONS_OF_CONTENT,
        {"in-flight", required_argument, NULL, 'f'},
        {"idle", no_argument, NULL, 'i'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (take_option(option, optarg) || take_content_option(option))
            continue;
        switch (option) {
        case 'f': in_flight = (unsigned)number(optarg, 1, 65536); break;
        case 'i': idle = true; break;
        default: usage();
        }
    }
    if (!take_target(argc, argv))
        usage();
}

int main(int argc, char **argv)
{
    parse_arguments(argc, argv);
    start_network();
    make_messages(in_flight);
    make_request_of_content();
    all = allocate(options.connections * sizeof *all);
    uint64_t *times = allocate((size_t)options.connections * in_flight * sizeof *times);
    for (unsigned i = 0; i < options.connections; i++)
        all[i].sent_at = times + (size_t)i * in_flight;

    open_all();
    if (idle)
        stay_idle();
    else
        measure();
    if (error_count)
        return EXIT_WRONG;
    for (unsigned i = 0; i < options.connections; i++)
        if (all[i].exchange.connection.state == OPEN && !all[i].exchange.owed)
            send_close(connection_at(i));
    close_all(options.connections);
    return error_count ? EXIT_WRONG : 0;
}
