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

/* CPUs have these since 2013. The operating system must save the wide registers. */
static inline int
fastws_cpu_has_avx2(void)
{
    const unsigned int wanted = bit_AVX2 | bit_BMI | bit_BMI2;
    const unsigned int kept = 1 << 1 | 1 << 2; /* of XMM and YMM */
    unsigned int a, b, c, d;
    if (!fastws_cpu_has_sse() || !__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) {
        return 0;
    }
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (a & kept) == kept && __get_cpuid_count(7, 0, &a, &b, &c, &d)
           && (b & wanted) == wanted;
}
#endif

#endif
