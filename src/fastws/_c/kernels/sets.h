/* The sets of kernels for this architecture and this CPU.
 *
 * This file knows which sets are available. It does not choose one.
 */
#ifndef FASTWS_SETS_H
#define FASTWS_SETS_H

#include "cpu.h"
#include "kernels.h"
#include "scalar.h"

#if defined(FASTWS_HAVE_X86) || defined(FASTWS_HAVE_NEON)

/* Tables for transcoding --------------------------------------------------------------- */

/* Shuffles that drop some elements and move the others together: for 8 bytes, 8 pairs of bytes,
 * and 4 elements of 4 bytes. The index has one bit for each element to keep. */
static struct {
    uint8_t octets[1 << 8][16];
    uint8_t pairs[1 << 8][16];
    uint8_t fours[1 << 4][16];
} fastws_tables;

static void
fastws_make_shuffle(uint8_t *shuffle, unsigned int kept, int count, int size)
{
    int from, i, to = 0;
    memset(shuffle, 0x80, 16); /* this index yields a zero */
    for (from = 0; from < count; from++) {
        for (i = 0; kept >> from & 1 && i < size; i++) {
            shuffle[to++] = (uint8_t)(from * size + i);
        }
    }
}

/* This must be called before any kernel. */
static void
fastws_make_tables(void)
{
    unsigned int kept;
    for (kept = 0; kept < 1 << 8; kept++) {
        fastws_make_shuffle(fastws_tables.octets[kept], kept, 8, 1);
        fastws_make_shuffle(fastws_tables.pairs[kept], kept, 8, 2);
    }
    for (kept = 0; kept < 1 << 4; kept++) {
        fastws_make_shuffle(fastws_tables.fours[kept], kept, 4, 4);
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

#define FASTWS_SET(isa, least, unmask) \
    static const fastws_kernels fastws_##isa = { \
        #isa, least, fastws_mask_##isa, fastws_utf8_valid_##isa, unmask, \
        fastws_utf8_count_##isa, fastws_utf8_to_1_##isa, fastws_utf8_to_2_##isa, \
        fastws_utf8_to_4_##isa \
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
FASTWS_SET(sse, FASTWS_SMALL, NULL)

#define FASTWS_ISA avx2
#define FASTWS_WIDTH 32
#define FASTWS_TARGET __attribute__((target("avx2,bmi,bmi2,popcnt")))
#include "simd.h"
#undef FASTWS_ISA
#undef FASTWS_WIDTH
#undef FASTWS_TARGET
FASTWS_SET(avx2, FASTWS_SMALL, NULL)
#endif

#ifdef FASTWS_HAVE_AVX512
#include "avx512.h"
FASTWS_SET(avx512, 1, fastws_utf8_unmask_avx512)
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
FASTWS_SET(neon, FASTWS_SMALL, NULL)
#endif

/* The sets of kernels that were compiled, the best one first, and whether this CPU can run them. */
static const struct {
    const fastws_kernels *kernels;
    int (*there)(void); /* NULL means yes */
} fastws_sets[] = {
#ifdef FASTWS_HAVE_AVX512
    {&fastws_avx512, fastws_cpu_has_avx512},
#endif
#ifdef FASTWS_HAVE_X86
    {&fastws_avx2, fastws_cpu_has_avx2},
    {&fastws_sse, fastws_cpu_has_sse},
#endif
#ifdef FASTWS_HAVE_NEON
    {&fastws_neon, NULL},
#endif
    {&fastws_scalar, NULL},
};

/* Return a set of kernels by rank, or NULL if there is none of this rank. Unless `compiled`, leave
 * out those that this CPU cannot run. */
static const fastws_kernels *
fastws_kernels_by_rank(int rank, int compiled)
{
    size_t i;
    for (i = 0; i < sizeof(fastws_sets) / sizeof(fastws_sets[0]); i++) {
        int there = compiled || fastws_sets[i].there == NULL || fastws_sets[i].there();
        if (there && rank-- == 0) {
            return fastws_sets[i].kernels;
        }
    }
    return NULL;
}

#endif
