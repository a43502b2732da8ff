/* Which instruction sets there are: of this compiler, and of this CPU.
 *
 * Kernels are compiled for an instruction set by a function attribute, so that the rest of
 * the module runs on any CPU of its architecture, and the table that is used is chosen when
 * the module is imported. Other compilers than GCC and clang get the portable kernels.
 */
#ifndef FASTWS_CPU_H
#define FASTWS_CPU_H

#if defined(__GNUC__) && defined(__x86_64__)
#define FASTWS_HAVE_X86 1
#elif defined(__GNUC__) && defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define FASTWS_HAVE_NEON 1 /* every such CPU has it */
#endif

#ifdef FASTWS_HAVE_X86
/* What CPUs have from 2008 on (x86-64-v2), and from 2013 on. The compiler's function asks
 * the operating system too, whether it keeps the wide registers. */
static inline int
fastws_cpu_has_sse(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
}

static inline int
fastws_cpu_has_avx2(void)
{
    __builtin_cpu_init();
    return fastws_cpu_has_sse() && __builtin_cpu_supports("avx2")
           && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
#endif

#endif
