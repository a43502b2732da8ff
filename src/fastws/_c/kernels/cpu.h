/* The instruction sets that this compiler and this CPU support.
 *
 * A function attribute compiles each kernel for an instruction set, so that the rest of the module
 * runs on any CPU of its architecture. The kernels to use are chosen when the module is imported.
 * Compilers other than GCC and clang get the portable kernels.
 */
#ifndef FASTWS_CPU_H
#define FASTWS_CPU_H

#if defined(__GNUC__) && defined(__x86_64__)
#define FASTWS_HAVE_X86 1
#elif defined(__GNUC__) && defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define FASTWS_HAVE_NEON 1 /* every such CPU has it */
#endif

/* Older compilers do not know these instructions. GCC does not align the stack for vectors of this
 * size on Windows (its bug 54412). */
#if defined(FASTWS_HAVE_X86) && defined(__clang__)
#if __clang_major__ >= 11
#define FASTWS_HAVE_AVX512 1
#endif
#elif defined(FASTWS_HAVE_X86) && __GNUC__ >= 9 && !defined(_WIN32)
#define FASTWS_HAVE_AVX512 1
#endif

#ifdef FASTWS_HAVE_X86
#include <cpuid.h>

/* This asks the CPU directly. __builtin_cpu_supports() asks the compiler's run-time library, and
 * some of these report no instruction set at all (that of zig 0.17, for example). */

/* CPUs have these since 2008 (x86-64-v2). */
static inline int
fastws_cpu_has_sse(void)
{
    const unsigned int wanted = bit_SSE4_2 | bit_POPCNT;
    unsigned int a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & wanted) == wanted;
}

/* Return whether the operating system saves all of these registers. */
static inline int
fastws_cpu_saves(unsigned int registers)
{
    unsigned int a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) {
        return 0;
    }
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (a & registers) == registers;
}

/* CPUs have these since 2013. */
static inline int
fastws_cpu_has_avx2(void)
{
    const unsigned int wanted = bit_AVX2 | bit_BMI | bit_BMI2;
    const unsigned int registers = 1 << 1 | 1 << 2; /* XMM, YMM */
    unsigned int a, b, c, d;
    return fastws_cpu_has_sse() && fastws_cpu_saves(registers)
           && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & wanted) == wanted;
}

#ifdef FASTWS_HAVE_AVX512
/* CPUs have these since 2019 (Ice Lake, Zen 4). Those with AVX-512 but without VBMI2 lower their
 * clock for it. (On macOS, this usually returns 0, because the system saves these registers only
 * for threads that have used them.) */
static inline int
fastws_cpu_has_avx512(void)
{
    const unsigned int wanted = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    const unsigned int wanted_c = bit_AVX512VBMI | bit_AVX512VBMI2;
    const unsigned int registers = 7 << 5; /* the masks, the upper halves of ZMM, ZMM16 to ZMM31 */
    unsigned int a, b, c, d;
    return fastws_cpu_has_avx2() && fastws_cpu_saves(registers)
           && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & wanted) == wanted
           && (c & wanted_c) == wanted_c;
}
#endif
#endif

#endif
