/* Messages at a fixed rate, and how long after its time each one is back.
 *
 *     paced HOST PORT [options], see usage() below
 *
 * Message i is due i / rate seconds after the beginning, on connection i modulo their number. It
 * is sent then, whether or not others are back, and its latency counts from the time when it was
 * due. So a server that stalls cannot delay the messages that would have shown it ("coordinated
 * omission"), and neither can this client: what it sends late counts from when it was due, too.
 * It never sleeps, for the same reason.
 *
 *     cc -O2 -o paced paced.c -lz
 *     cc -O2 -DLOAD_TLS -o paced paced.c -lz -lssl -lcrypto
 */

#include "ring.h"

/* How long after the last message was due the client waits for replies. */
#define DRAIN_TIMEOUT (2 * NS)

static struct exchange *all;
static double rate = 1000;
/* All messages before `next` were sent. Those from `first` to before `end` are measured. */
static uint64_t begun, next, first, end;
static uint64_t back, measured, last_back;

static struct connection *connection_at(unsigned number)
{
    return &all[number].connection;
}

static uint64_t due(uint64_t message)
{
    return begun + (uint64_t)((double)message * 1e9 / rate);
}

static void on_opened(struct connection *c, const char *response)
{
    check_extensions(response);
    start_exchange((struct exchange *)c);
}

static void on_messages(struct connection *c)
{
    struct exchange *x = (struct exchange *)c;
    uint64_t reply = x->replies;
    if (take_replies(x) < 0)
        return;
    uint64_t time = now();
    for (; reply < x->replies; reply++) {
        uint64_t message = reply * options.connections + c->number;
        if (message >= next) {
            complain(c->number, "more replies than messages");
            return;
        }
        back++;
        if (message < first || message >= end)
            continue;
        record(time - due(message));
        measured++;
        last_back = time;
    }
    if (x->owed || c->stream.wants_out)
        flush(x);
}

static void send_what_is_due(void)
{
    uint64_t time = now();
    while (next < end && due(next) <= time && !error_count) {
        struct exchange *x = &all[next++ % options.connections];
        owe(x, 1);
        if (!x->connection.stream.wants_out)
            flush(x);
    }
}

/* Messages that are not back count with the time that they have taken so far. */
static uint64_t count_missing(void)
{
    uint64_t time = now(), missing = 0;
    for (unsigned i = 0; i < options.connections; i++)
        for (uint64_t reply = all[i].replies;; reply++) {
            uint64_t message = reply * options.connections + i;
            if (message >= next)
                break;
            if (message >= first) {
                record(time - due(message));
                missing++;
            }
        }
    return missing;
}

static void measure(void)
{
    first = (uint64_t)(options.warmup * rate);
    end = first + (uint64_t)(options.seconds * rate);
    if (end == first)
        die(EXIT_USAGE, "no message is due in that time");
    begun = now();
    while (!error_count && next < first) {
        send_what_is_due();
        turn(0, on_event);
    }
    struct cpu before = cpu_so_far();
    uint64_t from = now();
    while (!error_count && next < end) {
        send_what_is_due();
        turn(0, on_event);
    }
    struct cpu used = cpu_since(before);
    double seconds = (double)(now() - from) / 1e9;
    uint64_t deadline = now() + DRAIN_TIMEOUT;
    while (!error_count && back < end && now() < deadline)
        turn(0, on_event);
    uint64_t missing = error_count ? 0 : count_missing();
    expect_some(measured, "reply");
    double taken = measured ? (double)(last_back - due(first)) / 1e9 : 0;
    begin_result(seconds, used);
    printf(", \"messages\": %llu, \"messages_per_second\": %.1f, \"not_back\": %llu",
           (unsigned long long)measured, taken > 0 ? (double)measured / taken : 0,
           (unsigned long long)missing);
    print_percentiles();
    end_result();
}

_Noreturn static void usage(void)
{
    fputs("usage: paced HOST PORT [options]\n" USAGE_OF_ALL USAGE_OF_CONTENT
          "  --rate R          messages per second on all connections together (1000)\n"
          EXITS_OF_ALL "Exit status 3: the server declines --deflate as offered.\n",
          stderr);
    exit(EXIT_USAGE);
}

static void parse_arguments(int argc, char **argv)
{
    static const struct option known[] = {
        OPTIONS_OF_ALL,
        OPTIONS_OF_CONTENT,
        {"rate", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (take_option(option, optarg) || take_content_option(option))
            continue;
        if (option != 'r')
            usage();
        rate = number(optarg, 1, 1e8);
    }
    if (!take_target(argc, argv))
        usage();
}

int main(int argc, char **argv)
{
    parse_arguments(argc, argv);
    start_network();
    make_messages(1);
    make_request_of_content();
    all = allocate(options.connections * sizeof *all);
    open_all();
    measure();
    return error_count ? EXIT_WRONG : 0;
}
