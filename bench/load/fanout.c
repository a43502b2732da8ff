/* One message to many connections.
 *
 *     fanout HOST PORT [options], see usage() below
 *
 * The first connection tells the server what to do: "next" means one broadcast, and "turns" one
 * in every turn of its event loop from then on. The server numbers its messages: the text of
 * message k is k modulo 1,000 in six digits, and then dots up to the size. Each connection must
 * get all of them, in this order, as one frame each.
 *
 *     cc -O2 -o fanout fanout.c
 *     cc -O2 -DLOAD_TLS -o fanout fanout.c -lssl -lcrypto
 */

#include "connections.h"

#define NUMBERS 1000

struct member {
    struct connection connection; /* the first member */
    size_t wanted_at;             /* the next byte in `wanted` */
    uint64_t received;
};

static struct member *all;
static uint8_t *wanted;
static size_t frame_length, wanted_period;
static bool turns;
static bool measuring, going = true;
static uint64_t measured; /* deliveries */
/* Of the rounds: when the last "next" was sent, and how many have not got the message. */
static uint64_t asked;
static unsigned missing;

static struct connection *connection_at(unsigned number)
{
    return &all[number].connection;
}

static void on_opened(struct connection *c, const char *response)
{
    (void)c;
    (void)response;
}

static void make_frames(void)
{
    if (options.size < 6)
        die(EXIT_USAGE, "a message has at least 6 bytes");
    char *text = allocate(options.size + 7);
    wanted = allocate(NUMBERS * (options.size + 10));
    memset(text, '.', options.size + 6);
    for (unsigned i = 0; i < NUMBERS; i++) {
        char digits[16];
        snprintf(digits, sizeof digits, "%06u", i);
        memcpy(text, digits, 6);
        frame_length = put_header(wanted + wanted_period, 0x81, false, options.size);
        memcpy(wanted + wanted_period + frame_length, text, options.size);
        frame_length += options.size;
        wanted_period += frame_length;
    }
    free(text);
}

static void tell(const char *command)
{
    uint8_t frame[32];
    size_t length = strlen(command);
    bool wants_out;
    size_t header = put_header(frame, 0x81, true, length);
    memset(frame + header, 0, 4); /* a mask that changes nothing */
    memcpy(frame + header + 4, command, length);
    struct stream *s = &all[0].connection.stream;
    if (transmit(s, frame, header + 4 + length, &wants_out) < 0 || !settle(s, &wants_out))
        complain(0, "it does not take what it is told");
}

static void ask_for_next(void)
{
    missing = options.connections;
    asked = now();
    tell("next");
}

static void on_delivered(struct member *m, uint64_t before)
{
    uint64_t count = m->received - before;
    if (measuring)
        measured += count;
    if (turns || !count)
        return;
    if (count > 1) {
        complain(m->connection.number, "more messages than it was told to send");
        return;
    }
    if (--missing)
        return;
    if (measuring)
        record(now() - asked);
    if (going)
        ask_for_next();
}

static void on_messages(struct connection *c)
{
    struct member *m = (struct member *)c;
    uint64_t before = m->received;
    for (;;) {
        ssize_t n = receive(&c->stream, read_buffer, sizeof read_buffer);
        if (n == AGAIN)
            break;
        if (n <= 0) {
            complain(c->number, "the server closed it, after %llu messages",
                     (unsigned long long)m->received);
            return;
        }
        size_t length = (size_t)n, into_frame = m->wanted_at % frame_length;
        for (size_t done = 0; done < length;) {
            size_t piece = length - done;
            if (piece > wanted_period - m->wanted_at)
                piece = wanted_period - m->wanted_at;
            if (memcmp(read_buffer + done, wanted + m->wanted_at, piece)) {
                complain(c->number, "message %llu, or one that was read with it, is wrong",
                         (unsigned long long)m->received);
                return;
            }
            done += piece;
            m->wanted_at = (m->wanted_at + piece) % wanted_period;
        }
        m->received += (into_frame + length) / frame_length;
        if (!has_more(&c->stream, length, sizeof read_buffer))
            break;
    }
    on_delivered(m, before);
}

static void measure(void)
{
    uint64_t begin = now();
    if (turns)
        tell("turns");
    else
        ask_for_next();
    turn_until(begin + (uint64_t)(options.warmup * 1e9));

    struct cpu before = cpu_so_far();
    uint64_t from = now();
    measuring = true;
    turn_until(from + (uint64_t)(options.seconds * 1e9));
    measuring = false;
    double seconds = (double)(now() - from) / 1e9;
    struct cpu used = cpu_since(before);
    going = false;
    expect_some(measured, "message");
    begin_result(seconds, used);
    printf(", \"deliveries\": %llu, \"deliveries_per_second\": %.1f",
           (unsigned long long)measured, seconds > 0 ? (double)measured / seconds : 0);
    if (!turns)
        print_percentiles();
    end_result();
}

_Noreturn static void usage(void)
{
    fputs("usage: fanout HOST PORT [options]\n" USAGE_OF_ALL
          "  --rounds          a broadcast when all have got the last one (this is the default)\n"
          "  --turns           a broadcast in each turn of the server's event loop\n" EXITS_OF_ALL,
          stderr);
    exit(EXIT_USAGE);
}

static void parse_arguments(int argc, char **argv)
{
    static const struct option known[] = {
        OPTIONS_OF_ALL,
        {"rounds", no_argument, NULL, 'r'},
        {"turns", no_argument, NULL, 't'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (take_option(option, optarg))
            continue;
        switch (option) {
        case 'r': turns = false; break;
        case 't': turns = true; break;
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
    make_frames();
    make_request("");
    all = allocate(options.connections * sizeof *all);
    open_all();
    measure();
    return error_count ? EXIT_WRONG : 0;
}
