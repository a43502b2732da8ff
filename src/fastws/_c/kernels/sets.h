/* The sets of kernels that there are for this architecture, and for this CPU.
 *
 * This file knows what there is. It does not choose.
 */
#ifndef FASTWS_SETS_H
#define FASTWS_SETS_H

#include "cpu.h"
#include "kernels.h"
#include "scalar.h"

#if defined(FASTWS_HAVE_X86) || defined(FASTWS_HAVE_NEON)

/* Tables for transcoding --------------------------------------------------------------- */

/* Which shuffle the next window of 12 bytes needs, and how many bytes it takes. There are
 * shuffles for six characters of 1-2 bytes, four of 1-3, and three of 1-4. */
enum {
    FASTWS_FOURS = 64, /* 2 ** 6 */
    FASTWS_THREES = FASTWS_FOURS + 81, /* 3 ** 4 */
    FASTWS_SHUFFLES = FASTWS_THREES + 64, /* 4 ** 3 */
    /* Those of equal characters, and which bytes of such a window end one. */
    FASTWS_SIX_OF_TWO = FASTWS_FOURS - 1,
    FASTWS_FOUR_OF_THREE = FASTWS_THREES - 1,
    FASTWS_THREE_OF_FOUR = FASTWS_SHUFFLES - 1,
    FASTWS_ENDS_OF_TWOS = 0xAAA,
    FASTWS_ENDS_OF_THREES = 0x924,
    FASTWS_ENDS_OF_FOURS = 0x888
};

typedef struct {
    uint8_t shuffle;
    uint8_t bytes;
} fastws_window;

static struct {
    fastws_window windows[1 << 12];
    uint8_t shuffles[FASTWS_SHUFFLES][16];
    /* How to move together those of 8 bytes that are kept. */
    uint8_t keep[256][16];
} fastws_tables;

/* Write the shuffle for `count` characters of these sizes; return how many bytes they are.
 * An element of the shuffled window has the last byte of its character first. */
static int
fastws_make_shuffle(uint8_t *shuffle, const int *sizes, int count, int element)
{
    int i, j, bytes = 0;
    memset(shuffle, 0x80, 16); /* which stands for a zero */
    for (i = 0; i < count; i++) {
        bytes += sizes[i];
        for (j = 0; j < sizes[i]; j++) {
            shuffle[element * i + j] = (uint8_t)(bytes - 1 - j);
        }
    }
    return bytes;
}

/* Find the shuffle for a window, if there can be one. */
static void
fastws_make_window(unsigned int ends, fastws_window *window)
{
    static const struct {
        int count, largest, first;
    } kinds[] = {{6, 2, 0}, {4, 3, FASTWS_FOURS}, {3, 4, FASTWS_THREES}};
    int sizes[12];
    int found = 0, size = 0, kind, i;
    for (i = 0; i < 12; i++) {
        size++;
        if (ends >> i & 1) {
            sizes[found++] = size;
            size = 0;
        }
    }
    for (kind = 0; kind < 3; kind++) {
        int number = 0, bytes = 0, fits = found >= kinds[kind].count;
        for (i = kinds[kind].count - 1; fits && i >= 0; i--) {
            fits = sizes[i] <= kinds[kind].largest;
            number = number * kinds[kind].largest + sizes[i] - 1;
            bytes += sizes[i];
        }
        if (fits) {
            window->shuffle = (uint8_t)(kinds[kind].first + number);
            window->bytes = (uint8_t)bytes;
            fastws_make_shuffle(
                fastws_tables.shuffles[window->shuffle], sizes, kinds[kind].count,
                kind == 0 ? 2 : 4
            );
            return;
        }
    }
    /* Valid UTF-8 has no such window. */
    window->shuffle = 0;
    window->bytes = 12;
}

/* Must be called before a kernel is. */
static void
fastws_make_tables(void)
{
    unsigned int i, j;
    for (i = 0; i < 1 << 12; i++) {
        fastws_make_window(i, &fastws_tables.windows[i]);
    }
    for (i = 0; i < 256; i++) {
        int kept = 0;
        memset(fastws_tables.keep[i], 0x80, 16);
        for (j = 0; j < 8; j++) {
            if (i >> j & 1) {
                fastws_tables.keep[i][kept++] = (uint8_t)j;
            }
        }
    }
}

/* Read a character of valid UTF-8. */
static inline uint32_t
fastws_utf8_read(const uint8_t **at)
{
    const uint8_t *p = *at;
    if (p[0] < 0x80) {
        *at += 1;
        return p[0];
    }
    if (p[0] < 0xE0) {
        *at += 2;
        return (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    }
    if (p[0] < 0xF0) {
        *at += 3;
        return (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    }
    *at += 4;
    return (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
}

#define FASTWS_SET(isa) \
    static const fastws_kernels fastws_##isa = { \
        #isa, fastws_mask_##isa, fastws_utf8_valid_##isa, fastws_utf8_count_##isa, \
        fastws_utf8_to_1_##isa, fastws_utf8_to_2_##isa, fastws_utf8_to_4_##isa \
    };

#else

static void
fastws_make_tables(void)
{
}

#endif

#ifdef FASTWS_HAVE_X86
#include <immintrin.h>

#define FASTWS_ISA sse
#define FASTWS_WIDTH 16
#define FASTWS_TARGET __attribute__((target("sse4.2,popcnt")))
#include "simd.h"
#undef FASTWS_ISA
#undef FASTWS_WIDTH
#undef FASTWS_TARGET
FASTWS_SET(sse)

#define FASTWS_ISA avx2
#define FASTWS_WIDTH 32
#define FASTWS_TARGET __attribute__((target("avx2,bmi,bmi2,popcnt")))
#include "simd.h"
#undef FASTWS_ISA
#undef FASTWS_WIDTH
#undef FASTWS_TARGET
FASTWS_SET(avx2)
#endif

#ifdef FASTWS_HAVE_NEON
#include <arm_neon.h>

#define FASTWS_ISA neon
#define FASTWS_WIDTH 16
#define FASTWS_TARGET
#include "simd.h"
#undef FASTWS_ISA
#undef FASTWS_WIDTH
#undef FASTWS_TARGET
FASTWS_SET(neon)
#endif

/* The best that this CPU can run, by rank; NULL beyond the last, which is the portable one. */
static const fastws_kernels *
fastws_kernels_by_rank(int rank)
{
    const fastws_kernels *there[3];
    int count = 0;
#ifdef FASTWS_HAVE_X86
    if (fastws_cpu_has_avx2()) {
        there[count++] = &fastws_avx2;
    }
    if (fastws_cpu_has_sse()) {
        there[count++] = &fastws_sse;
    }
#endif
#ifdef FASTWS_HAVE_NEON
    there[count++] = &fastws_neon;
#endif
    there[count++] = &fastws_scalar;
    return rank < count ? there[rank] : NULL;
}

#endif
