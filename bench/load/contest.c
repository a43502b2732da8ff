/* Everybody to everybody: each connection sends messages, and the server sends every one of them to
 * all connections, the sender included.
 *
 *     contest HOST PORT [options], see usage() below
 *
 * In a contest, each connection sends --messages binary messages of 7 bytes ("msg0000" and so on)
 * as fast as the server takes them, and it is over when all of them have arrived everywhere. That
 * is repeated with the same connections. A small contest first is the warm-up.
 *
 *     cc -O2 -o contest contest.c
 *     cc -O2 -DLOAD_TLS -o contest contest.c -lssl -lcrypto
 */

#include "connections.h"

#define DIGITS 4
#define PAYLOAD (3 + DIGITS)
#define FRAME (2 + PAYLOAD)           /* from the server */
#define MASKED_FRAME (2 + 4 + PAYLOAD)
#define CONTEST_TIMEOUT (110 * NS)

struct member {
    struct connection connection; /* the first member */
    size_t sent;                  /* bytes of `out` */
    uint8_t held[FRAME];          /* an incomplete frame */
    size_t held_length;
    uint64_t received;
    unsigned *times; /* how often each message has arrived */
};

static struct member *all;
static unsigned messages = 2500, current; /* of each connection; in the contest under way */
static uint8_t *out;
static uint64_t outstanding; /* deliveries */

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
    out = allocate((size_t)messages * MASKED_FRAME);
    for (unsigned i = 0; i < messages; i++) {
        char text[PAYLOAD + 1];
        snprintf(text, sizeof text, "msg%04u", i);
        uint8_t *frame = out + (size_t)i * MASKED_FRAME, mask[4];
        put_header(frame, 0x82, true, PAYLOAD);
        for (unsigned j = 0; j < 4; j++)
            mask[j] = (uint8_t)(17 + 59 * j + 31 * i);
        memcpy(frame + 2, mask, 4);
        for (unsigned j = 0; j < PAYLOAD; j++)
            frame[6 + j] = (uint8_t)text[j] ^ mask[j & 3];
    }
}

static void send_more(struct member *m)
{
    struct stream *s = &m->connection.stream;
    bool wants_out = false;
    size_t total = (size_t)current * MASKED_FRAME;
    while (m->sent < total) {
        ssize_t n = transmit(s, out + m->sent, total - m->sent, &wants_out);
        if (n == AGAIN)
            break;
        if (n == BROKEN) {
            complain(m->connection.number, "it broke while sending");
            return;
        }
        m->sent += (size_t)n;
    }
    if (settle(s, &wants_out))
        watch(s, wants_out);
    else
        complain(m->connection.number, "it broke while sending");
}

static void take_frame(struct member *m, const uint8_t *frame)
{
    unsigned number = 0;
    bool right = frame[0] == 0x82 && frame[1] == PAYLOAD && !memcmp(frame + 2, "msg", 3);
    for (unsigned i = 0; right && i < DIGITS; i++) {
        unsigned digit = (unsigned)frame[5 + i] - '0';
        right = digit < 10;
        number = 10 * number + digit;
    }
    if (!right || number >= current || m->times[number] == options.connections) {
        complain(m->connection.number, "message %llu is wrong", (unsigned long long)m->received);
        return;
    }
    m->times[number]++;
    m->received++;
    outstanding--;
}

static void take(struct member *m, const uint8_t *data, size_t length)
{
    while (length && !error_count) {
        if (!m->held_length && length >= FRAME) {
            take_frame(m, data);
            data += FRAME;
            length -= FRAME;
            continue;
        }
        size_t piece = FRAME - m->held_length < length ? FRAME - m->held_length : length;
        memcpy(m->held + m->held_length, data, piece);
        m->held_length += piece;
        data += piece;
        length -= piece;
        if (m->held_length == FRAME) {
            take_frame(m, m->held);
            m->held_length = 0;
        }
    }
}

static void on_messages(struct connection *c)
{
    struct member *m = (struct member *)c;
    if (m->sent < (size_t)current * MASKED_FRAME)
        send_more(m);
    for (;;) {
        ssize_t n = receive(&c->stream, read_buffer, sizeof read_buffer);
        if (n == AGAIN)
            break;
        if (n <= 0) {
            complain(c->number, "the server closed it, after %llu messages",
                     (unsigned long long)m->received);
            return;
        }
        take(m, read_buffer, (size_t)n);
        if (error_count || !has_more(&c->stream, (size_t)n, sizeof read_buffer))
            break;
    }
}

/* One contest; returns how long it took. */
static uint64_t compete(unsigned count)
{
    current = count;
    outstanding = (uint64_t)options.connections * options.connections * count;
    for (unsigned i = 0; i < options.connections; i++) {
        all[i].sent = 0;
        all[i].received = 0;
        memset(all[i].times, 0, count * sizeof *all[i].times);
    }
    uint64_t begin = now();
    for (unsigned i = 0; i < options.connections && !error_count; i++)
        send_more(&all[i]);
    while (outstanding && !error_count) {
        turn(100, on_event);
        if (now() > begin + CONTEST_TIMEOUT)
            die(EXIT_WRONG, "%llu messages did not arrive in time",
                (unsigned long long)outstanding);
    }
    return now() - begin;
}

static void measure(void)
{
    compete(messages / 10 ? messages / 10 : 1);
    uint64_t spent = 0, contests = 0;
    struct cpu before = cpu_so_far();
    while (!error_count && spent < (uint64_t)(options.seconds * 1e9)) {
        spent += compete(messages);
        contests++;
    }
    struct cpu used = cpu_since(before);
    double seconds = (double)spent / 1e9;
    uint64_t sent = contests * messages * options.connections;
    uint64_t deliveries = sent * options.connections;
    begin_result(seconds, used);
    printf(", \"contests\": %llu, \"deliveries\": %llu, \"deliveries_per_second\": %.1f, "
           "\"combined_per_second\": %.1f",
           (unsigned long long)contests, (unsigned long long)deliveries,
           (double)deliveries / seconds, (double)(deliveries + sent) / seconds);
    end_result();
}

_Noreturn static void usage(void)
{
    fputs("usage: contest HOST PORT [options]\n" USAGE_OF_ALL
          "  --messages M      of each connection (2500)\n" EXITS_OF_ALL,
          stderr);
    exit(EXIT_USAGE);
}

static void parse_arguments(int argc, char **argv)
{
    static const struct option known[] = {
        OPTIONS_OF_ALL,
        {"messages", required_argument, NULL, 'm'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (take_option(option, optarg))
            continue;
        if (option != 'm')
            usage();
        messages = (unsigned)number(optarg, 1, 10000);
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
    for (unsigned i = 0; i < options.connections; i++)
        all[i].times = allocate(messages * sizeof *all[i].times);
    open_all();
    measure();
    return error_count ? EXIT_WRONG : 0;
}
