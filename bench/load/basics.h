/* What every load client needs: options, time, how long things took, and what went wrong. */

#ifndef LOAD_BASICS_H
#define LOAD_BASICS_H

#define _GNU_SOURCE
#include <dirent.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_WRONG = 1, EXIT_USAGE = 2, EXIT_DECLINED = 3 };

#define NS 1000000000ull

_Noreturn static void die(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(status);
}

static void *allocate(size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    if (!memory)
        die(EXIT_USAGE, "out of memory");
    return memory;
}

/* Errors of the server: the first one is printed, and all are counted. */
static uint64_t error_count;

static void complain(unsigned connection, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!error_count++) {
        fprintf(stderr, "load: connection %u: ", connection);
        vfprintf(stderr, format, args);
        fputc('\n', stderr);
    }
    va_end(args);
}

/* Options ---------------------------------------------------------------------------- */

static struct {
    const char *host, *port;
    unsigned connections;
    size_t size;
    bool tls;
    double seconds, warmup;
    long pid;
} options = {.connections = 1, .size = 32, .seconds = 3, .warmup = 0.5};

#define OPTIONS_OF_ALL                                                                            \
    {"connections", required_argument, NULL, 'c'}, {"size", required_argument, NULL, 's'},        \
        {"seconds", required_argument, NULL, 'S'}, {"warmup", required_argument, NULL, 'W'},      \
        {"tls", no_argument, NULL, 'T'}, {"pid", required_argument, NULL, 'p'}

#define USAGE_OF_ALL                                                                              \
    "  --connections N   (1)\n"                                                                   \
    "  --size B          bytes of a payload (32)\n"                                               \
    "  --seconds S       how long to measure (3)\n"                                               \
    "  --warmup W        seconds before that (0.5)\n"                                             \
    "  --tls             wss://, with any certificate\n"                                          \
    "  --pid PID         tell the CPU time of that process, too\n"

#define EXITS_OF_ALL                                                                              \
    "Exit status: 1 if anything was wrong with the server, 2 for these options or this\n"         \
    "machine.\n"

static double number(const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most))
        die(EXIT_USAGE, "%s is not a number from %g to %g", text, least, most);
    return value;
}

/* Whether it was an option of all load clients. */
static bool take_option(int option, const char *argument)
{
    switch (option) {
    case 'c': options.connections = (unsigned)number(argument, 1, 1e6); return true;
    case 's': options.size = (size_t)number(argument, 1, 16 << 20); return true;
    case 'S': options.seconds = number(argument, 0.01, 86400); return true;
    case 'W': options.warmup = number(argument, 0, 3600); return true;
    case 'T': options.tls = true; return true;
    case 'p': options.pid = (long)number(argument, 1, 1e9); return true;
    default: return false;
    }
}

/* The arguments that are not options: the host and the port. */
static bool take_target(int argc, char **argv)
{
    if (argc - optind != 2)
        return false;
    options.host = argv[optind];
    options.port = argv[optind + 1];
    return true;
}

static void raise_file_limit(void)
{
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* Time ------------------------------------------------------------------------------- */

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

/* Buckets of nanoseconds: exact below 64, then 64 for each power of two. */
#define SUB_BITS 6
#define SUB (1u << SUB_BITS)
static uint64_t histogram[(64 - SUB_BITS + 1) * SUB];
static uint64_t longest;

static void record(uint64_t value)
{
    if (value > longest)
        longest = value;
    unsigned bucket = (unsigned)value;
    if (value >= SUB) {
        unsigned shift = 63 - (unsigned)__builtin_clzll(value) - SUB_BITS;
        bucket = (shift + 1) * SUB + (unsigned)((value >> shift) - SUB);
    }
    histogram[bucket]++;
}

static double middle_of(unsigned bucket)
{
    if (bucket < SUB)
        return bucket;
    unsigned shift = bucket / SUB - 1;
    return ((double)(bucket % SUB + SUB) + 0.5) * (double)(1ull << shift);
}

static double percentile(double share)
{
    uint64_t total = 0, seen = 0;
    unsigned count = sizeof histogram / sizeof *histogram;
    for (unsigned i = 0; i < count; i++)
        total += histogram[i];
    for (unsigned i = 0; i < count; i++) {
        seen += histogram[i];
        if (seen && (double)seen >= share * (double)total)
            return middle_of(i) < (double)longest ? middle_of(i) : (double)longest;
    }
    return 0;
}

/* CPU time, ours and the server's: read at the same moments, for the same span of time. */

struct cpu {
    double own, server;
};

/* That of all threads of a process and of its children: some servers work in a process of their
 * own. (/proc/PID/stat counts in hundredths of a second.) */
static double cpu_of(long pid)
{
    char path[320];
    snprintf(path, sizeof path, "/proc/%ld/task", pid);
    DIR *threads = opendir(path);
    if (!threads)
        return 0;
    double total = 0;
    for (struct dirent *thread; (thread = readdir(threads));) {
        if (thread->d_name[0] == '.')
            continue;
        unsigned long long ns;
        snprintf(path, sizeof path, "/proc/%ld/task/%s/schedstat", pid, thread->d_name);
        FILE *file = fopen(path, "r");
        if (file && fscanf(file, "%llu", &ns) == 1)
            total += (double)ns / 1e9;
        if (file)
            fclose(file);
        snprintf(path, sizeof path, "/proc/%ld/task/%s/children", pid, thread->d_name);
        file = fopen(path, "r");
        for (long child; file && fscanf(file, "%ld", &child) == 1;)
            total += cpu_of(child);
        if (file)
            fclose(file);
    }
    closedir(threads);
    return total;
}

static struct cpu cpu_so_far(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double own = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    return (struct cpu){own, options.pid ? cpu_of(options.pid) : 0};
}

static struct cpu cpu_since(struct cpu before)
{
    struct cpu after = cpu_so_far();
    return (struct cpu){after.own - before.own, after.server - before.server};
}

/* The result -------------------------------------------------------------------------- */

/* One line of JSON: what this client adds, between begin_result and end_result, and what all
 * clients tell. */
static void begin_result(double seconds, struct cpu used)
{
    printf("{\"seconds\": %.6f, \"errors\": %llu, \"cpu_seconds\": %.4f", seconds,
           (unsigned long long)error_count, used.own);
    if (options.pid)
        printf(", \"server_cpu_seconds\": %.4f", used.server);
}

static void print_percentiles(void)
{
    printf(", \"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, "
           "\"max_us\": %.2f",
           percentile(0.50) / 1e3, percentile(0.90) / 1e3, percentile(0.99) / 1e3,
           percentile(0.999) / 1e3, (double)longest / 1e3);
}

static void end_result(void)
{
    puts("}");
    fflush(stdout);
}

#endif
